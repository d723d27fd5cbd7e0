"""The findings as a radiologist reads them: bars, scores, rows, places to look at, words.

Pure Python over the content of ``findings.json``, and of its correction if there is one; a value
that an engine did not give stays ``None`` here and is "not assessed by this engine" in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from COVIDMultitaskLib.engines.contract import SLICE_PROBABILITIES, Unlikeness
from COVIDMultitaskLib.findings import COVID_ALONE, NOT_ASSESSED, UNLIKENESS
from COVIDMultitaskLib.labels import DIAGNOSES, DIAGNOSIS_NAMES, LESIONS, LOBES
from COVIDMultitaskLib.reference_ranges import scans_of

from .compat import tr as _

LISTED_PARTS = 20


@dataclass(frozen=True)
class Column:
    """A column of the per-lobe table: its key in ``findings.json``, its title and its unit."""

    key: str
    title: str
    unit: str

    @property
    def heading(self) -> str:
        """Title and unit, as shown."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


COLUMNS: tuple[Column, ...] = (
    Column("volume_ml", "Volume", "ml"),
    Column("lesion_volume_ml", "Affected", "ml"),
    Column("lesion_percent", "Affected", "%"),
    Column("ground_glass_volume_ml", "Ground-glass", "ml"),
    Column("ground_glass_percent", "Ground-glass", "%"),
    Column("consolidation_volume_ml", "Consolidation", "ml"),
    Column("consolidation_percent", "Consolidation", "%"),
    Column("mean_lesion_hu", "Mean of lesions", "HU"),
    Column("score", "CT severity score", ""),
)


@dataclass(frozen=True)
class Row:
    """A row of the per-lobe table; ``values`` in the order of ``COLUMNS``, ``None``: unknown."""

    key: str
    name: str
    values: tuple[float | None, ...]

    def value(self, key: str) -> float | None:
        """The value of a column."""
        return self.values[[column.key for column in COLUMNS].index(key)]


@dataclass(frozen=True)
class Bar:
    """A probability, 0..1, with its name."""

    key: str
    name: str
    probability: float


@dataclass(frozen=True)
class Score:
    """A figure as the model found it and after correction (``None``: not corrected), in words."""

    title: str
    model: str
    corrected: str | None = None


@dataclass(frozen=True)
class Place:
    """A place worth looking at.

    :param title: what is there and where, such as "12.3 ml ground-glass opacity, right lower lobe".
    :param detail: more about it, may be empty.
    :param ras: position (R, A, S) in mm in the scan's own frame, without its parent transform.
    """

    title: str
    detail: str
    ras: tuple[float, float, float]


@dataclass(frozen=True)
class Correction:
    """Who changed which masks, and when.

    :param kinds: which of "lobes", "lungs" and "lesions".
    :param by: a name; empty when none was given.
    :param time: ISO 8601.
    """

    kinds: tuple[str, ...]
    by: str
    time: str


@dataclass(frozen=True)
class Comparison:
    """One figure of the lesions beside what cases of known diagnosis have, in words.

    :param ranges: by diagnosis, in words: the middle 90 % of its cases; a diagnosis without such cases is missing.
    """

    title: str
    value: str
    ranges: Mapping[str, str]


class FindingsView:
    """What to show of one ``findings.json``.

    :param findings: its content; absent keys are shown as not assessed.
    :param corrected: the same record measured on corrected masks, with "correction" in it
        ("kinds", "by", "time"); ``None``: nothing was corrected.
    :param evidence: what the answers rest on: "maps" (means in per cent over "lungs", "lesions" and the
        lesions' "places") and "parts" (slices or patches with a figure each), by name.
    """

    def __init__(
        self,
        findings: Mapping[str, Any],
        corrected: Mapping[str, Any] | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        self._findings = findings
        self._corrected = corrected
        self._evidence = evidence or {}

    @property
    def modelFindings(self) -> Mapping[str, Any]:
        """The findings as the model gave them."""
        return self._findings

    @property
    def current(self) -> Mapping[str, Any]:
        """The findings that hold: the corrected ones if there are any."""
        return self._corrected or self._findings

    @property
    def correction(self) -> Correction | None:
        """Who corrected what; ``None``: the model's own findings."""
        if not self._corrected:
            return None
        made = self._corrected.get("correction") or {}
        return Correction(tuple(made.get("kinds") or ()), str(made.get("by") or ""), str(made.get("time") or ""))

    @property
    def rows(self) -> list[Row]:
        """The lobes in the order of the file, then the total; of the findings that hold."""
        return _rows(self.current)

    @property
    def modelRows(self) -> dict[str, Row]:
        """The rows as the model found them, by key."""
        return {row.key: row for row in _rows(self._findings)}

    @property
    def hasLobes(self) -> bool:
        """Whether lobes were assessed."""
        return bool(self.current.get("lobes"))

    @property
    def hasLesions(self) -> bool:
        """Whether lesions were assessed."""
        return bool(self.current.get("lesions"))

    @property
    def diagnosis(self) -> list[Bar] | None:
        """Probable diagnoses, most probable first; COVID-19 alone from an engine that tells no others apart.

        ``None``: not assessed.
        """
        probabilities = self._diagnoses
        if not probabilities:
            return None
        ranked = sorted(probabilities.items(), key=lambda item: -item[1])
        return [Bar(key, DIAGNOSIS_NAMES.get(key, key), float(value)) for key, value in ranked]

    @property
    def _diagnoses(self) -> Mapping[str, float]:
        alone = self._findings.get("covid_probability")
        return self._findings.get("diagnosis") or ({} if alone is None else {"covid_19": alone})

    @property
    def diagnosisNote(self) -> str:
        """What to know about the diagnoses, in one sentence; may be empty."""
        return _(COVID_ALONE) if self._findings.get("covid_probability") is not None else ""

    @property
    def probabilities(self) -> dict[str, float | None]:
        """Of severe disease ("severe") and of each diagnosis, 0..1, by its key; ``None``: not assessed."""
        return {"severe": self.severe, **{key: _number(self._diagnoses.get(key)) for key in reversed(DIAGNOSES)}}

    @property
    def severe(self) -> float | None:
        """Probability of severe disease, 0..1; ``None``: not assessed."""
        probabilities = self._findings.get("severity")
        return float(probabilities["severe"]) if probabilities else None

    @property
    def scores(self) -> list[Score]:
        """How much of the lungs is affected, most telling first."""
        return [
            self._score(_("Affected lung"), lambda found: _percent((found.get("total") or {}).get("lesion_percent"))),
            self._score(_("Worse lung"), lambda found: _percent(found.get("worst_lung_percent"))),
            self._score(_("CT grade"), lambda found: _text("CT-{}", found.get("ct_grade"))),
            self._score(_("CT severity score"), lambda found: _text("{} / 25", found.get("ct_severity_score"))),
        ]

    def _score(self, title: str, text: Callable[[Mapping[str, Any]], str]) -> Score:
        return Score(title, text(self._findings), None if self._corrected is None else text(self._corrected))

    @property
    def affected(self) -> dict[str, float | None]:
        """Affected percentage of each lobe by its key."""
        found = {row.key: row.value("lesion_percent") for row in self.rows}
        return {lobe.key: found.get(lobe.key) for lobe in LOBES}

    @property
    def pattern(self) -> str:
        """Where in the lungs the lesions are, in one sentence; empty without lesions."""
        lesions = self.current.get("lesions") or {}
        if not lesions.get("count"):
            return _("No lesion was found.") if self.current.get("lesions") else ""
        parts = [_("{n} lesion(s)").format(n=lesions["count"])]
        if lesions.get("bilateral") is not None:
            parts.append(_("both lungs") if lesions["bilateral"] else _("one lung"))
        shares = (
            ("peripheral_percent", _("{share} % peripheral")),
            ("dorsal_percent", _("{share} % dorsal")),
            ("lower_third_percent", _("{share} % in the lower third")),
        )
        parts += [form.format(share=round(lesions[key])) for key, form in shares if lesions.get(key) is not None]
        return ", ".join(parts) + "."

    @property
    def differential(self) -> list[Comparison]:
        """The lesions beside those of cases of known diagnosis; empty where the engine compares none.

        Without the shares of single lobes, which the table of the lobes lets see.
        """
        ofLobes = {f"{lobe.key}_percent" for lobe in LOBES}
        rows = self.current.get("differential") or []
        return [_comparison(row) for row in rows if row["key"] not in ofLobes]

    @property
    def knownScans(self) -> str:
        """What the cases of :attr:`differential` are, in words."""
        rows = self.current.get("differential") or []
        return _(scans_of(of for row in rows for of in row["reference"].values()))

    @property
    def places(self) -> list[Place]:
        """The lesions, largest first."""
        uncertain = {tuple(row[:3]): row[3] for row in self._map("uncertainty").get("places") or []}
        components = (self.current.get("lesions") or {}).get("components") or []
        return [_place(record, uncertain.get(tuple(record["point_lps_mm"]))) for record in components]

    @property
    def parts(self) -> list[Place]:
        """The slices or patches that the answers rest on, those with the highest figures first."""
        named = [(name, part) for name, parts in (self._evidence.get("parts") or {}).items() for part in parts]
        ranked = sorted(named, key=lambda item: -_figure(item[1])[0])
        return [_part(name, part) for name, part in ranked[:LISTED_PARTS]]

    @property
    def uncertainty(self) -> str:
        """How uncertain the lesions are as a whole, in one sentence; empty: not told."""
        found = self._map("uncertainty")
        if found.get("lungs") is None:
            return ""
        return _("Uncertainty: {lesions} % on average in the lesions, {lungs} % in the lungs.").format(
            lesions=_rounded(found.get("lesions")), lungs=_rounded(found["lungs"])
        )

    def _map(self, name: str) -> Mapping[str, Any]:
        return (self._evidence.get("maps") or {}).get(name) or {}

    @property
    def warnings(self) -> list[str]:
        """What to keep in mind about the scan, one sentence each."""
        return self._flags(lambda level: level != "info")

    @property
    def hints(self) -> list[str]:
        """What is good to know, one sentence each."""
        return self._flags(lambda level: level == "info")

    def _flags(self, isWanted: Callable[[Any], bool]) -> list[str]:
        return [str(item["message"]) for item in self.current.get("quality") or [] if isWanted(item.get("level"))]

    @property
    def unlikeness(self) -> str:
        """How unlike the training data the scan is, in one sentence; empty: not told, or among the warnings."""
        found = self._findings.get("unlikeness")
        if not found or Unlikeness(**found).is_unlike:
            return ""
        return _(UNLIKENESS).format(**found)

    @property
    def origin(self) -> str:
        """One quiet line: which weights answered, and which gave what these did not."""
        return "; ".join(filter(None, [_weights(self._findings.get("engine") or {}), *self._supplied]))

    @property
    def _supplied(self) -> list[str]:
        """What other weights gave, those of each in one part of a sentence."""
        given: dict[str, list[str]] = {}
        for name in self._findings.get("sources") or {}:
            given.setdefault(self.originOf(name), []).append(name)
        both = f" {_('and')} "
        return [_("{answers} by {engine}").format(answers=both.join(names), engine=who) for who, names in given.items()]

    def originOf(self, answer: str) -> str:
        """Which weights gave "lungs", "lobes" or "lesions"."""
        return _weights((self._findings.get("sources") or {}).get(answer) or self._findings.get("engine") or {})

    @property
    def notice(self) -> str:
        """The line that says what the findings may be used for, and what the weights were trained on."""
        return str(self._findings.get("notice") or _("For research only, not for diagnosis."))


def _comparison(row: Mapping[str, Any]) -> Comparison:
    unit = f", {row['unit']}" if row.get("unit") else ""
    ranges = {
        DIAGNOSIS_NAMES.get(key, key): _("{low} to {high}").format(low=_short(of["p5"]), high=_short(of["p95"]))
        for key, of in (row.get("reference") or {}).items()
    }
    return Comparison(f"{_(row['name'])}{unit}", _short(row.get("value")), ranges)


def _short(value: float | None) -> str:
    """Two digits at least, no needless ones.

    >>> [_short(value) for value in (None, 0, 0.44, 3.14, 271.8, -612.3)]
    ['–', '0', '0.4', '3.1', '272', '-612']
    """
    if value is None:
        return "–"
    return f"{value:.1f}".removesuffix(".0") if abs(value) < 10 else f"{value:.0f}"


def _rows(findings: Mapping[str, Any]) -> list[Row]:
    rows = [_row(lobe, str(lobe["key"]), str(lobe["name"])) for lobe in findings.get("lobes") or []]
    total = findings.get("total")
    if not total:
        return rows
    return [*rows, _row({**total, "score": findings.get("ct_severity_score")}, "total", _("Both lungs"))]


def _row(record: Mapping[str, Any], key: str, name: str) -> Row:
    return Row(key, name, tuple(_number(record.get(column.key)) for column in COLUMNS))


def evidenceTitle(name: str) -> str:
    """The name of a kind of evidence in words.

    >>> evidenceTitle("slices"), evidenceTitle("class_activation")
    ('Slice', 'Class activation')
    """
    known = {
        "severity": _("What speaks for severe disease"),
        "slices": _("Slice"),
        SLICE_PROBABILITIES: _("Slice"),
        "patches": _("Patch"),
    }
    return known.get(name) or _(name.replace("_", " ").capitalize())


def _figure(part: Mapping[str, Any]) -> tuple[float, str]:
    """The one number of a part beside its place, and what it means, which its key tells."""
    key, value = next((key, value) for key, value in part.items() if key != "point_lps_mm")
    known = {"contribution": _("contribution"), "probability": _("probability of COVID-19")}
    return float(value), known.get(key, key)


def _part(name: str, part: Mapping[str, Any]) -> Place:
    value, meaning = _figure(part)
    title = f"{evidenceTitle(name)}, {meaning} {value:.2f}"
    return Place(title, "", _ras(part["point_lps_mm"]))


def _weights(identity: Mapping[str, Any]) -> str:
    parts = [identity.get(key) for key in ("engine", "bundle", "version")]
    return ", ".join(str(part) for part in parts if part)


def _rounded(percent: float | None) -> str:
    return "–" if percent is None else f"{percent:.0f}"


def _ras(lps) -> tuple[float, float, float]:
    x, y, z = lps
    return -float(x), -float(y), float(z)


def _place(record: Mapping[str, Any], uncertainty: float | None) -> Place:
    names = {label.key: label.name for label in (*LOBES, *LESIONS)}
    kind = str(record.get("lesion_class"))
    shares = record.get("lobe_percent") or {}
    lobes = [names.get(key, key) for key in sorted(shares, key=lambda key: -shares[key]) if shares[key] >= 10]
    title = f"{record['volume_ml']:.1f} ml {names.get(kind, kind)}"
    solid = record.get("consolidation_percent") or 0
    details = [_("{share} % consolidation").format(share=round(solid))] if 0 < solid < 100 else []
    if uncertainty is not None:
        details.append(_("uncertainty {share} %").format(share=round(uncertainty)))
    return Place(", ".join([title, *lobes]), ", ".join(details), _ras(record["point_lps_mm"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _percent(value: Any) -> str:
    return _(NOT_ASSESSED) if value is None else f"{float(value):.1f} %"


def _text(form: str, value: Any) -> str:
    return _(NOT_ASSESSED) if value is None else form.format(value)

"""The findings as a radiologist reads them: rows of a table and a few lines of text.

Pure Python over the content of ``findings.json``; a value that an engine did not give stays
``None`` here and is "not assessed by this engine" in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from COVIDMultitaskLib.labels import DIAGNOSIS_NAMES

from .compat import tr as _

NOT_ASSESSED = "not assessed by this engine"


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


@dataclass(frozen=True)
class Line:
    """A line of the summary, such as ``Diagnosis: COVID-19 87 %``."""

    title: str
    text: str


class FindingsView:
    """What to show of one ``findings.json``.

    :param findings: its content; absent keys are shown as not assessed.
    """

    def __init__(self, findings: Mapping[str, Any]) -> None:
        self._findings = findings

    @property
    def rows(self) -> list[Row]:
        """The lobes in the order of the file, then the total."""
        rows = [_row(lobe, str(lobe["key"]), str(lobe["name"])) for lobe in self._findings.get("lobes") or []]
        total = self._findings.get("total")
        if not total:
            return rows
        return [*rows, _row({**total, "score": self._findings.get("ct_severity_score")}, "total", _("Both lungs"))]

    @property
    def lines(self) -> list[Line]:
        """The summary, most important first."""
        total = self._findings.get("total") or {}
        return [
            Line(_("Diagnosis"), self._diagnosis()),
            Line(_("Severity"), self._severity()),
            Line(_("Affected lung"), _percent(total.get("lesion_percent"))),
            Line(_("Worse lung"), _percent(self._findings.get("worst_lung_percent"))),
            Line(_("CT grade"), _text("CT-{}", self._findings.get("ct_grade"))),
            Line(_("CT severity score"), _text("{} / 25", self._findings.get("ct_severity_score"))),
        ]

    @property
    def warnings(self) -> list[str]:
        """What to keep in mind about the scan, one sentence each."""
        return [str(item["message"]) for item in self._findings.get("quality") or [] if item.get("level") != "info"]

    @property
    def origin(self) -> str:
        """One quiet line: which weights answered, and what they were trained on."""
        engine = self._findings.get("engine") or {}
        parts = [engine.get("engine"), engine.get("bundle"), engine.get("version"), engine.get("trained_on")]
        return ", ".join(str(part) for part in parts if part)

    @property
    def notice(self) -> str:
        """The line that says what the findings may be used for."""
        return str(self._findings.get("notice") or _("For research only, not for diagnosis."))

    def _diagnosis(self) -> str:
        probabilities = self._findings.get("diagnosis")
        if not probabilities:
            return _(NOT_ASSESSED)
        ranked = sorted(probabilities.items(), key=lambda item: -item[1])
        return ", ".join(f"{DIAGNOSIS_NAMES.get(key, key)} {100 * value:.0f} %" for key, value in ranked)

    def _severity(self) -> str:
        probabilities = self._findings.get("severity")
        if not probabilities:
            return _(NOT_ASSESSED)
        return _("severe {percent} %").format(percent=round(100 * probabilities["severe"]))


def _row(record: Mapping[str, Any], key: str, name: str) -> Row:
    return Row(key, name, tuple(_number(record.get(column.key)) for column in COLUMNS))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _percent(value: Any) -> str:
    return _(NOT_ASSESSED) if value is None else f"{float(value):.1f} %"


def _text(form: str, value: Any) -> str:
    return _(NOT_ASSESSED) if value is None else form.format(value)

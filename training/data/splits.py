"""Which records train, which validate and which test: by patient, stratified, in a file that travels with the weights.

Records that share a patient or a group, or look nearly the same, never come into different parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.writing import write_json
from training.data.record import PARTS, Record
from training.data.similarity import Groups

FORMAT = "covid-multitask-split"
VERSION = 1


@dataclass(frozen=True)
class Split:
    """Parts of a set of records.

    :param parts: ids by part: train, val and test, or fold_0, fold_1, ...
    :param seed: that made it.
    :param records_digest: of the ids and of which belong together; see :func:`digest_of`.
    """

    parts: Mapping[str, tuple[str, ...]]
    seed: int
    records_digest: str
    _part_of: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for part, ids in self.parts.items():
            self._part_of.update(dict.fromkeys(ids, part))

    @property
    def digest(self) -> str:
        """SHA-256 of the whole split; written into the weights' model card."""
        return _sha256({"parts": {part: sorted(ids) for part, ids in self.parts.items()}, "seed": self.seed,
                        "records": self.records_digest})  # fmt: skip

    def part_of(self, record: Record) -> str:
        """:raises InputError: for a record that the split does not know."""
        if record.id not in self._part_of:
            raise InputError(f"The split does not know {record.id}; make the split anew.")
        return self._part_of[record.id]

    def select(self, records: Sequence[Record], part: str) -> list[Record]:
        """The records of one part, in their order. :raises InputError: for an unknown part or record."""
        if part not in self.parts:
            raise InputError(f'The split has no part "{part}"; it has {", ".join(self.parts)}.')
        return [record for record in records if self.part_of(record) == part]

    def fold(self, records: Sequence[Record], index: int) -> tuple[list[Record], list[Record]]:
        """Records to train on and to test on when fold ``index`` is left out."""
        held_out = self.select(records, f"fold_{index}")
        return [record for record in records if self.part_of(record) != f"fold_{index}"], held_out

    def check(self, records: Sequence[Record], similar: Mapping[str, str] | None = None) -> None:
        """Whether the split was made for exactly these records, kept together as now.

        :raises InputError: saying what was added, is gone, or belongs to another patient now.
        """
        known, now = set(self._part_of), {record.id for record in records}
        if known != now:
            raise InputError(f"The records changed since the split was made: {_difference(known, now)}; make it anew.")
        if digest_of(records, similar) != self.records_digest:
            raise InputError(
                "Some records belong to other patients or groups than when the split was made; make it anew."
            )

    def write(self, path: str | Path) -> None:
        """Write as JSON. :raises OutputError: no permission, no space, no such folder."""
        write_json(
            {
                "format": FORMAT,
                "version": VERSION,
                "seed": self.seed,
                "records_digest": self.records_digest,
                "digest": self.digest,
                "parts": {part: list(ids) for part, ids in self.parts.items()},
            },
            path,
        )


def read_split(path: str | Path) -> Split:
    """Read a split file.

    :raises InputError: missing, of another format, or changed by hand.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The split file {path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise InputError(f"The split file {path.name} is no JSON or is damaged; make the split anew.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise InputError(f"{path.name} is no split file of version {VERSION}; make the split anew.")
    split = Split(
        {part: tuple(ids) for part, ids in content["parts"].items()}, content["seed"], content["records_digest"]
    )
    if split.digest != content.get("digest"):
        raise InputError(f"The split file {path.name} was changed by hand; take the original or make the split anew.")
    return split


def split_records(
    records: Sequence[Record],
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    similar: Mapping[str, str] | None = None,
    keep_prescribed: bool = True,
) -> Split:
    """Train, validation and test parts.

    The same records give the same split, in whatever order they come.

    :param fractions: share of the records by part; default 0.7, 0.15, 0.15.
    :param similar: record id to group, from :func:`training.data.similarity.group_similar`.
    :param keep_prescribed: leave records in the part their source prescribes, with their whole patient.
    :raises InputError: too few patients, repeated ids, or a patient whose source prescribes two parts.
    """
    shares = dict(fractions) if fractions else dict(zip(PARTS, (0.7, 0.15, 0.15), strict=True))
    if not shares or min(shares.values()) <= 0:
        raise InputError("The shares of a split must be above zero; leave out the part that is not wanted.")
    total = sum(shares.values())
    shares = {part: share / total for part, share in shares.items()}
    return _split(records, shares, seed, similar, keep_prescribed)


def fold_records(
    records: Sequence[Record], folds: int, seed: int = 0, similar: Mapping[str, str] | None = None
) -> Split:
    """``folds`` parts of about the same size for cross-validation, named fold_0 and so on.

    :raises InputError: fewer patients than folds, or repeated ids.
    """
    if folds < 2:
        raise InputError(f"Cross-validation needs at least 2 folds, not {folds}.")
    return _split(records, {f"fold_{n}": 1 / folds for n in range(folds)}, seed, similar, keep_prescribed=False)


def kept_together(records: Sequence[Record], similar: Mapping[str, str] | None = None) -> list[list[Record]]:
    """Records grouped by patient, by group and by likeness; whatever they share joins them."""
    groups = Groups(record.id for record in records)
    first: dict[str, str] = {}
    for record in records:
        shared = (record.patient_id, record.group, (similar or {}).get(record.id))
        for kind, key in enumerate(shared):
            if key is not None:
                groups.join(first.setdefault(f"{kind}/{key}", record.id), record.id)
    by_id = {record.id: record for record in records}
    return [[by_id[name] for name in members] for members in groups.members()]


def digest_of(records: Sequence[Record], similar: Mapping[str, str] | None = None) -> str:
    """SHA-256 of the records' ids and of which of them belong together."""
    return _sha256(sorted(sorted(record.id for record in group) for group in kept_together(records, similar)))


def _split(
    records: Sequence[Record],
    shares: dict[str, float],
    seed: int,
    similar: Mapping[str, str] | None,
    keep_prescribed: bool,
) -> Split:
    _refuse_repeated(records)
    parts: dict[str, list[str]] = {part: [] for part in shares}
    strata: dict[str, list[list[Record]]] = {}
    for group in kept_together(records, similar):
        prescribed = _prescribed(group) if keep_prescribed else None
        if prescribed is not None:
            parts.setdefault(prescribed, []).extend(record.id for record in group)
        else:
            strata.setdefault(_stratum(group), []).append(group)
    carry = dict.fromkeys(shares, 0.0)
    for name in sorted(strata):
        _deal(strata[name], shares, carry, parts, seed)
    _refuse_empty(parts, records, similar)
    return Split({part: tuple(sorted(ids)) for part, ids in parts.items()}, seed, digest_of(records, similar))


def _deal(
    groups: list[list[Record]],
    shares: dict[str, float],
    carry: dict[str, float],
    parts: dict[str, list[str]],
    seed: int,
) -> None:
    """Deal a stratum's groups out, the large ones first, each to the part that lacks most.

    What a part got too much or too little of is carried over to the next stratum, so that many small
    strata do not all go to the same part.
    """
    total = sum(len(group) for group in groups)
    lacking = {part: share * total + carry[part] for part, share in shares.items()}
    for group in sorted(groups, key=lambda group: (-len(group), _drawn(group, seed))):
        part = max(lacking, key=lambda name: lacking[name])
        parts[part] += [record.id for record in group]
        lacking[part] -= len(group)
    carry.update(lacking)


def _drawn(group: list[Record], seed: int) -> str:
    """A random key that depends on the group and the seed alone, not on the order of the records."""
    return hashlib.sha256(f"{seed}/{min(record.id for record in group)}".encode()).hexdigest()


def _stratum(group: list[Record]) -> str:
    """Source and label of a group; the gravest label where they differ."""
    sources = "+".join(sorted({record.source for record in group}))
    return f"{sources}/{max(_label(record) for record in group)}"


def _label(record: Record) -> str:
    masks = "".join(mark if one else "-" for mark, one in zip("LlM", _masks(record), strict=True))
    return f"{record.ct_grade}/{record.severity}/{record.diagnosis or record.covid}/{masks}"


def _masks(record: Record) -> tuple[bool, bool, bool]:
    return record.lobes is not None, record.lungs is not None, bool(record.lesions and record.lesions.parts)


def _prescribed(group: list[Record]) -> str | None:
    """The part a group must go to.

    :raises InputError: when its records are prescribed to different ones.
    """
    wanted = {record.split for record in group if record.split}
    if len(wanted) > 1:
        raise InputError(
            f"{group[0].id} and records of the same patient or group are prescribed to {' and '.join(sorted(wanted))}; "
            "correct the prescription or do not keep it."
        )
    return next(iter(wanted), None)


def _refuse_repeated(records: Sequence[Record]) -> None:
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise InputError(f"The record {record.id} is there twice; give each file once.")
        seen.add(record.id)


def _refuse_empty(parts: dict[str, list[str]], records: Sequence[Record], similar: Mapping[str, str] | None) -> None:
    if empty := [part for part, ids in parts.items() if not ids]:
        groups = len(kept_together(records, similar))
        raise InputError(
            f"{groups} patients or groups cannot fill the parts {', '.join(parts)}: {empty[0]} stays empty; "
            "give more patients or ask for fewer parts."
        )


def _difference(known: set[str], now: set[str]) -> str:
    parts = []
    if gone := sorted(known - now):
        parts.append(f"{len(gone)} gone ({', '.join(gone[:3])})")
    if new := sorted(now - known):
        parts.append(f"{len(new)} new ({', '.join(new[:3])})")
    return " and ".join(parts)


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

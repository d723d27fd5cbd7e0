"""What is known of a scan and what an engine found in it, kept on disk so that no scan is analysed twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from COVIDMultitaskLib import __version__
from COVIDMultitaskLib.engines.contract import Engine
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import DIAGNOSES
from COVIDMultitaskLib.pipeline import Analysis, analyze
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import check_chest_ct
from COVIDMultitaskLib.writing import write_json
from training.data.cache import PreparedCache
from training.data.loading import load
from training.data.record import Record


@dataclass(frozen=True)
class Truth:
    """What is known of a scan; ``None`` is unknown.

    :param affected_percent: lesion volume in the lungs / volume of the lungs, where both were drawn.
    """

    severity: str | None = None
    diagnosis: str | None = None
    covid: bool | None = None
    ct_grade: int | None = None
    affected_percent: float | None = None


@dataclass(frozen=True)
class Found:
    """What the engine answered and what was measured on it; ``None`` where it gives no such answer.

    :param covid: probability of COVID-19 against everything else.
    """

    severity: Mapping[str, float] | None = None
    diagnosis: Mapping[str, float] | None = None
    covid: float | None = None
    ct_grade: int | None = None
    ct_severity_score: int | None = None
    affected_percent: float | None = None
    worst_lung_percent: float | None = None
    unlikeness: float | None = None
    unlikeness_threshold: float | None = None


@dataclass(frozen=True)
class Answers:
    """One scan. Without a patient's id it counts as a patient of its own."""

    id: str
    patient: str | None
    truth: Truth = field(default_factory=Truth)
    found: Found = field(default_factory=Found)

    @property
    def drawn_with(self) -> str:
        """Whom a bootstrap draws it with."""
        return self.patient or self.id


class KeptAnswers:
    """Gives the answers for records, from disk where they are there.

    An entry is named after the scan's files, the weights with their settings, and the version of this software.

    :param folder: exists.
    :param digests: of all bundles that the engine may use, their settings included.
    """

    def __init__(self, folder: Path, engine: Engine, digests: Sequence[str]) -> None:
        self.folder, self.engine = folder, engine
        self._digests = list(digests)
        self._files = PreparedCache(folder)

    def get(self, record: Record) -> Answers:
        """The answers for a record, from the engine if they are not kept.

        :raises InputError: when the scan or a mask cannot be read.
        :raises NotChestCTError: when the scan shows no chest.
        :raises OutputError: when the answers cannot be kept.
        """
        path = self.folder / f"{self._key(record)}.json"
        measured = _read(path)
        if measured is None:
            found, affected = self._answer(record)
            measured = {"found": asdict(found), "affected_percent": affected}
            write_json(measured, path)
        truth = Truth(record.severity, record.diagnosis, record.covid, record.ct_grade, measured["affected_percent"])
        return Answers(record.id, record.patient_id, truth, Found(**measured["found"]))

    def _answer(self, record: Record) -> tuple[Found, float | None]:
        sample = load(record)
        if sample.image is None:
            raise InputError(f"{record.id} has masks but no image; give its image or leave it out.")
        check_chest_ct(sample.image)
        found = found_in(analyze(sample.image, self.engine, Progress()))
        return found, affected_percent(sample.lesions, sample.lobes if sample.lobes is not None else sample.lungs)

    def _key(self, record: Record) -> str:
        decisive = [self._files.key(record), asdict(self.engine.identity), self._digests, __version__]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


def found_in(analysis: Analysis) -> Found:
    """What an analysis tells."""
    findings, unlikeness = analysis.findings, analysis.prediction.unlikeness
    return Found(
        severity=_mapping(findings.severity),
        diagnosis=_mapping(findings.diagnosis),
        covid=findings.diagnosis["covid_19"] if findings.diagnosis else analysis.prediction.covid,
        ct_grade=findings.ct_grade,
        ct_severity_score=findings.ct_severity_score,
        affected_percent=None if findings.total is None else findings.total.lesion_percent,
        worst_lung_percent=findings.worst_lung_percent,
        unlikeness=None if unlikeness is None else unlikeness.score,
        unlikeness_threshold=None if unlikeness is None else unlikeness.threshold,
    )


def affected_percent(lesions: np.ndarray | None, lungs: np.ndarray | None) -> float | None:
    """Of reference masks; ``None`` where lesions or lungs were not drawn, or no lung is there."""
    if lesions is None or lungs is None or not lungs.any():
        return None
    return float(100 * (lesions[lungs > 0] > 0).mean())


def as_line(one: Answers) -> dict[str, object]:
    """What is known of a scan and what was found, by column; ``None`` is unknown or not answered."""
    truth, found = one.truth, one.found
    diagnosis = found.diagnosis or {}
    return {
        "id": one.id,
        "patient": one.patient,
        "severity": truth.severity,
        "probability_severe": (found.severity or {}).get("severe"),
        "diagnosis": truth.diagnosis,
        "covid": truth.covid,
        **{f"probability_{name}": diagnosis.get(name) for name in DIAGNOSES},
        "probability_covid_19": found.covid,
        "ct_grade": truth.ct_grade,
        "found_ct_grade": found.ct_grade,
        "found_ct_severity_score": found.ct_severity_score,
        "affected_percent": truth.affected_percent,
        "found_affected_percent": found.affected_percent,
        "found_worst_lung_percent": found.worst_lung_percent,
        "unlikeness": found.unlikeness,
        "unlikeness_threshold": found.unlikeness_threshold,
    }


def _mapping(values: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if values is None else dict(values)


def _read(path: Path) -> dict | None:
    """An entry; ``None`` when it is not there or damaged."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        Found(**entry["found"])
        return entry if "affected_percent" in entry else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

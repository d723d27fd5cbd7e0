"""What an analysis found, as one record that can be written, read back and shown.

The field names are the keys of ``findings.json``; units stand in the names. The published
schema is ``Resources/Schemas/findings-1.0.schema.json``. ``None`` means "not assessed":
the engine gives no such answer, or it has no meaning here (a percentage of a lobe that is
not there). Nothing in the record tells who the patient is or where the scan was stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from COVIDMultitaskLib import __version__
from COVIDMultitaskLib.engines.contract import EngineIdentity, Unlikeness
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.reference_ranges import ReferenceRange

SCHEMA_VERSION = "1.0"

RESEARCH_USE = "Research use only; not a medical device."

NOT_ASSESSED = "not assessed by this engine"
"""How a missing answer is shown, in the terminal and in the panel."""

COVID_ALONE = "This engine does not tell other diagnoses apart."
"""What stands beside ``Findings.covid_probability`` wherever it is shown."""

UNLIKENESS = "How unlike the training data: {score:.1f} (a warning comes above {threshold:.1f})."
"""How ``Findings.unlikeness`` is shown where it is no reason to warn."""


@dataclass(frozen=True)
class CreatedBy:
    """The software that measured."""

    software: str = "COVIDMultitask"
    version: str = __version__


@dataclass(frozen=True)
class InputSummary:
    """The scan that was measured.

    :param format: "DICOM", "NIfTI", "NRRD", "MetaImage", "PNG", "JPEG", "phantom" or "memory".
    :param shape_zyx: voxels along the array's axes.
    :param spacing_zyx_mm: distance between voxel centres along the array's axes; None for a picture.
    :param intensity: what the voxel values mean, a value of ``volume.IntensityKind``.
    :param modality: DICOM modality, when known.
    :param kernel: reconstruction kernel, when known.
    :param slice_thickness_mm: when known.
    :param missing_slices: how many slices the positions show to be missing.
    :param contrast: whether contrast medium was given, when known.
    :param notes: what was noticed while reading, one sentence each.
    """

    format: str
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float] | None
    intensity: str = "hounsfield"
    modality: str | None = None
    kernel: str | None = None
    slice_thickness_mm: float | None = None
    missing_slices: int = 0
    contrast: bool | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegionFindings:
    """Volumes of a lobe, a lung or both lungs.

    :param key: "left_upper" ... of a lobe, "left" or "right" of a lung, "total" of both.
    :param volume_ml: air, tissue and lesions together.
    :param lesion_percent: lesion volume / volume x 100; likewise the two classes.
    :param mean_lesion_hu: mean over the lesion voxels; None without lesions or without HU.
    """

    key: str
    name: str
    volume_ml: float | None
    lesion_volume_ml: float | None = None
    lesion_percent: float | None = None
    ground_glass_volume_ml: float | None = None
    ground_glass_percent: float | None = None
    consolidation_volume_ml: float | None = None
    consolidation_percent: float | None = None
    mean_lesion_hu: float | None = None


@dataclass(frozen=True)
class LobeFindings(RegionFindings):
    """A lobe's volumes and its share of the CT severity score.

    :param score: 0..5; None when the lobe is not there or lesions were not assessed.
    """

    score: int | None = None


@dataclass(frozen=True)
class LesionComponent:
    """One connected lesion.

    :param number: 1 for the largest.
    :param centroid_lps_mm: its centre of mass (x, y, z), which may lie beside a bent lesion.
    :param point_lps_mm: centre of the lesion's voxel nearest to the centroid: go there to see it.
    :param start_zyx: first voxel of its bounding box in the scan's array.
    :param stop_zyx: voxel after the last of its bounding box.
    :param lobe_percent: share of its volume in each lobe it reaches; None without lobes.
    :param lesion_class: the class most of its volume has.
    :param consolidation_percent: share of its volume that is consolidation.
    """

    number: int
    volume_ml: float
    centroid_lps_mm: tuple[float, float, float]
    point_lps_mm: tuple[float, float, float]
    start_zyx: tuple[int, int, int]
    stop_zyx: tuple[int, int, int]
    lobe_percent: Mapping[str, float] | None
    lesion_class: str
    consolidation_percent: float
    mean_hu: float | None


@dataclass(frozen=True)
class LesionFindings:
    """How many lesions there are, how large, and where in the lungs.

    Shares are of the whole lesion volume in the lungs; None without lesions or lobes.

    :param count: 26-connected components above 50 mm3.
    :param largest_percent: share of the lesion volume that is in the largest.
    :param bilateral: whether each lung holds more than 50 mm3.
    :param peripheral_percent: share in the outer third of the distance from the pleura to the
        deepest point of the same lung.
    :param dorsal_percent: share in the back half of the same lung's depth.
    :param upper_third_percent: share in the upper third of the same lung's height.
    :param components: the largest ones, largest first, 50 at most.
    :param height_percent: mean place of the volume between the same lung's lowest (0) and highest point (100).
    :param boundary_gradient_hu_per_mm: mean rise in HU from the lung into the lesions across their boundary.
    """

    count: int
    largest_volume_ml: float
    largest_percent: float | None
    bilateral: bool | None
    peripheral_percent: float | None
    dorsal_percent: float | None
    upper_third_percent: float | None
    middle_third_percent: float | None
    lower_third_percent: float | None
    components: tuple[LesionComponent, ...] = ()
    height_percent: float | None = None
    boundary_gradient_hu_per_mm: float | None = None


@dataclass(frozen=True)
class LesionStatistic:
    """One statistic of the lesions beside its distribution in cases of known diagnosis.

    :param key: stable key, of ``measuring.differential.STATISTICS``.
    :param name: what a radiologist reads.
    :param unit: of all the figures; empty for counts, and for "bilateral", which is 0 or 1.
    :param value: of this scan; None where it cannot be told.
    :param reference: by diagnosis, those of ``labels.DIAGNOSES`` that the reference has cases of.
    """

    key: str
    name: str
    unit: str
    value: float | None
    reference: Mapping[str, ReferenceRange]


@dataclass(frozen=True)
class PictureFindings:
    """What is told of a picture, which has no millimetres and no HU.

    :param width_px: pixels of a row.
    :param height_px: pixels of a column.
    :param lesion_count: connected pieces of lesion; None when lesions were not assessed, likewise the next.
    :param lesion_percent_of_picture: lesion pixels / all pixels x 100.
    :param lesion_percent_of_lungs: lesion pixels in the lungs / pixels of the lungs x 100; None where the lungs are not
        known.
    """

    width_px: int
    height_px: int
    lesion_count: int | None = None
    lesion_percent_of_picture: float | None = None
    lesion_percent_of_lungs: float | None = None


@dataclass(frozen=True)
class QualityFlag:
    """Something about the scan or the answer that a reader should know.

    :param flag: stable key.
    :param level: "info" or "warning".
    :param message: one sentence.
    """

    flag: str
    level: str
    message: str


@dataclass(frozen=True)
class AffectedEstimate:
    """Affected percentage of a region by the engine's probabilities, beside that of the mask.

    :param expected_percent: its expectation.
    :param low_percent: end of a 90 % interval, likewise ``high_percent``; what it covers and what not says
        :func:`COVIDMultitaskLib.inference.uncertainty.affected_shares`.
    """

    expected_percent: float
    low_percent: float
    high_percent: float


@dataclass(frozen=True)
class Findings:
    """Everything measured on one scan. See the module's text and the schema.

    :param lobes: in the order of ``labels.LOBES``; None when lobes were not assessed.
    :param lungs: left, right.
    :param worst_lung_percent: the larger affected percentage of the two lungs.
    :param ct_severity_score: 0..25, sum of the lobes' scores.
    :param ct_grade: 0..4 (CT-0 .. CT-4) of the worst lung.
    :param severity: probability of each of ``labels.SEVERITIES``.
    :param diagnosis: probability of each of ``labels.DIAGNOSES``.
    :param differential: statistics of the lesions beside those of cases of known diagnosis; None, and not written,
        when the engine's weights bring no such cases.
    :param covid_probability: probability of COVID-19 against everything else, from an engine that does not tell other
        diagnoses apart; None when not assessed.
    :param unlikeness: how unlike the training data the input is, by the engine's own measure; None, and not written,
        when it has none.
    :param sources: which weights gave "lungs", "lobes" or "lesions" where those of ``engine`` did not; None: they all.
    :param picture: what is told of a picture; None, and not written, for a scan.
    :param affected_estimate: by the keys of the regions, as far as they are there; None, and not written, when the
        engine gives no probabilities, or its masks were corrected.
    :param created: ISO 8601 time, written only when given, so that equal runs give equal files.
    """

    engine: EngineIdentity
    input: InputSummary
    lobes: tuple[LobeFindings, ...] | None
    lungs: tuple[RegionFindings, ...] | None
    total: RegionFindings | None
    worst_lung_percent: float | None
    ct_severity_score: int | None
    ct_grade: int | None
    severity: Mapping[str, float] | None
    diagnosis: Mapping[str, float] | None
    lesions: LesionFindings | None
    quality: tuple[QualityFlag, ...]
    notice: str
    picture: PictureFindings | None = None
    differential: tuple[LesionStatistic, ...] | None = None
    created_by: CreatedBy = field(default_factory=CreatedBy)
    created: str | None = None
    covid_probability: float | None = None
    unlikeness: Unlikeness | None = None
    sources: Mapping[str, EngineIdentity] | None = None
    affected_estimate: Mapping[str, AffectedEstimate] | None = None
    schema_version: str = SCHEMA_VERSION

    @property
    def remarks(self) -> tuple[QualityFlag, ...]:
        """``quality``, and how unlike the training data the input is, where that is no reason to warn."""
        found = self.unlikeness
        if found is None or found.is_unlike:
            return self.quality
        told = UNLIKENESS.format(score=found.score, threshold=found.threshold)
        return (*self.quality, QualityFlag("unlikeness", "info", told))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings, as written to ``findings.json``."""
        values = {key: _plain(getattr(self, key)) for key in _WRITING_ORDER}
        return {key: value for key, value in values.items() if value is not None or key not in _OPTIONAL}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Findings:
        """The record of :meth:`to_dict`.

        :raises InputError: when it is not such a record, or one of another schema version.
        """
        version = data.get("schema_version") if isinstance(data, Mapping) else None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"These findings have schema version {version!r} and this software reads {SCHEMA_VERSION}; "
                "analyse the scan again."
            )
        try:
            return _findings(data)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"The findings are damaged or incomplete ({error}); analyse the scan again.") from error


_WRITING_ORDER = (
    "schema_version",
    "created_by",
    "created",
    "engine",
    "sources",
    "input",
    "lobes",
    "lungs",
    "total",
    "affected_estimate",
    "worst_lung_percent",
    "ct_severity_score",
    "ct_grade",
    "severity",
    "diagnosis",
    "covid_probability",
    "lesions",
    "differential",
    "picture",
    "unlikeness",
    "quality",
    "notice",
)
_OPTIONAL = ("created", "sources", "affected_estimate", "covid_probability", "differential", "picture", "unlikeness")
"""Left out when None: files of before there were such entries have none."""


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _findings(data: Mapping[str, Any]) -> Findings:
    values = dict(data)
    values["created_by"] = CreatedBy(**data["created_by"])
    values["engine"] = EngineIdentity(**data["engine"])
    sources = data.get("sources")
    values["sources"] = sources and {name: EngineIdentity(**one) for name, one in sources.items()}
    places = ("shape_zyx", "notes", *(["spacing_zyx_mm"] if data["input"]["spacing_zyx_mm"] is not None else []))
    values["input"] = _with_tuples(InputSummary, data["input"], *places)
    values["lobes"] = _each(LobeFindings, data["lobes"])
    values["lungs"] = _each(RegionFindings, data["lungs"])
    values["total"] = None if data["total"] is None else RegionFindings(**data["total"])
    estimate = data.get("affected_estimate")
    values["affected_estimate"] = estimate and {key: AffectedEstimate(**one) for key, one in estimate.items()}
    values["lesions"] = None if data["lesions"] is None else _lesions(data["lesions"])
    values["differential"] = _each(_statistic, data.get("differential"))
    values["picture"] = None if data.get("picture") is None else PictureFindings(**data["picture"])
    values["unlikeness"] = None if data.get("unlikeness") is None else Unlikeness(**data["unlikeness"])
    values["quality"] = _each(QualityFlag, data["quality"])
    return Findings(**values)


def _lesions(data: Mapping[str, Any]) -> LesionFindings:
    places = ("centroid_lps_mm", "point_lps_mm", "start_zyx", "stop_zyx")
    components = tuple(_with_tuples(LesionComponent, item, *places) for item in data["components"])
    return LesionFindings(**{**data, "components": components})


def _statistic(**data: Any) -> LesionStatistic:
    reference = {name: ReferenceRange(**one) for name, one in data["reference"].items()}
    return LesionStatistic(**{**data, "reference": reference})


def _each(kind: Callable[..., Any], items: Sequence[Mapping[str, Any]] | None) -> Any:
    return None if items is None else tuple(kind(**item) for item in items)


def _with_tuples(kind: type, data: Mapping[str, Any], *names: str) -> Any:
    return kind(**{**data, **{name: tuple(data[name]) for name in names}})

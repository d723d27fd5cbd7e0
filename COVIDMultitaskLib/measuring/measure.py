"""From label maps to findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from COVIDMultitaskLib.engines.contract import AffectedShare, EngineIdentity, Prediction, Unlikeness
from COVIDMultitaskLib.findings import (
    RESEARCH_USE,
    AffectedEstimate,
    Findings,
    InputSummary,
    LesionFindings,
    LobeFindings,
    PictureFindings,
    QualityFlag,
    RegionFindings,
)
from COVIDMultitaskLib.labels import DIAGNOSES, SEVERITIES
from COVIDMultitaskLib.measuring.boundary import boundary_gradient
from COVIDMultitaskLib.measuring.components import MIN_LESION_ML, Components, Tally
from COVIDMultitaskLib.measuring.differential import compare
from COVIDMultitaskLib.measuring.distribution import Frames, Places, Shares, lung_frames
from COVIDMultitaskLib.measuring.masks import Masks, cut_masks, lesion_voxels, lobes_or_lungs, with_lesions
from COVIDMultitaskLib.measuring.picture import measure_picture, picture_flags
from COVIDMultitaskLib.measuring.quality import cut_ends, mask_flags, scan_flags
from COVIDMultitaskLib.measuring.regions import (
    Counts,
    count_lobes,
    lobe_findings,
    lung_findings,
    total_findings,
)
from COVIDMultitaskLib.measuring.scores import ct_grade
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Volume


@dataclass(frozen=True)
class MaskMeasures:
    """All that label maps and HU tell; see :class:`COVIDMultitaskLib.findings.Findings`."""

    lobes: tuple[LobeFindings, ...] | None
    lungs: tuple[RegionFindings, ...] | None
    total: RegionFindings | None
    worst_lung_percent: float | None
    ct_severity_score: int | None
    ct_grade: int | None
    lesions: LesionFindings | None
    quality: tuple[QualityFlag, ...]


def measure(volume: Volume, prediction: Prediction) -> Findings:
    """Measure an engine's answers on a scan.

    :param volume: the scan (z, y, x), of any orientation, or a picture (1, y, x).
    :param prediction: answers on the scan's own grid; one that is None stays "not assessed".
    :raises ValueError: when a label map has another shape than the scan, or undeclared labels.
    """
    findings = _findings(volume, prediction, *_measured(volume, prediction))
    if prediction.lesion_reference is None or prediction.lesions is None:
        return findings
    return replace(findings, differential=compare(findings, prediction.lesion_reference))


def _measured(volume: Volume, prediction: Prediction) -> tuple[MaskMeasures, PictureFindings | None]:
    """What label maps tell, with all quality flags; of a picture next to nothing, but what pixels tell."""
    if volume.intensity is IntensityKind.PICTURE:
        flags = tuple(picture_flags(prediction.unlikeness, prediction.lungs is not None))
        found = measure_picture(prediction.lesions, prediction.lungs, volume.geometry.shape)
        return MaskMeasures(None, None, None, None, None, None, None, flags), found
    hu = volume.array if volume.intensity is IntensityKind.HOUNSFIELD else None
    measures = measure_masks(prediction.lobes, prediction.lesions, volume.geometry, hu, prediction.lungs)
    quality = (*measures.quality, *scan_flags(volume, prediction.unlikeness))
    return replace(measures, quality=tuple(sorted(quality, key=lambda flag: flag.level != "warning"))), None


def _findings(
    volume: Volume, prediction: Prediction, measures: MaskMeasures, picture: PictureFindings | None
) -> Findings:
    return Findings(
        engine=prediction.identity,
        input=summarise(volume),
        severity=_probabilities(prediction.severity, SEVERITIES),
        diagnosis=_probabilities(prediction.diagnosis, DIAGNOSES),
        covid_probability=None if prediction.covid is None else round(float(prediction.covid), 6),
        unlikeness=_rounded_score(prediction.unlikeness),
        sources=dict(prediction.sources) or None,
        affected_estimate=_estimates(prediction.affected),
        notice=notice(prediction.identity, prediction.sources),
        picture=picture,
        **vars(measures),
    )


def measure_masks(
    lobes: np.ndarray | None,
    lesions: np.ndarray | None,
    geometry: Geometry,
    hu: np.ndarray | None = None,
    lungs: np.ndarray | None = None,
) -> MaskMeasures:
    """Measure label maps, an engine's or corrected ones.

    :param lobes: (z, y, x), values of ``labels.LOBES``, or None when not assessed.
    :param lesions: (z, y, x), values of ``labels.LESIONS``, or None; where lobes are known, only
        lesion voxels inside them count.
    :param geometry: of all arrays.
    :param hu: the scan in HU, or None when its values are not HU.
    :param lungs: (z, y, x), values of ``labels.LUNG_LABELS``, or None; looked at only where lobes were not assessed.
    :raises ValueError: when shapes differ or a map holds undeclared labels.
    """
    return MaskMeter(geometry, hu).measure(lobes, lesions, lungs)


def _without_lobes(measures: MaskMeasures) -> MaskMeasures:
    """What remains where each lung was measured as if it were one lobe."""
    found = measures.lesions
    if found is not None:
        found = replace(found, components=tuple(replace(one, lobe_percent=None) for one in found.components))
    flags = tuple(flag for flag in measures.quality if flag.flag not in _FLAGS_OF_LOBES)
    return replace(measures, lobes=None, ct_severity_score=None, lesions=found, quality=flags)


_FLAGS_OF_LOBES = ("lobe_missing", "lobe_small")


@dataclass(frozen=True)
class _Lungs:
    """What only lobes tell, and lesions do not change."""

    masks: Masks
    voxels_by_lobe: np.ndarray
    frames: Frames
    cut_ends: tuple[str, ...]


class MaskMeter:
    """Measures the label maps of one scan as they are corrected: what only the lobes tell is kept until they change.

    :param geometry: of the scan and its label maps.
    :param hu: the scan in HU, or None when its values are not HU.
    """

    def __init__(self, geometry: Geometry, hu: np.ndarray | None = None) -> None:
        self._geometry = geometry
        self._hu = hu
        self._outline: np.ndarray | None = None
        self._lungs: _Lungs | None = None

    def measure(
        self, lobes: np.ndarray | None, lesions: np.ndarray | None, lungs: np.ndarray | None = None
    ) -> MaskMeasures:
        """The same as :func:`measure_masks`.

        :param lobes: a changed map is another array than before: its content is not looked at again.
        """
        outline = lobes if lobes is not None else lungs
        if self._lungs is None or outline is None or outline is not self._outline:
            known = lobes_or_lungs(lobes, lungs)
            masks = cut_masks(known, None if known is not None else lesions, self._hu, self._geometry)
            self._lungs = _Lungs(masks, count_lobes(masks), self._frames(masks), cut_ends(masks))
            self._outline = outline
        measures = _measure(self._lungs, with_lesions(self._lungs.masks, lesions, self._geometry), outline is not None)
        return measures if outline is lobes else _without_lobes(measures)

    def _frames(self, masks: Masks) -> Frames:
        """A correction seldom reaches both lungs: what is known of one that is as before need not be found again."""
        return lung_frames(masks, None if self._lungs is None else (self._lungs.masks, self._lungs.frames))


def _measure(lungs: _Lungs, masks: Masks, with_lobes: bool) -> MaskMeasures:
    counts = Counts(lungs.voxels_by_lobe, masks.geometry.voxel_ml, masks.hu is not None)
    tally, places = Tally(masks), Places(lungs.frames, masks.geometry.affine)
    for found in lesion_voxels(masks):
        for part in (counts, tally, places):
            part.add(found)
    known = with_lobes, masks.lesions is not None
    by_lobe = lobe_findings(counts, known[1]) if known[0] else None
    by_lung = lung_findings(counts, known[1]) if known[0] else None
    total = total_findings(counts, *known) if any(known) else None
    worst = _worst(by_lung)
    return MaskMeasures(
        by_lobe,
        by_lung,
        total,
        worst,
        _severity_score(by_lobe),
        None if worst is None else ct_grade(worst),
        _lesions(tally.components(), places.shares(), boundary_gradient(masks), by_lung, total) if known[1] else None,
        tuple(mask_flags(lungs.cut_ends, masks.outside_ml, by_lobe, by_lung, total)),
    )


def summarise(volume: Volume) -> InputSummary:
    """What findings keep of a scan: nothing that tells whose it is or where it lay."""
    provenance = volume.provenance
    return InputSummary(
        format=provenance.format,
        shape_zyx=volume.geometry.shape,
        spacing_zyx_mm=None if volume.intensity is IntensityKind.PICTURE else _rounded(volume.geometry.spacing_mm),
        intensity=volume.intensity.value,
        modality=provenance.modality,
        kernel=provenance.kernel,
        slice_thickness_mm=provenance.slice_thickness_mm,
        missing_slices=provenance.missing_slices,
        contrast=provenance.contrast,
        notes=provenance.notes,
    )


def notice(identity: EngineIdentity, sources: Mapping[str, EngineIdentity] = MappingProxyType({})) -> str:
    """The line that stands under every result.

    :param sources: which other weights gave "lungs", "lobes" or "lesions".
    """
    lines = [RESEARCH_USE, f"Trained on: {identity.trained_on.rstrip('.')}."]
    for other in dict.fromkeys(sources.values()):
        given = [name for name, source in sources.items() if source == other]
        lines.append(
            f"{' and '.join(given).capitalize()} by {other.engine}, trained on: {other.trained_on.rstrip('.')}."
        )
    return " ".join(lines)


def _rounded(spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    z, y, x = (round(s, 6) for s in spacing_mm)
    return z, y, x


def _rounded_score(found: Unlikeness | None) -> Unlikeness | None:
    return None if found is None else Unlikeness(round(found.score, 4), found.threshold)


def _probabilities(answer: Mapping[str, float] | None, keys: tuple[str, ...]) -> dict[str, float] | None:
    return None if answer is None else {key: round(float(answer[key]), 6) for key in keys}


def _estimates(shares: Mapping[str, AffectedShare] | None) -> dict[str, AffectedEstimate] | None:
    """In per cent, as the other figures are."""
    if not shares:
        return None
    return {
        key: AffectedEstimate(*(round(100 * part, 4) for part in (share.expected, share.low, share.high)))
        for key, share in shares.items()
    }


def _worst(lungs: tuple[RegionFindings, ...] | None) -> float | None:
    percents = [lung.lesion_percent for lung in lungs or () if lung.lesion_percent is not None]
    return max(percents, default=None)


def _severity_score(lobes: tuple[LobeFindings, ...] | None) -> int | None:
    scores = [lobe.score for lobe in lobes or () if lobe.score is not None]
    return sum(scores) if scores else None


def _lesions(
    components: Components,
    shares: Shares,
    gradient: float | None,
    lungs: tuple[RegionFindings, ...] | None,
    total: RegionFindings | None,
) -> LesionFindings:
    whole = (total.lesion_volume_ml if total else None) or 0.0
    return LesionFindings(
        count=components.count,
        largest_volume_ml=components.largest_ml,
        largest_percent=round(100 * components.largest_ml / whole, 2) if components.count else None,
        bilateral=None if lungs is None else all((lung.lesion_volume_ml or 0) > MIN_LESION_ML for lung in lungs),
        peripheral_percent=shares.peripheral,
        dorsal_percent=shares.dorsal,
        upper_third_percent=shares.thirds[0] if shares.thirds else None,
        middle_third_percent=shares.thirds[1] if shares.thirds else None,
        lower_third_percent=shares.thirds[2] if shares.thirds else None,
        height_percent=shares.height,
        boundary_gradient_hu_per_mm=gradient,
        components=components.listed,
    )

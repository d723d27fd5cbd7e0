"""The way of a scan or picture: read, predict, measure, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.engines.contract import SLICE_PROBABILITIES, Engine, Prediction
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.findings import Findings
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import IntensityKind, Volume
from COVIDMultitaskLib.writing import OutputFolder, write_bytes, write_json, write_picture, write_volume

LOBES_FILE = "lobes.nrrd"
LUNGS_FILE = "lungs.nrrd"
"""Instead of the lobes, from an engine that knows the lungs alone."""
LESIONS_FILE = "lesions.nrrd"
FINDINGS_FILE = "findings.json"
OVERVIEW_FILE = "overview.png"
RESULT_FILES = (LOBES_FILE, LESIONS_FILE, FINDINGS_FILE, OVERVIEW_FILE)
LESIONS_PICTURE = "lesions.png"
"""Instead of the label maps of a scan: the lesions of a picture, 255 where there is one."""
EVIDENCE_MAP = "evidence_{name}.nrrd"
"""A map of ``Prediction.evidence`` in per cent, uint8, on the scan's grid."""
EVIDENCE_FILE = "evidence.json"
"""The figures of parts: by name, a list of ``point_lps_mm`` and ``contribution``, or what else the figure is."""
PART_FIGURES = {SLICE_PROBABILITIES: "probability"}
"""What the figures of parts are, by the evidence's name, where they are no contributions."""


@dataclass(frozen=True)
class Analysis:
    """A scan, what an engine answered, and what was measured."""

    volume: Volume
    prediction: Prediction
    findings: Findings


def read_scan(path: str | Path, engine: Engine, progress: Progress, series: str | None = None) -> Volume:
    """Read a scan and make sure that it shows a chest; or a picture, for an engine that reads pictures.

    :raises InputError, NotChestCTError: see :func:`COVIDMultitaskLib.reading.read_volume`; a picture for an engine that
        needs a scan.
    """
    from COVIDMultitaskLib.reading import check_chest_ct, read_volume
    from COVIDMultitaskLib.reading.picture import is_picture, read_picture

    with progress.stage("read"):
        if is_picture(path):
            _refuse_picture(engine, Path(path).name)
            return read_picture(path)
        volume = read_volume(path, progress, series)
        check_chest_ct(volume)
    return volume


def _refuse_picture(engine: Engine, name: str) -> None:
    """:raises InputError: when the engine, as it was chosen, reads no pictures."""
    if engine.takes == "picture":
        return
    from COVIDMultitaskLib.engines.registry import ENGINES

    readers = [other.name for other in ENGINES.values() if other.takes == "picture"]
    if engine.name in readers:  # filled by one that reads none
        raise InputError(f"{name} is a picture, in which no other engine finds lobes; choose {engine.name} by itself.")
    raise InputError(
        f"{name} is a picture, and the engine {engine.name} needs a whole chest CT; "
        f"choose the engine {' or '.join(readers)}, or give DICOM or NIfTI."
    )


def analyze(volume: Volume, engine: Engine, progress: Progress) -> Analysis:
    """Answer and measure for one scan in Hounsfield units, or for a picture.

    :raises InputError: when it is a picture, and the engine needs a scan.
    """
    from COVIDMultitaskLib.measuring import measure

    if volume.intensity is IntensityKind.PICTURE:
        _refuse_picture(engine, "The input")
    prediction = engine.predict(volume, progress)
    with progress.stage("measure"):
        findings = measure(volume, prediction)
    return Analysis(volume, prediction, findings)


def write_analysis(analysis: Analysis, folder: OutputFolder, progress: Progress, overview: bool = True) -> None:
    """Write label maps, findings, evidence and, if wanted, the overview into an entered output folder."""
    prediction = analysis.prediction
    with progress.stage("write"):
        write_json(analysis.findings.to_dict(), folder / FINDINGS_FILE)
        if analysis.findings.picture is not None:
            _write_picture_of_lesions(prediction, folder)
        else:
            _write_label_maps(analysis.volume, prediction, folder, progress)
        _write_evidence(analysis.volume, prediction.evidence, folder)
        if overview:
            _write_overview(analysis, folder)


def _write_label_maps(volume: Volume, prediction: Prediction, folder: OutputFolder, progress: Progress) -> None:
    lungs = prediction.lungs if prediction.lobes is None else None
    maps = ((prediction.lobes, LOBES_FILE, 0.2), (lungs, LUNGS_FILE, 0.2), (prediction.lesions, LESIONS_FILE, 0.4))
    for labels, name, done in maps:
        if labels is not None:
            write_volume(volume.with_array(labels), folder / name)
        progress.advance(done)


def _write_picture_of_lesions(prediction: Prediction, folder: OutputFolder) -> None:
    if prediction.lesions is not None:
        write_picture(np.where(prediction.lesions[0] > 0, 255, 0).astype(np.uint8), folder / LESIONS_PICTURE)


def _write_overview(analysis: Analysis, folder: OutputFolder) -> None:
    from COVIDMultitaskLib.reporting import draw_overview, draw_picture_overview

    draw = draw_overview if analysis.findings.picture is None else draw_picture_overview
    write_bytes(draw(analysis.volume, analysis.prediction, analysis.findings), folder / OVERVIEW_FILE)


def _write_evidence(volume: Volume, evidence: Mapping[str, np.ndarray], folder: OutputFolder) -> None:
    """Maps as volumes, figures of parts in one file; nothing where there is none."""
    parts = {}
    for name, values in evidence.items():
        if values.ndim == 3:
            write_volume(volume.with_array(_per_cent(values)), folder / EVIDENCE_MAP.format(name=name))
        else:
            figure = PART_FIGURES.get(name, "contribution")
            parts[name] = [{"point_lps_mm": row[:3].tolist(), figure: float(row[3])} for row in values]
    if parts:
        write_json(parts, folder / EVIDENCE_FILE)


def _per_cent(values: np.ndarray) -> np.ndarray:
    return np.rint(100.0 * np.clip(np.nan_to_num(values), 0.0, 1.0)).astype(np.uint8)


def analyze_to_folder(
    read: Callable[[Progress], Volume],
    engine: Engine,
    output: Path,
    overwrite: bool,
    progress: Progress,
    overview: bool = True,
) -> Analysis:
    """The whole way, from reading to files that appear together at the end or not at all.

    :param read: gives the scan; runs after the output folder is known to be writable.
    :param overview: whether to draw the overview, which needs matplotlib (Slicer has none).
    :raises OutputError: when results are there already or cannot be written.
    """
    results = (*RESULT_FILES, LUNGS_FILE, LESIONS_PICTURE, EVIDENCE_FILE, EVIDENCE_MAP.format(name="*"))
    with OutputFolder(output, results, overwrite) as folder:
        analysis = analyze(read(progress), engine, progress)
        write_analysis(analysis, folder, progress, overview)
        progress.check()
    return analysis

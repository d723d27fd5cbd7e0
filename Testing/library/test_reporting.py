"""Pictures and tables: upright for every storage, complete when answers are missing."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from COVIDMultitaskLib.engines.contract import Unlikeness
from COVIDMultitaskLib.findings import QualityFlag
from COVIDMultitaskLib.labels import LESIONS, LOBES
from COVIDMultitaskLib.measuring import measure
from COVIDMultitaskLib.measuring.masks import cut_masks
from COVIDMultitaskLib.reporting import draw_overview, print_findings
from COVIDMultitaskLib.reporting.canvas import Canvas
from COVIDMultitaskLib.reporting.panel import percent
from COVIDMultitaskLib.reporting.planes import VIEWS, Box, lesion_positions, make_plane, sample_grey, sample_label
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Volume
from Testing.library.lung_scenes import STORAGES, Ball, answer, draw, grid, positions, stored, stored_geometry

AXIAL = grid((5.0, 3.0, 3.0))
SCENE = draw(AXIAL)
BOX = Box(np.array([-140.0, -90.0, -125.0]), np.array([140.0, 110.0, 120.0]))


def drawn(volume: Volume, prediction) -> np.ndarray:
    """The overview as (rows, columns, 3) in 0..255."""
    from PIL import Image

    png = draw_overview(volume, prediction, measure(volume, prediction))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def tinted(picture: np.ndarray) -> int:
    """How many of the pictures' pixels (left of the findings) are coloured."""
    scans = picture[60:1200, 60:1230]
    return int((np.ptp(scans, axis=2) > 30).sum())


def printed(findings, truth=None) -> str:
    console = Console(width=140, file=io.StringIO(), force_terminal=False)
    print_findings(findings, console, truth)
    return console.file.getvalue()


# -- planes


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize("storage", STORAGES[::7], ids=str)
def test_a_plane_is_the_same_for_every_storage(view, storage) -> None:
    volume = SCENE[0]
    other = Volume(stored(volume.array, storage), stored_geometry(AXIAL, storage))
    position = (-75.0, 20.0, -30.0)[view.normal]
    expected = sample_grey(volume, make_plane(AXIAL, view, position, BOX))
    found = sample_grey(other, make_plane(other.geometry, view, position, BOX))
    assert np.abs(expected - found).max() < 1e-3


@pytest.mark.parametrize("degrees", [(0, 0, 0), (25, -20, 40)], ids=str)
@pytest.mark.parametrize(
    ("view", "marker", "quadrant"),
    [
        (VIEWS[0], (-80, -40, 0), ("top", "left")),  # the patient's right front
        (VIEWS[0], (80, 70, 0), ("bottom", "right")),
        (VIEWS[1], (-80, 0, 80), ("top", "left")),  # right, towards the head
        (VIEWS[1], (80, 0, -80), ("bottom", "right")),
        (VIEWS[2], (0, -50, 80), ("top", "left")),  # front, towards the head
        (VIEWS[2], (0, 70, -80), ("bottom", "right")),
    ],
)
def test_pictures_are_in_radiological_orientation(degrees, view, marker, quadrant) -> None:
    geometry = grid((4.0, 4.0, 4.0), degrees, size_mm=(360, 360, 360))
    away = sum((p - m) ** 2 for p, m in zip(positions(geometry), marker, strict=True))
    volume = Volume(np.where(away < 15**2, 200, -1000).astype(np.int16), geometry)
    grey = sample_grey(volume, make_plane(geometry, view, float(marker[view.normal]), BOX))
    row, column = (index.mean() for index in np.nonzero(grey > 0.5))
    assert (
        "top" if row < grey.shape[0] / 2 else "bottom",
        "left" if column < grey.shape[1] / 2 else "right",
    ) == quadrant


@pytest.mark.parametrize("spacing", [(8.0, 1.5, 3.0), (2.0, 2.0, 2.0), (3.0, 10.0, 1.0)], ids=str)
def test_a_ball_is_round_whatever_the_spacing(spacing) -> None:
    geometry = grid(spacing)
    away = sum(p**2 for p in positions(geometry))
    labels = (away < 60**2).astype(np.uint8)
    for view in VIEWS:
        share = sample_label(labels, 1, make_plane(geometry, view, 0.0, BOX))
        rows, columns = (np.ptp(index) for index in np.nonzero(share > 0.5))
        assert rows / columns == pytest.approx(1, abs=0.12)


def test_the_lung_window_is_1500_wide_around_minus_500() -> None:
    geometry = Geometry((4, 4, 4), (50, 50, 50), (-75, -75, -75))
    for hu, grey in ((-1250, 0), (-500, 0.5), (250, 1), (2000, 1), (-3024, 0)):
        volume = Volume(np.full((4, 4, 4), hu, np.int16), geometry)
        assert sample_grey(volume, make_plane(geometry, VIEWS[0], 0.0, BOX))[100, 100] == pytest.approx(grey)


@pytest.mark.parametrize("intensity", [IntensityKind.WINDOW_8BIT, IntensityKind.UNIT_SCALE, IntensityKind.PICTURE])
def test_scans_that_are_not_hu_are_shown_with_their_contrast(intensity) -> None:
    scale = 1.0 if intensity is IntensityKind.UNIT_SCALE else 255.0
    grey = np.clip((SCENE[0].array.astype(np.float32) + 1250) / 1500, 0, 1) * scale
    volume = replace(SCENE[0].with_array(grey), intensity=intensity)
    picture = sample_grey(volume, make_plane(AXIAL, VIEWS[0], -5.0, BOX))
    assert np.ptp(picture) > 0.5


def test_planes_go_where_most_lesion_is() -> None:
    center = (-85.0, 45.0, -35.0)
    volume, lobes, lesions = draw(AXIAL, [Ball(center, 20), Ball((70.0, -20.0, 60.0), 6)])
    found = lesion_positions(cut_masks(lobes, lesions, None, volume.geometry))
    assert found == pytest.approx(center, abs=4)


def test_a_plane_between_slices_is_interpolated() -> None:
    labels = np.zeros((2, 3, 3), np.uint8)
    labels[1] = 1
    geometry = Geometry(labels.shape, (10, 100, 100), (-100, -100, 0))
    plane = make_plane(geometry, VIEWS[0], 7.5, Box(np.full(3, -50.0), np.full(3, 50.0)))
    assert sample_label(labels, 1, plane)[50, 50] == pytest.approx(0.75)


# -- overview


def test_lobes_and_lesions_are_seen_where_there_are_some() -> None:
    volume, lobes, lesions = SCENE
    with_all = tinted(drawn(volume, answer(lobes, lesions)))
    healthy = tinted(drawn(volume, answer(lobes, np.zeros_like(lesions))))
    plain = tinted(drawn(volume, answer(None, None)))
    assert plain == 0
    assert with_all > healthy * 1.2 > 10_000


def test_the_patients_right_lobes_are_at_the_pictures_left() -> None:
    volume, lobes, _ = SCENE
    right_only = np.where(lobes >= 3, lobes, 0).astype(np.uint8)
    both = drawn(volume, answer(lobes, None))
    blue = np.array(LOBES[0].color)
    overlay_row = both[440:800, 60:500]
    close = np.abs(overlay_row - blue).sum(axis=2) < 30
    assert close.any() and np.nonzero(close)[1].mean() > 220
    assert tinted(drawn(volume, answer(right_only, None))) > 0


@pytest.mark.parametrize(
    "storage", [STORAGES[3], STORAGES[22], STORAGES[47]], ids=["flipped", "permuted", "permuted and flipped"]
)
def test_the_overview_is_the_same_for_every_storage(storage) -> None:
    volume, lobes, lesions = SCENE
    other = Volume(stored(volume.array, storage), stored_geometry(AXIAL, storage), provenance=volume.provenance)
    expected = drawn(volume, answer(lobes, lesions))[60:1200, 60:1230]
    found = drawn(other, answer(stored(lobes, storage), stored(lesions, storage)))[60:1200, 60:1230]
    assert (np.abs(expected - found).max(axis=2) > 25).mean() < 0.002


@pytest.mark.parametrize("lobes", [True, False])
@pytest.mark.parametrize("lesions", [True, False])
@pytest.mark.parametrize("probabilities", [True, False])
def test_missing_answers_are_drawn_as_missing(lobes: bool, lesions: bool, probabilities: bool) -> None:
    volume, lobe_map, lesion_map = SCENE
    none = {} if probabilities else {"severity": None, "diagnosis": None}
    picture = drawn(volume, answer(lobe_map if lobes else None, lesion_map if lesions else None, **none))
    assert picture.shape == (1240, 1860, 3)


def test_an_empty_segmentation_is_drawn() -> None:
    volume, lobes, lesions = SCENE
    assert drawn(volume, answer(lobes * 0, lesions * 0)).shape == (1240, 1860, 3)


def test_an_oblique_sheared_scan_is_drawn() -> None:
    volume, lobes, lesions = draw(grid((6.0, 3.0, 3.0), (20, 10, -35), size_mm=(380, 380, 380), shear=0.3))
    assert tinted(drawn(volume, answer(lobes, lesions))) > 10_000


def test_the_same_result_gives_the_same_file() -> None:
    volume, lobes, lesions = SCENE
    prediction = answer(lobes, lesions)
    findings = measure(volume, prediction)
    assert draw_overview(volume, prediction, findings) == draw_overview(volume, prediction, findings)


def test_many_remarks_and_odd_words_do_not_break_the_picture() -> None:
    volume, lobes, lesions = SCENE
    prediction = answer(lobes, lesions)
    remark = QualityFlag("field_of_view_cut", "warning", "$x_2$ [bold] ü ≥ " + "very " * 40 + "long.")
    findings = replace(measure(volume, prediction), quality=(remark,) * 30)
    assert draw_overview(volume, prediction, findings).startswith(b"\x89PNG")


def test_a_real_scan_is_drawn(shared_data: Path) -> None:
    import SimpleITK as sitk

    folder = shared_data / "ct"
    volume = Volume.from_sitk(sitk.ReadImage(folder / "imlab_id001.nii.gz"))
    lung = sitk.GetArrayFromImage(sitk.ReadImage(folder / "imlab_id001_lung.nii.gz")) > 0
    x = positions(volume.geometry)[0]
    lobes = np.where(lung, np.where(x > np.median(x[lung]), 1, 3), 0).astype(np.uint8)
    lesions = (lung & (volume.array > -600)).astype(np.uint8)
    assert tinted(drawn(volume, answer(lobes, lesions))) > 10_000


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0.0 %"), (1e-7, "< 0.1 %"), (0.1, "0.1 %"), (9.94, "9.9 %"), (43.6, "44 %")],
)
def test_percentages_are_never_rounded_to_nothing(value, shown) -> None:
    assert percent(value) == shown


def test_what_two_engines_were_trained_on_is_shown_whole(monkeypatch) -> None:
    volume, lobes, lesions = SCENE
    prediction = answer(lobes, lesions)
    source = "420 simulated scans (real lobe shapes and one thorax); 50 real records of a set; 2107 of another" * 2
    one, other = (replace(prediction.identity, trained_on=f"{name}: {source}") for name in ("A", "B"))
    findings = measure(volume, replace(prediction, identity=one, sources={"lobes": other}))
    shown = drawn_words(monkeypatch, volume, prediction, findings)
    assert findings.notice.count(source) == 2 and findings.notice in " ".join(shown)


# -- table


def test_the_table_names_every_region_and_answer() -> None:
    volume, lobes, lesions = SCENE
    findings = measure(volume, answer(lobes, lesions))
    words = printed(findings)
    for region in (*(findings.lobes or ()), *(findings.lungs or ())):
        assert region.name in words
        assert f"{region.volume_ml:.0f}" in words
    for expected in (
        "Both lungs",
        f"{findings.ct_severity_score} of 25",
        f"CT-{findings.ct_grade}",
        "75 %",
        "COVID-19 70 %",
    ):
        assert expected in words
    assert findings.notice in words


def test_truth_stands_beside_what_was_found() -> None:
    volume, lobes, lesions = SCENE
    truth = measure(volume, answer(lobes, lesions, severity=None))
    missed = measure(volume, answer(lobes, np.zeros_like(lesions)))
    row = next(line for line in printed(missed, truth).splitlines() if "Right lower lobe" in line)
    assert f" 0.0 ({truth.lobes[4].lesion_volume_ml:.1f})" in row
    assert "(true)" in printed(missed, truth) and "(true)" not in printed(missed)


def rows(words: str) -> dict[str, str]:
    """What the table of the whole scan says, by name."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in words.split("Whole scan")[1].splitlines()]
    return {cell[0]: cell[1] for cell in cells if len(cell) == 2}


def test_missing_answers_are_said_to_be_missing() -> None:
    volume = SCENE[0]
    words = printed(measure(volume, answer(None, None, severity=None, diagnosis=None)))
    assert rows(words) == {"Finding": "Value"} | dict.fromkeys(
        ("Severe", "Diagnosis", "Lobes", "Lesions, extent, CT scores"), "not assessed by this engine"
    )
    assert "Lobes and lungs" not in words, "there is nothing to put into that table"


def test_missing_lesions_are_one_line_and_no_columns_of_dashes() -> None:
    volume, lobes, _ = SCENE
    words = printed(measure(volume, answer(lobes, None)))
    assert rows(words)["Lesions, extent, CT scores"] == "not assessed by this engine"
    assert "–" not in words and "Peripheral" not in words and "Lesion\n" not in words
    assert "Lobes" not in rows(words) and "Right lower lobe" in words


def test_missing_lobes_are_said_to_be_missing() -> None:
    volume, lobes, lesions = SCENE
    lungs = np.array([0, 1, 1, 2, 2, 2], np.uint8)[lobes]
    found = rows(printed(measure(volume, answer(None, lesions, lungs=lungs))))
    assert found["Lobes"] == found["CT severity score"] == "not assessed by this engine"
    assert found["Worst lung"].endswith(" %") and found["Peripheral"].endswith(" %")
    nowhere = rows(printed(measure(volume, answer(None, lesions))))
    assert nowhere["Worst lung"] == nowhere["Place in the lungs"] == "not assessed by this engine"


def test_without_lesions_there_is_no_place_to_tell_and_nothing_missing() -> None:
    volume, lobes, lesions = SCENE
    found = rows(printed(measure(volume, answer(lobes, lesions * 0))))
    assert found["Peripheral"] == "–" and found["Lesions"] == "0 above 50 mm³" and found["Worst lung"] == "0.0 %"


def test_truth_stands_beside_what_an_engine_does_not_assess() -> None:
    volume, lobes, lesions = SCENE
    truth = measure(volume, answer(lobes, lesions))
    words = printed(measure(volume, answer(lobes, None)), truth)
    assert "Lesions, extent, CT scores" in words and "COVID-19 70 %" in words
    assert f"– ({truth.lobes[4].lesion_volume_ml:.1f})" in words
    lungs = np.array([0, 1, 1, 2, 2, 2], np.uint8)[lobes]
    assert "– (–)" not in printed(measure(volume, answer(None, lesions, lungs=lungs)), truth), "scores are of lobes"


def test_covid_19_alone_is_told_in_the_same_words_everywhere(monkeypatch) -> None:
    volume, lobes, lesions = SCENE
    prediction = answer(lobes, lesions, diagnosis=None, covid=0.83)
    findings = measure(volume, prediction)
    shown = drawn_words(monkeypatch, volume, prediction, findings)
    alone = "This engine does not tell other diagnoses apart."
    assert rows(printed(findings))["Diagnosis"] == f"COVID-19 83 %. {alone}"
    assert {"COVID-19", "83 %", alone} <= set(shown)


@pytest.mark.parametrize(("score", "times"), [(0.44, 1), (-0.2, 1), (2.6, 0)])
def test_how_unlike_the_training_data_is_one_quiet_line_unless_it_is_a_warning(monkeypatch, score, times) -> None:
    volume, lobes, lesions = SCENE
    prediction = answer(lobes, lesions, unlikeness=Unlikeness(score, 2.0))
    findings = measure(volume, prediction)
    line = f"How unlike the training data: {score:.1f} (a warning comes above 2.0)."
    assert printed(findings).count(f"- {line}") == times
    assert drawn_words(monkeypatch, volume, prediction, findings).count(line) == times


def drawn_words(monkeypatch, volume: Volume, prediction, findings) -> list[str]:
    """The lines of text in the overview."""
    shown: list[str] = []
    draw = Canvas.text
    monkeypatch.setattr(Canvas, "text", lambda self, x, y, words, *more, **options: (
        shown.append(words), draw(self, x, y, words, *more, **options))[1])  # fmt: skip
    draw_overview(volume, prediction, findings)
    return shown


def test_words_from_outside_are_not_taken_for_markup() -> None:
    volume, lobes, lesions = SCENE
    findings = replace(measure(volume, answer(lobes, lesions)), quality=(QualityFlag("x", "warning", "[red]a[/red]."),))
    assert "[red]a[/red]." in printed(findings)


def test_the_legends_colours_are_the_label_tables() -> None:
    volume, lobes, lesions = SCENE
    panel = drawn(volume, answer(lobes, lesions))[:, 1264:]
    for label in (*LOBES, *LESIONS):
        assert (np.abs(panel - np.array(label.color)).max(axis=2) < 4).sum() > 60, label.name

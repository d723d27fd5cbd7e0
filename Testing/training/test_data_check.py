"""``python -m training.data check``: what it finds, what it calls inconsistent, what it draws."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from Testing.training.data_layouts import a_lesion, chest_hu, five_lobes, lung_sides, save
from training.data.__main__ import main
from training.data.checking.contact_sheet import CAPTION, TILE, contact_sheet, evenly
from training.data.checking.problems import problems_between, problems_within
from training.data.record import Record
from training.data.registry import adapter
from training.data.splits import read_split

HEADER = "image,id,patient,lobes,lungs,lung_convention,lesions,covid,ct_grade,intensity,split\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with good scans and masks; the test writes the manifest."""
    hu = chest_hu()
    for n, name in enumerate("abc"):
        hu[0, 0, 0] = 40 + n  # no two files the same
        save(tmp_path / f"{name}.nii.gz", hu)
    save(tmp_path / "lobes.nii.gz", five_lobes())
    save(tmp_path / "lungs.nii.gz", lung_sides())
    save(tmp_path / "lesions.nii.gz", a_lesion())
    return tmp_path


def records(data: Path, *rows: str) -> list[Record]:
    """The records of a manifest with these rows."""
    (data / "manifest.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return list(adapter("manifest").collect(data).records)


def sentences(found: list[Record], deep: bool = True) -> str:
    """All problems as one text."""
    return "\n".join(
        f"{one.where}: {one.sentence}" for one in [*problems_between(found), *problems_within(found, deep)]
    )


GOOD = "a.nii.gz,a,A,lobes.nii.gz,lungs.nii.gz,left_right,lesions.nii.gz,yes,1,,train"


def test_good_data_have_no_problems(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentences(records(data, GOOD, "b.nii.gz,b,B,,,,none,no,0,,test")) == ""
    assert main(["check", str(data), "--deep"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "2 records" in shown and "2 patients" in shown and "1 lobe maps" in shown and "Inconsistent: nothing" in shown
    )


def test_a_mask_that_does_not_fit_is_found_from_headers(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(data / "lesions.nii.gz", a_lesion(shape=(9, 16, 20)))
    save(data / "lungs.nii.gz", lung_sides(), origin_mm=40.0)
    found = records(data, "a.nii.gz,a,A,,,,lesions.nii.gz,,,,", "b.nii.gz,b,B,,lungs.nii.gz,,,,,,")
    told = sentences(found, deep=False)
    assert "manifest/a: lesions.nii.gz has 20 x 16 x 9 voxels" in told
    assert "manifest/b: lungs.nii.gz lies up to 40.0 mm from b.nii.gz" in told
    assert main(["check", str(data)]) == 2
    assert "Inconsistent (2)" in capsys.readouterr().out


def test_patients_in_two_parts_and_copies_are_found(data: Path) -> None:
    shutil.copy(data / "a.nii.gz", data / "copy.nii.gz")
    told = sentences(records(data, GOOD, "b.nii.gz,b,A,,,,,,,,test", "copy.nii.gz,copy,C,,,,,,,,"), deep=False)
    assert "manifest/A: This patient's records are prescribed to test and train." in told
    assert "manifest/a: The image is the same file as that of manifest/copy." in told
    assert told.count("\n") == 1


def test_wrong_values_and_mirrored_labels_are_found_in_the_voxels(data: Path) -> None:
    lobes = five_lobes()
    lobes[lobes == 4] = 5
    save(data / "lobes.nii.gz", lobes[..., ::-1])
    save(data / "lungs.nii.gz", np.where(a_lesion(), 9, lung_sides()).astype(np.uint8))
    found = records(data, "a.nii.gz,a,A,lobes.nii.gz,,,,,,,", "b.nii.gz,b,B,,lungs.nii.gz,left_right,,,,,")
    told = sentences(found)
    assert "The lobe map has no right middle lobe." in told
    assert "In the lobe map the left lung lies on the patient's right" in told
    assert "lungs.nii.gz holds the label 9; expected 0, 1, 2" in told
    assert sentences(found, deep=False) == ""


def test_labels_that_contradict_each_other_are_found(data: Path) -> None:
    outside = np.zeros_like(a_lesion())
    outside[5, 0:2, 0:2] = 1
    save(data / "outside.nii.gz", outside)
    save(data / "empty.nii.gz", np.zeros_like(outside))
    found = records(
        data,
        "a.nii.gz,a,A,,lungs.nii.gz,,outside.nii.gz,,,,",
        "b.nii.gz,b,B,,,,empty.nii.gz,yes,,,",
        "c.nii.gz,c,C,,,,lesions.nii.gz,,0,,",
    )
    told = sentences(found)
    assert "manifest/a: 100% of the lesion mask lies outside the lungs." in told
    assert "manifest/b: The lesion mask is empty although the diagnosis is COVID-19." in told
    assert "manifest/c: The lesion mask is not empty although the grade is CT-0." in told


def test_intensities_that_are_not_what_is_said_are_found(data: Path) -> None:
    windowed = np.clip((chest_hu() + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    chance = np.random.default_rng(0).integers(-25, 26, windowed.shape)
    save(data / "w.nii.gz", np.clip(windowed + chance, 0, 255).astype(np.int16))
    told = sentences(records(data, "w.nii.gz,w,W,,,,,,,hounsfield,"))
    assert "manifest/w: The values look like window_8bit, not hounsfield." in told


def test_a_damaged_file_is_one_problem_among_others(data: Path) -> None:
    found = records(data, GOOD, "b.nii.gz,b,B,,,,,,,,")
    (data / "b.nii.gz").write_bytes((data / "b.nii.gz").read_bytes()[:-40])
    assert sentences(found).startswith("manifest/b: b.nii.gz")


def test_a_wrong_layout_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path), "--dataset", "stoic2021"]) == 2
    assert "STOIC2021: expected metadata in" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "gone")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_pictures_show_front_up_and_labels_in_colour(data: Path) -> None:
    assert main(["check", str(data), "--pictures", str(data / "pages")]) == 2  # no manifest yet: no layout
    records(data, GOOD, "b.nii.gz,b,B,,,,,,,,")
    assert main(["check", str(data), "--pictures", str(data / "pages")]) == 0
    with Image.open(data / "pages/manifest.png") as page:
        pixels = np.asarray(page).astype(int)
    assert pixels.shape == (TILE + CAPTION, 2 * TILE, 3)
    spread = np.ptp(pixels[:TILE], axis=2)
    assert spread[:, :TILE].max() > 50 and spread[:, TILE:].max() < 10


def test_a_mirrored_header_shows_in_the_picture(data: Path) -> None:
    """The patient's right is at the picture's left, whichever way the array runs."""
    from COVIDMultitaskLib.volume import Geometry, Volume
    from COVIDMultitaskLib.writing import write_volume
    from training.data.checking.contact_sheet import axial_view
    from training.data.loading import load

    (plain,) = records(data, "a.nii.gz,a,A,,lungs.nii.gz,left_right,,,,,")
    straight = axial_view(load(plain)).astype(int)
    z, y, x = chest_hu().shape
    turned = Geometry((z, y, x), (5, 5, 5), (5.0 * (x - 1), 0, 0), np.eye(3)[:, ::-1] * [1, 1, -1])
    write_volume(Volume(np.ascontiguousarray(chest_hu()[..., ::-1]), turned), data / "a.nii.gz")
    write_volume(Volume(np.ascontiguousarray(lung_sides()[..., ::-1]), turned), data / "lungs.nii.gz")
    (flipped,) = records(data, "a.nii.gz,a,A,,lungs.nii.gz,left_right,,,,,")
    assert np.abs(axial_view(load(flipped)).astype(int) - straight).mean() < 3
    right, left = straight[:, : TILE // 2], straight[:, TILE // 2 :]
    assert np.abs(right.mean((0, 1)) - left.mean((0, 1))).max() > 2  # the lungs have different colours


def test_the_slice_with_most_lesion_is_shown(data: Path) -> None:
    from training.data.checking.contact_sheet import axial_view
    from training.data.loading import load

    low = np.zeros_like(a_lesion())
    low[1, 6:10, 3:8] = 1
    save(data / "lesions.nii.gz", low)
    (record,) = records(data, "a.nii.gz,a,A,,,,lesions.nii.gz,,,,")
    view = axial_view(load(record)).astype(int)
    red, green, blue = view[np.ptp(view, axis=2) > 60].mean(0)
    assert red > green > blue  # orange, over the patient's right lung, on the left of the picture
    assert np.argwhere(np.ptp(view, axis=2) > 60)[:, 1].mean() < TILE / 2


def test_a_page_is_drawn_although_a_scan_is_damaged(data: Path) -> None:
    found = records(data, GOOD, "b.nii.gz,b,B,,,,,,,,")
    (data / "b.nii.gz").write_bytes(b"broken")
    contact_sheet(found, data / "page.png")
    assert (data / "page.png").stat().st_size > 1000
    assert [len(evenly(range(n), 24)) for n in (0, 5, 24, 1000)] == [0, 5, 24, 24]  # type: ignore[arg-type]


def test_a_split_is_written(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = records(data, *(f"{name}.nii.gz,{name},{name},,,,,,,," for name in "abc"))
    assert main(["split", str(data), "-o", str(data / "split.json"), "--folds", "3"]) == 0
    split = read_split(data / "split.json")
    split.check(found)
    assert split.digest in "".join(capsys.readouterr().out.split())
    assert main(["split", str(data), "-o", str(data / "split.json"), "--folds", "4"]) == 2
    assert "cannot fill the parts" in capsys.readouterr().err


def test_the_real_masks_and_maps(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("lesion_masks_mosmed", "lobe_maps_luna16"):
        assert main(["check", str(shared_data / folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "50 lesion masks" in shown and "10 of 10 lobe maps have no CT" in shown
    some = adapter("luna16_lobes").collect(shared_data / "lobe_maps_luna16").records[:1]
    assert problems_within(some, deep=True) == []

"""Records say what is known and no more; files that do not fit end with a sentence that names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.volume import IntensityKind
from Testing.training.data_layouts import SHAPE, a_lesion, chest_hu, five_lobes, grey_slice, save, save_picture
from training.data.conventions import LOBE_CODES, lobe_codes
from training.data.loading import load
from training.data.record import (
    KNOWN_EMPTY,
    LESION_OF_ANY_KIND,
    Codes,
    ImageFile,
    LesionKind,
    Reader,
    Record,
    one_mask,
)
from training.data.slices import read_expert_slices
from training.data.tables import read_table


def record(folder: Path, mask: np.ndarray | None = None, **mask_header: object) -> Record:
    """A record of a chest and, if given, a lesion mask of two classes."""
    image = save(folder / "ct.nii.gz", chest_hu())
    lesions = None
    if mask is not None:
        lesions = one_mask(save(folder / "mask.nii.gz", mask, **mask_header), Codes({1: 1, 2: 2}))  # type: ignore[arg-type]
    kind = LesionKind.CLASSES if lesions else None
    return Record("s/a", "s", "CC0-1.0", image=ImageFile((image,)), lesions=lesions, lesion_kind=kind)


def test_what_is_not_given_is_none(tmp_path: Path) -> None:
    sample = load(record(tmp_path))
    assert sample.lobes is None and sample.lungs is None and sample.lesions is None
    assert sample.record.severity is None and sample.record.ct_grade is None and sample.record.covid is None


def test_known_to_be_empty_is_not_missing(tmp_path: Path) -> None:
    sample = load(replace(record(tmp_path), lesions=KNOWN_EMPTY, lesion_kind=LesionKind.BINARY))
    assert sample.lesions is not None and not sample.lesions.any()


def test_a_diagnosis_and_covid_agree() -> None:
    assert Record("s/a", "s", "x", covid=True).diagnosis == "covid_19"
    assert Record("s/a", "s", "x", diagnosis="other_pneumonia").covid is False
    assert Record("s/a", "s", "x", covid=False).possible_diagnoses == (True, True, False)
    assert Record("s/a", "s", "x").possible_diagnoses == (True, True, True)
    with pytest.raises(InputError, match="s/a has the diagnosis no_pneumonia but covid is True"):
        Record("s/a", "s", "x", diagnosis="no_pneumonia", covid=True)


@pytest.mark.parametrize(
    ("field", "value"), [("severity", "bad"), ("diagnosis", "flu"), ("ct_grade", 5), ("split", "training")]
)
def test_unknown_labels_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"s/a has the .*{value}; expected one of"):
        Record("s/a", "s", "x", **{field: value})  # type: ignore[arg-type]


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask.nii.gz has 20 x 16 x 10 voxels but ct.nii.gz has 20 x 16 x 12"):
        load(record(tmp_path, a_lesion(shape=(10, *SHAPE[1:]))))


def test_a_mask_in_another_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask.nii.gz lies up to 30.0 mm from ct.nii.gz"):
        load(record(tmp_path, a_lesion(), origin_mm=30.0))


def test_a_rounded_header_is_no_other_place(tmp_path: Path) -> None:
    assert load(record(tmp_path, a_lesion(), origin_mm=0.4)).lesions.any()


def test_a_label_outside_its_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask.nii.gz holds the label 7; expected 0, 1, 2"):
        load(record(tmp_path, a_lesion(7)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    one = record(tmp_path, a_lesion())
    (tmp_path / "mask.nii.gz").unlink()
    with pytest.raises(InputError, match=r"mask.nii.gz is missing"):
        load(one)


@pytest.mark.parametrize(
    ("kind", "stored", "hu"),
    [
        (IntensityKind.HOUNSFIELD, [-3024, -1000, 40], [-1024, -1000, 40]),
        (IntensityKind.WINDOW_8BIT, [0, 127.5, 255], [-1024, -500, 250]),
        (IntensityKind.UNIT_SCALE, [0.0, 0.4, 1.0], [-1024, -800, 100]),
    ],
)
def test_every_scale_becomes_hounsfield(kind: IntensityKind, stored: list, hu: list, tmp_path: Path) -> None:
    array = np.resize(np.array(stored, np.float32), SHAPE)
    image = save(tmp_path / "ct.nii.gz", array)
    sample = load(Record("s/a", "s", "x", image=ImageFile((image,)), intensity=kind))
    np.testing.assert_allclose(sample.image.array, np.resize(np.array(hu), SHAPE), atol=1)


def test_a_scale_that_is_not_what_the_source_says_is_refused(tmp_path: Path) -> None:
    one = replace(record(tmp_path), intensity=IntensityKind.WINDOW_8BIT)
    with pytest.raises(InputError, match=r"ct.nii.gz: The values run from -850 to 40"):
        load(one)


def test_pictures_of_different_size_are_no_scan(tmp_path: Path) -> None:
    paths = tuple(save_picture(tmp_path / f"{n}.png", grey_slice(n, (40 + n, 60))) for n in range(2))
    with pytest.raises(InputError, match=r"1.png of .* has 60 x 41 pixels but 0.png has 60 x 40"):
        load(Record("s/a", "s", "x", image=ImageFile(paths, Reader.PICTURES), intensity=IntensityKind.PICTURE))


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"0.jpg is no picture or is damaged"):
        load(Record("s/a", "s", "x", image=ImageFile((tmp_path / "0.jpg",), Reader.PICTURES)))


def test_a_stack_of_whole_pictures_shows_lung_as_lung(tmp_path: Path) -> None:
    """Black around the body is no lung: the window is judged in the middle."""
    hu = np.full((10, 60, 80), -1000.0)
    hu[:, 10:50, 10:70] = 40
    hu[:, 15:45, 14:38] = hu[:, 15:45, 42:66] = -860
    grey = np.clip((hu + 1200) / 1400 * 255, 0, 255)
    paths = tuple(save_picture(tmp_path / f"{n}.png", grey[n]) for n in range(10))
    image = ImageFile(paths, Reader.PICTURES)
    sample = load(Record("s/a", "s", "x", image=image, intensity=IntensityKind.PICTURE))
    assert np.abs(sample.image.array[hu == -860] + 860).max() < 60
    assert np.abs(sample.image.array[hu == 40] - 40).max() < 60


@pytest.mark.parametrize("convention", LOBE_CODES)
def test_lobes_of_every_convention_become_ours(convention: str) -> None:
    codes = lobe_codes(convention)
    theirs = {ours: value for value, ours in codes.values.items()}
    stored = np.array([0, *(theirs[value] for value in range(1, 6))])[five_lobes()]
    np.testing.assert_array_equal(codes.apply(stored, "map"), five_lobes())


def test_a_mask_without_classes_never_says_ground_glass() -> None:
    found = Codes.threshold(0, LESION_OF_ANY_KIND).apply(np.array([[[0, 1, 255]]]), "mask")
    assert found.tolist() == [[[0, 3, 3]]]


def test_mistakes_in_a_table_name_file_and_row(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffname;grade\na;1\n\nb;x\n", encoding="utf-8")
    first, second = read_table(path)
    assert (first.integer("grade"), first.number, second.number) == (1, 2, 4)
    with pytest.raises(InputError, match=r'labels.csv, row 4: "x" in the column "grade" is no number'):
        second.integer("grade")
    path.write_text("name,grade\na,1,2\n")
    with pytest.raises(InputError, match="row 2: 3 cells but 2 columns"):
        read_table(path)


def test_real_expert_slices_for_training(shared_data: Path) -> None:
    slices = read_expert_slices(shared_data / "slices/COVID-SemiSeg/TrainingSet")
    assert len(slices) == 50 and len({one.name for one in slices}) == 50
    assert all(one.hu.shape == one.lesions.shape and one.lesions.max() in (1, 2) for one in slices)
    # Consolidation is denser than ground-glass, which is denser than the rest of the lung.
    medians = [np.median(np.concatenate([one.hu[one.lesions == value] for one in slices])) for value in (1, 2)]
    assert -800 < medians[0] < medians[1] < 60

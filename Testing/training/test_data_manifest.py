"""A manifest of anybody's own data: what it can say, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import CONSOLIDATION
from COVIDMultitaskLib.volume import IntensityKind
from Testing.training.data_layouts import a_lesion, chest_hu, five_lobes, grey_slice, save, save_picture, save_series
from training.data.__main__ import main
from training.data.adapters.manifest import ADAPTER, read_manifest
from training.data.loading import load
from training.data.record import LESION_OF_ANY_KIND, Annotator, Reader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some scans and masks."""
    save(tmp_path / "scans/a.nii.gz", chest_hu())
    save(tmp_path / "scans/b.nrrd", chest_hu())
    save(tmp_path / "masks/lobes.nii.gz", np.array([0, 7, 8, 4, 5, 6])[five_lobes()])
    save(tmp_path / "masks/lesions.nii.gz", a_lesion(CONSOLIDATION))
    save_series(tmp_path / "dicom")
    for n in range(3):
        save_picture(tmp_path / f"pictures/{n}.png", grey_slice(n))
    return tmp_path


def write(folder: Path, text: str) -> Path:
    """A manifest."""
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_full_row(folder: Path) -> None:
    write(
        folder,
        "image,id,patient,source,licence,lobes,lobe_convention,lesions,lesion_kind,annotator,severity,ct_grade,"
        "diagnosis,split,group\nscans/a.nii.gz,one,P1,Ward 3,CC0-1.0,masks/lobes.nii.gz,luna16,masks/lesions.nii.gz,"
        "classes,non_expert,severe,3,covid_19,train,scanner 1\n",
    )
    (record,) = ADAPTER.collect(folder).records
    assert (record.id, record.patient_id, record.group) == ("Ward 3/one", "Ward 3/P1", "Ward 3/scanner 1")
    assert (record.severity, record.ct_grade, record.diagnosis, record.split) == ("severe", 3, "covid_19", "train")
    assert record.annotator is Annotator.NON_EXPERT and record.licence == "CC0-1.0"
    sample = load(record)
    np.testing.assert_array_equal(sample.lobes, five_lobes())
    assert set(np.unique(sample.lesions)) == {0, CONSOLIDATION}


def test_empty_cells_are_unknown(folder: Path) -> None:
    write(folder, "image,lesions,severity,covid\nscans/a.nii.gz,,,\nscans/b.nrrd,none,,no\n")
    first, second = ADAPTER.collect(folder).records
    assert first.lesions is None and first.severity is None and first.covid is None and first.patient_id is None
    assert load(first).lesions is None
    assert not load(second).lesions.any() and second.covid is False and second.diagnosis is None


def test_binary_masks_folders_and_masks_alone(folder: Path) -> None:
    write(
        folder,
        "image;id;lesions\ndicom;d;\npictures;p;\nscans/a.nii.gz;a;masks/lesions.nii.gz\n;m;masks/lesions.nii.gz\n",
    )
    dicom, pictures, binary, alone = ADAPTER.collect(folder).records
    assert dicom.image.reader is Reader.DICOM and load(dicom).image.array.shape == chest_hu().shape
    assert pictures.intensity is IntensityKind.PICTURE and load(pictures).geometry.shape[0] == 3
    assert set(np.unique(load(binary).lesions)) == {0, LESION_OF_ANY_KIND}
    assert alone.image is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image\nscans/c.nii.gz\n", r"manifest.csv, row 2: image scans/c.nii.gz does not exist"),
        ("image,lesions\nscans/a.nii.gz,masks/x.nii.gz\n", r"row 2: lesions masks/x.nii.gz does not exist"),
        ("image,severity\nscans/a.nii.gz,\nscans/b.nrrd,bad\n", r"manifest.csv, row 3: .* has the severity bad"),
        ("image,ct_grade\nscans/a.nii.gz,1.5\n", r'row 2: "1.5" in the column "ct_grade" is no whole number'),
        ("image,ct_grade\nscans/a.nii.gz,7\n", r"row 2: .* CT grade 7; expected one of 0, 1, 2, 3, 4"),
        ("image,covid\nscans/a.nii.gz,perhaps\n", r"row 2: covid is perhaps; expected yes or no"),
        ("image,diagnosis,covid\nscans/a.nii.gz,covid_19,no\n", r"row 2: .* diagnosis covid_19 but covid is False"),
        ("image,intensity\nscans/a.nii.gz,mri\n", r"row 2: the intensity mri is unknown; choose one of hounsfield"),
        ("image,lobes,lobe_convention\nscans/a.nii.gz,masks/lobes.nii.gz,mine\n", r"row 2: the lobe_convention mine"),
        ("image,id\nscans/a.nii.gz,x\nscans/b.nrrd,x\n", r"row 3: the id manifest/x is already in row 2"),
        ("image,patient\n,P\n", r"row 2: neither an image nor a mask is given"),
        ("image,sevrity\nscans/a.nii.gz,severe\n", r"row 1: the column sevrity is unknown; known are image"),
        ("image,split\nscans/a.nii.gz,training\n", r"row 2: .* split training; expected one of train, val, test"),
        ("", r"manifest.csv is empty"),
    ],
)
def test_every_mistake_is_told_with_its_row(text: str, sentence: str, folder: Path) -> None:
    write(folder, text)
    with pytest.raises(InputError, match=sentence):
        ADAPTER.collect(folder)


def test_all_mistakes_are_listed_by_the_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, "image,ct_grade\nscans/a.nii.gz,9\nscans/b.nrrd,1\nscans/c.nii.gz,1\n")
    records, mistakes = read_manifest(path)
    assert len(records) == 1 and len(mistakes) == 2
    with pytest.raises(InputError, match=r"row 2: .*\(1 more mistakes in this file.\)"):
        ADAPTER.collect(path)
    assert main(["check", str(path)]) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "row 2" in shown and "row 4" in shown

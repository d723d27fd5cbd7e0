"""Every adapter on a small made-up copy of its real layout, and on the real files where they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import CONSOLIDATION, GROUND_GLASS, LOBES
from COVIDMultitaskLib.volume import IntensityKind
from Testing.training.data_layouts import (
    SHAPE,
    a_lesion,
    chest_hu,
    five_lobes,
    grey_slice,
    lung_sides,
    save,
    save_picture,
    save_series,
)
from training.data.adapters import manifest
from training.data.loading import load
from training.data.record import LESION_OF_ANY_KIND, Annotator, LesionKind, Record
from training.data.registry import ADAPTERS, adapter, detect, discover


def mosmed(root: Path) -> Path:
    root = root / "COVID19_1110"
    save(root / "studies/CT-0/study_0001.nii.gz", chest_hu())
    save(root / "studies/CT-1/study_0255.nii.gz", chest_hu())
    save(root / "studies/CT-3/study_1064.nii.gz", chest_hu())
    save(root / "masks/study_0255_mask.nii.gz", a_lesion())
    rows = [("study", "category"), *((f"/studies/x/study_{n:04d}.nii.gz", g) for n, g in ((1, "CT-0"), (255, "CT-1"),
            (1064, "CT-3"), (1110, "CT-4")))]  # fmt: skip
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(root / "dataset_registry.xlsx")
    return root.parent


def covid19_ct_seg(root: Path) -> Path:
    hu, sides = chest_hu(), lung_sides()
    windowed = np.clip((hu + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    flipped = (slice(None), slice(None, None, -1))
    for case, image, turn in (
        ("coronacases_001", hu, ()),
        ("radiopaedia_10_85902_1", windowed, flipped),
        ("radiopaedia_7_85703_0", windowed, (slice(None, None, -1), slice(None, None, -1))),
    ):
        save(root / f"COVID-19-CT-Seg_20cases/{case}.nii.gz", image[turn])
        save(root / f"Lung_Mask/{case}.nii.gz", sides[turn])
        save(root / f"Infection_Mask/{case}.nii.gz", a_lesion()[turn], origin_mm=0.0)
    return root


def medseg(root: Path) -> Path:
    save(root / "tr_im.nii.gz", chest_hu())
    save(root / "tr_mask.nii.gz", np.where(a_lesion() > 0, 2, 0).astype(np.uint8))
    save(root / "tr_lungmasks_updated.nii.gz", (lung_sides() > 0).astype(np.uint8))
    save(root / "val_im.nii.gz", chest_hu())
    save(root / "rp_im/1.nii.gz", chest_hu())
    save(root / "rp_msk/1.nii.gz", a_lesion())
    save(root / "rp_lung_msk/1.nii.gz", (lung_sides() > 0).astype(np.uint8))
    return root


def covid_semiseg(root: Path) -> Path:
    training = root / "Dataset/TrainingSet"
    for name in ("0", "1"):
        for folder in ("MultiClassInfection-Train", "LungInfection-Train/Doctor-label"):
            save_picture(training / folder / f"Imgs/{name}.jpg", grey_slice(int(name)))
        classes = np.zeros((40, 60))
        classes[2:9, 4:9], classes[12:20, 30:40] = 1, 2
        save_picture(training / f"MultiClassInfection-Train/GT/{name}.png", classes)
        save_picture(training / f"LungInfection-Train/Doctor-label/GT/{name}.png", (classes > 0) * 255)
    for name in ("Data-1_coronacases_org_001_3", "Data-1_radiopaedia_org_covid-19-pneumonia-10_85902_3-dcm_7"):
        pseudo = np.zeros((40, 60))
        pseudo[2:9, 4:9], pseudo[30:, 50:] = 200, 90
        save_picture(training / f"LungInfection-Train/Pseudo-label/Imgs/{name}.jpg", grey_slice(len(name)))
        save_picture(training / f"LungInfection-Train/Pseudo-label/GT/{name}.png", pseudo)
    return root


def covid_19_20(root: Path) -> Path:
    for name in ("volume-covid19-A-0003", "volume-covid19-A-0047_1"):
        save(root / f"COVID-19-20_v2/Train/{name}_ct.nii.gz", chest_hu())
        save(root / f"COVID-19-20_v2/Train/{name}_seg.nii.gz", a_lesion())
    save(root / "COVID-19-20_v2/Validation/volume-covid19-A-0001_ct.nii.gz", chest_hu())
    return root


def uestc(root: Path) -> Path:
    unit = np.clip((chest_hu() + 1400) / 1500, 0, 1).astype(np.float32)
    for part in ("part1", "part2"):
        save(root / part / "image/a.nii.gz", unit)
        save(root / part / "label/a.nii.gz", a_lesion(), spacing_mm=(1, 1, 1), origin_mm=77.0)
    return root


def cc_ccii(root: Path) -> Path:
    for kind, patient, scan in (("NCP", "5", "1002"), ("CP", "1066", "3000"), ("Normal", "700", "20")):
        for n in (0, 1, 2, 10):
            save_picture(root / kind / patient / scan / f"{n:04d}.png", grey_slice(n))
    save_picture(root / "NCP/328/1805/0000.png", grey_slice(1))
    (root / "lesions_slices.csv").write_text("imgpath\nNCP/5/1002/0001.png\nNCP/5/1002/0010.png\n")
    mask = np.zeros((40, 60))
    mask[5:30, 5:30], mask[8:12, 8:12], mask[20:25, 20:25] = 1, 2, 3
    save_picture(root / "ct_lesion_seg/image/12/3.jpg", grey_slice(3))
    save_picture(root / "ct_lesion_seg/mask/12/3.png", mask)
    return root


def stoic2021(root: Path) -> Path:
    for patient in ("17", "18", "19"):
        save(root / f"data/mha/{patient}.mha", chest_hu())
    (root / "metadata").mkdir()
    (root / "metadata/reference.csv").write_text("PatientID,probCOVID,probSevere\n17,1,1\n18,1,0\n19,0,0\n20,1,0\n")
    return root


def covid_ct_md(root: Path) -> Path:
    """Slice Location falls where names rise, and the array is told by position."""
    hu = chest_hu()
    hu[0] = 500  # the lowest slice, by which the order is known
    for folder, subject in (
        ("COVID-19 subjects", "P001"),
        ("Cap subjects", "cap001"),
        ("Normal subjects", "normal001"),
    ):
        save_series(root / folder / subject, hu)
        for path in (root / folder / subject).iterdir():
            import pydicom

            header = pydicom.dcmread(path)
            header.SliceLocation = float(header.ImagePositionPatient[2]) - 55
            header.save_as(path)
    slices = np.zeros((2, 30), int)
    slices[0, [3, 4]] = 1
    lobes = np.zeros((2, 30, 5), int)
    lobes[0, 3, 4] = lobes[0, 4, 0] = 1  # right upper in slice 3, left lower in slice 4
    np.save(root / "Slice-level-labels.npy", slices)
    np.save(root / "Lobe-level-labels.npy", lobes)
    (root / "Index.csv").write_text(
        "Label Index,Diagnosis,Folder/ID,Relative Path\n44,CAP,cap001,Cap\n42,COVID-19,P001,COVID-19\n"
    )
    return root


def totalsegmentator(root: Path) -> Path:
    names = ("lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right", "lung_middle_lobe_right",
             "lung_lower_lobe_right")  # fmt: skip
    for subject in ("s0011", "s0004"):
        save(root / subject / "ct.nii.gz", chest_hu())
        for value, name in enumerate(names, start=1):
            save(root / subject / f"segmentations/{name}.nii.gz", (five_lobes() == value).astype(np.uint8))
    save(root / "s0099/ct.nii.gz", chest_hu())
    save(root / f"s0099/segmentations/{names[0]}.nii.gz", a_lesion())
    (root / "meta.csv").write_text("image_id;age;split\ns0004;50;train\ns0011;61;test\ns0099;40;val\n")
    return root


def luna16_lobes(root: Path) -> Path:
    theirs = np.array([0, 7, 8, 4, 5, 6])[five_lobes()].astype(np.uint16)
    theirs[0, 0, :3] = (512, 516, 1)
    save(root / "annotations/1.3.6.1.4.1.1_LobeSegmentation.nrrd", theirs)
    save(root / "annotations/1.3.6.1.4.1.2_LobeSegmentation.nrrd", theirs)
    save(root / "images/1.3.6.1.4.1.1.mha", chest_hu())
    return root


def lidc(root: Path) -> Path:
    save_series(root / "LIDC-IDRI/LIDC-IDRI-0001/study/series")
    save_series(root / "LIDC-IDRI/LIDC-IDRI-0002/study/x-ray", Modality="DX")
    return root


def ricord(root: Path) -> Path:
    base = root / "MIDRC-RICORD-1A"
    patient = "MIDRC-RICORD-1A-419639-000082"
    save_series(base / patient / "06-03-2005-CT/3.000-CHEST-1", PatientID=patient)
    save_series(base / patient / "06-03-2005-CT/5.000-COR", PatientID=patient, orientation=(1, 0, 0, 0, 0, -1))
    negative = "MIDRC-RICORD-1B-419639-000007"
    save_series(root / "MIDRC-RICORD-1B/2.25.1/20051111/2.25.2", PatientID=negative)
    return root


def cov19_ct_db(root: Path) -> Path:
    scans = [
        f"{part}/{kind}/ct_scan_{n}" for part, n in (("train", 0), ("validation", 9)) for kind in ("covid", "non-covid")
    ]
    for folder in (*scans, "train/covid/ct_scan_1", "test/detection/test_ct_scan_4"):
        for n in (0, 2, 10):
            save_picture(root / folder / f"{n}.jpg", np.full((40, 60), n * 10))
    (root / "train/train_partition_covid_categories.csv").write_text("Name;Category\nct_scan_0;4\n")
    return root


def lung_pet_ct_dx(root: Path) -> Path:
    save_series(root / "Lung-PET-CT-Dx/Lung_Dx-A0001/04-04-2007/2.000-5mm")
    save_series(root / "Lung-PET-CT-Dx/Lung_Dx-A0001/04-04-2007/3.000-PET", Modality="PT")
    save(root / "Lung-PET-CT-Dx/LungDx_B0002_s1.nii.gz", chest_hu())
    return root


def covid_vs_noncovid(root: Path) -> Path:
    for n, name in enumerate(("2020.02.25.20021568-p23-108_1", "2020.02.25.20021568-p24-110", "Covid_(7)")):
        save_picture(root / f"COVID/{name}.jpg", grey_slice(n))
    for n, name in enumerate(("nor_3_img_1", "nor_3_img_2", "12")):
        save_picture(root / f"NonCOVID/{name}.jpg", grey_slice(10 + n))
    return root


def own_manifest(root: Path) -> Path:
    save(root / "scans/a.nii.gz", chest_hu())
    save(root / "lobes/a.nii.gz", five_lobes())
    (root / "manifest.csv").write_text("image,patient,lobes,ct_grade\nscans/a.nii.gz,A,lobes/a.nii.gz,0\n")
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "mosmed": mosmed, "covid19_ct_seg": covid19_ct_seg, "medseg": medseg, "covid_semiseg": covid_semiseg,
    "covid_19_20": covid_19_20, "uestc": uestc, "cc_ccii": cc_ccii, "stoic2021": stoic2021,
    "covid_ct_md": covid_ct_md, "totalsegmentator": totalsegmentator, "luna16_lobes": luna16_lobes, "lidc": lidc,
    "ricord": ricord, "cov19_ct_db": cov19_ct_db, "lung_pet_ct_dx": lung_pet_ct_dx,
    "covid_vs_noncovid": covid_vs_noncovid, "manifest": own_manifest,
}  # fmt: skip


def by_id(name: str, root: Path) -> dict[str, Record]:
    """Records by id without the source."""
    return {record.id.split("/", 1)[1]: record for record in adapter(name).collect(root).records}


def test_every_adapter_has_a_made_up_copy() -> None:
    assert set(LAYOUTS) == set(ADAPTERS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_read_and_loaded(name: str, tmp_path: Path) -> None:
    root = LAYOUTS[name](tmp_path)
    assert detect(root).name == name
    found = adapter(name).collect(root)
    assert len({record.id for record in found.records}) == len(found.records)
    for record in found.records:
        assert record.licence and record.id.startswith(f"{record.source}/")
        sample = load(record)
        assert sample.image is None or sample.image.array.dtype == np.int16
        for mask in (sample.lobes, sample.lungs, sample.lesions):
            assert mask is None or mask.shape == sample.geometry.shape


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_wrong_layout_is_told_in_a_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("sun")
    with pytest.raises(InputError, match=r"expected|holds no manifest"):
        adapter(name).collect(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        adapter(name).collect(tmp_path / "nowhere")


def test_an_unknown_folder_or_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layout of no known data set"):
        detect(tmp_path)
    with pytest.raises(InputError, match='no data set "mosmet"'):
        adapter("mosmet")


def test_several_data_sets_are_found_below_a_folder(tmp_path: Path) -> None:
    mosmed(tmp_path / "russia")
    covid_vs_noncovid(tmp_path / "pictures" / "mixed")
    found = {(one.name, folder.name) for one, folder in discover(tmp_path)}
    assert found == {("mosmed", "russia"), ("covid_vs_noncovid", "mixed")}


def test_mosmed_grades_and_masks(tmp_path: Path) -> None:
    root = mosmed(tmp_path)
    found = by_id("mosmed", root)
    assert [found[f"study_{n}"].ct_grade for n in ("0001", "0255", "1064")] == [0, 1, 3]
    assert [found[f"study_{n}"].severity for n in ("0255", "1064")] == ["not_severe", "severe"]
    assert found["study_0001"].covid is False and found["study_0001"].diagnosis is None
    assert found["study_0255"].diagnosis == "covid_19"
    # CT-0 is known to have no lesion, CT-3 without a mask is not.
    assert not load(found["study_0001"]).lesions.any()
    assert load(found["study_1064"]).lesions is None
    assert set(np.unique(load(found["study_0255"]).lesions)) == {0, LESION_OF_ANY_KIND}
    assert "1 of the registry's 4" in adapter("mosmed").collect(root).absent[0]


def test_mosmed_in_the_other_spelling(tmp_path: Path) -> None:
    save(tmp_path / "ct2/study_0940.nii", chest_hu())
    assert by_id("mosmed", tmp_path)["study_0940"].ct_grade == 2


def test_covid19_ct_seg_is_turned_upright_in_one_scale(tmp_path: Path) -> None:
    found = by_id("covid19_ct_seg", covid19_ct_seg(tmp_path))
    assert found["coronacases_001"].intensity is IntensityKind.HOUNSFIELD
    assert found["radiopaedia_10_85902_1"].intensity is IntensityKind.WINDOW_8BIT
    for record in found.values():
        sample = load(record)
        np.testing.assert_allclose(sample.image.array, chest_hu(), atol=4)
        np.testing.assert_array_equal(sample.lungs, lung_sides())
        np.testing.assert_array_equal(sample.lesions > 0, a_lesion() > 0)
    assert found["radiopaedia_10_85902_1"].patient_id == "radiopaedia/10"


def test_covid19_ct_seg_in_kaggles_copy_with_lobes(tmp_path: Path) -> None:
    save(tmp_path / "ct_scans/coronacases_org_001.nii/coronacases_org_001.nii", chest_hu())
    save(
        tmp_path / "lung_and_infection_mask/coronacases_001.nii", np.where(a_lesion(), 3, lung_sides()).astype(np.uint8)
    )
    save(tmp_path / "lung_mask/coronacases_001.nii", lung_sides())
    save(tmp_path / "COVID lung lobe segmentation/coronacases_001.nii.gz", np.array([0, 7, 8, 4, 5, 6])[five_lobes()])
    untold = adapter("covid19_ct_seg").collect(tmp_path)
    assert untold.records[0].lobes is None and "lobe maps are left out" in untold.absent[0]
    (record,) = adapter("covid19_ct_seg").collect(tmp_path, lobe_convention="luna16").records
    sample = load(record)
    np.testing.assert_array_equal(sample.lobes, five_lobes())
    np.testing.assert_array_equal(sample.lesions > 0, a_lesion() > 0)


def test_medseg_slices_and_volumes(tmp_path: Path) -> None:
    found = by_id("medseg", medseg(tmp_path))
    assert len(found) == 2 * SHAPE[0] + 1
    sample = load(found["tr_005"])
    assert sample.geometry.shape == (1, *SHAPE[1:]) and set(np.unique(sample.lesions)) == {0, CONSOLIDATION}
    assert found["val_000"].lesions is None and found["val_000"].split == "val"
    assert set(np.unique(load(found["rp_1"]).lesions)) == {0, GROUND_GLASS}
    assert found["tr_005"].patient_id is None


def test_covid_semiseg_classes_pseudo_labels_and_patients(tmp_path: Path) -> None:
    root = covid_semiseg(tmp_path)
    found = by_id("covid_semiseg", root)
    assert len(found) == 4  # the two expert folders hold the same slices
    expert = load(found["expert_train/1"])
    assert expert.lesions.shape == (1, 60, 40)
    assert expert.lesions[0, 5, 3] == GROUND_GLASS and expert.lesions[0, 35, 15] == CONSOLIDATION
    corona, radiopaedia = (next(one for name, one in found.items() if word in name) for word in ("corona", "radio"))
    assert (corona.patient_id, radiopaedia.patient_id) == ("coronacases/001", "radiopaedia/10")
    assert corona.annotator is Annotator.MODEL and corona.lesion_kind is LesionKind.BINARY
    # A weak 90 is no lesion; the coronacases lie face down, the others do not.
    assert load(radiopaedia).lesions[0, 5, 3] == LESION_OF_ANY_KIND and not load(radiopaedia).lesions[0, -2, -2]
    assert load(corona).lesions[0, 60 - 1 - 5, 3] == LESION_OF_ANY_KIND


def test_covid_19_20_pairs_and_patients(tmp_path: Path) -> None:
    root = covid_19_20(tmp_path)
    found = by_id("covid_19_20", root)
    assert found["volume-covid19-A-0047_1"].patient_id.endswith("A-0047")
    assert found["volume-covid19-A-0001"].split == "val" and found["volume-covid19-A-0001"].lesions is None
    next(root.rglob("*0003_seg.nii.gz")).unlink()
    assert "1 scans of Train have no _seg mask" in adapter("covid_19_20").collect(root).absent[0]


def test_uestc_takes_the_images_header_and_scale(tmp_path: Path) -> None:
    found = by_id("uestc", uestc(tmp_path))
    sample = load(found["part1/a"])
    np.testing.assert_allclose(sample.image.array, np.clip(chest_hu(), -1400, 100), atol=1)
    np.testing.assert_array_equal(sample.lesions > 0, a_lesion() > 0)
    assert (found["part1/a"].annotator, found["part2/a"].annotator) == (Annotator.NON_EXPERT, Annotator.EXPERT)


def test_cc_ccii_scans_flags_and_segmented_slices(tmp_path: Path) -> None:
    root = cc_ccii(tmp_path)
    found = by_id("cc_ccii", root)
    assert found["NCP/5/1002"].slice_flags == (False, True, False, True)
    assert found["CP/1066/3000"].slice_flags is None
    assert [found[name].diagnosis for name in ("NCP/5/1002", "CP/1066/3000", "Normal/700/20")] == [
        "covid_19", "other_pneumonia", "no_pneumonia"
    ]  # fmt: skip
    assert "NCP/328/1805" not in found and "broken" in adapter("cc_ccii").collect(root).absent[0]
    sample = load(found["ct_lesion_seg/12/3"])
    assert sample.lesions[0, 9, 9] == GROUND_GLASS and sample.lesions[0, 22, 22] == CONSOLIDATION
    assert sample.lesions[0, 6, 6] == 0 and np.count_nonzero(sample.lungs) == 25 * 25


def test_stoic_severity_is_known_of_covid_only(tmp_path: Path) -> None:
    root = stoic2021(tmp_path)
    found = by_id("stoic2021", root)
    assert [found[name].severity for name in ("17", "18", "19")] == ["severe", "not_severe", None]
    assert [found[name].covid for name in ("17", "18", "19")] == [True, True, False]
    assert "1 of 4 patients" in adapter("stoic2021").collect(root).absent[0]
    (root / "metadata/reference.csv").write_text("PatientID,probCOVID,probSevere\n17,1,yes\n")
    with pytest.raises(InputError, match=r'reference.csv, row 2: "yes" in the column "probSevere"'):
        adapter("stoic2021").collect(root)


def test_covid_ct_md_orders_by_location_and_maps_its_lobes(tmp_path: Path) -> None:
    found = by_id("covid_ct_md", covid_ct_md(tmp_path))
    record = found["P001"]
    assert record.diagnosis == "covid_19" and found["normal001"].slice_flags is None
    assert [n for n, flag in enumerate(record.slice_flags) if flag] == [3, 4]
    keys = [label.key for label in LOBES]
    assert [keys[row.index(True)] for row in record.lobe_flags if any(row)] == ["right_upper", "left_lower"]
    assert not any(found["cap001"].slice_flags)
    sample = load(record)
    assert (sample.image.array[0] == 500).all() and not (sample.image.array[1] == 500).any()


def test_covid_ct_md_needs_no_positions(tmp_path: Path) -> None:
    """Anonymisers take positions away; Slice Location is left."""
    import pydicom

    root = covid_ct_md(tmp_path)
    for path in (root / "COVID-19 subjects/P001").iterdir():
        header = pydicom.dcmread(path)
        del header.ImagePositionPatient
        header.save_as(path)
    sample = load(by_id("covid_ct_md", root)["P001"])
    assert (sample.image.array[0] == 500).all() and sample.geometry.spacing_mm[0] == pytest.approx(12)


def test_totalsegmentator_in_its_three_layouts(tmp_path: Path) -> None:
    root = totalsegmentator(tmp_path / "full")
    found = by_id("totalsegmentator", root)
    assert set(found) == {"s0004", "s0011"} and found["s0011"].split == "test"
    assert found["s0004"].covid is None
    np.testing.assert_array_equal(load(found["s0004"]).lobes, five_lobes())
    assert "1 subjects lack" in adapter("totalsegmentator").collect(root).absent[0]

    merged = np.array([0, 10, 11, 12, 13, 14])[five_lobes()]
    merged[merged == 0] = 51
    save(tmp_path / "lite/Images/s0004.nii.gz", chest_hu())
    save(tmp_path / "lite/Masks/s0004.nii.gz", merged)
    np.testing.assert_array_equal(load(by_id("totalsegmentator", tmp_path / "lite")["s0004"]).lobes, five_lobes())

    save(tmp_path / "bare/s0019.nii.gz", five_lobes())
    bare = by_id("totalsegmentator", tmp_path / "bare")["s0019"]
    assert bare.image is None and load(bare).lobes.max() == 5


def test_luna16_values_and_missing_scans(tmp_path: Path) -> None:
    root = luna16_lobes(tmp_path)
    found = by_id("luna16_lobes", root)
    np.testing.assert_array_equal(load(found["1.3.6.1.4.1.1"]).lobes, five_lobes())
    assert found["1.3.6.1.4.1.1"].image and found["1.3.6.1.4.1.2"].image is None
    assert "1 of 2 lobe maps have no CT" in adapter("luna16_lobes").collect(root).absent[0]


def test_archives_give_axial_ct_series_only(tmp_path: Path) -> None:
    patients = {record.patient_id for record in adapter("lidc").collect(lidc(tmp_path / "a")).records}
    assert patients == {"lidc/LIDC-IDRI-0001"}
    found = adapter("ricord").collect(ricord(tmp_path / "b"))
    assert sorted(record.covid for record in found.records) == [False, True]
    assert "1 series in other planes" in found.absent[0]
    cancers = adapter("lung_pet_ct_dx").collect(lung_pet_ct_dx(tmp_path / "c")).records
    assert {record.patient_id for record in cancers} == {"lung_pet_ct_dx/A0001", "lung_pet_ct_dx/B0002"}
    assert all(record.covid is False and record.diagnosis is None for record in cancers)


def test_cov19_ct_db_parts_order_and_severity(tmp_path: Path) -> None:
    found = by_id("cov19_ct_db", cov19_ct_db(tmp_path))
    first = found["train/covid/ct_scan_0"]
    assert (first.ct_grade, first.severity, first.split) == (4, "severe", "train")
    assert found["train/non-covid/ct_scan_0"].severity is None  # another scan of the same name
    assert found["val/covid/ct_scan_9"].split == "val"
    assert found["test/test_ct_scan_4"].covid is None
    assert [path.stem for path in first.image.paths] == ["0", "2", "10"]


def test_covid_vs_noncovid_groups_by_paper_and_subject(tmp_path: Path) -> None:
    found = by_id("covid_vs_noncovid", covid_vs_noncovid(tmp_path))
    assert found["COVID/2020.02.25.20021568-p23-108_1"].group == found["COVID/2020.02.25.20021568-p24-110"].group
    assert found["NonCOVID/nor_3_img_1"].group == found["NonCOVID/nor_3_img_2"].group != None  # noqa: E711
    assert found["NonCOVID/12"].group is None and found["NonCOVID/12"].covid is False


@pytest.mark.parametrize(
    ("name", "folder", "records", "patients"),
    [
        ("mosmed", "lesion_masks_mosmed", 50, 50),
        ("totalsegmentator", "lobe_maps", 200, 200),
        ("luna16_lobes", "lobe_maps_luna16", 10, 0),
        ("covid_semiseg", "slices/COVID-SemiSeg", 725, 18),
        ("covid_vs_noncovid", "slices/covid_vs_noncovid", 2107, 0),
        ("ricord", "ct/RICORD1A_001012", 1, 1),
        ("lung_pet_ct_dx", "ct", 1, 1),
    ],
)
def test_the_real_files(name: str, folder: str, records: int, patients: int, shared_data: Path) -> None:
    found = adapter(name).collect(shared_data / folder).records
    assert len(found) == records
    assert len({record.patient_id for record in found if record.patient_id}) == patients
    if name == "ricord":
        return  # the reader's tests load it
    sample = load(found[0])
    if sample.lobes is not None:
        assert set(np.unique(sample.lobes)) == {0, 1, 2, 3, 4, 5}
    if sample.image is not None:
        assert sample.image.array.min() >= -1024 and np.mean(sample.image.array < -500) > 0.1


@pytest.mark.parametrize("origin", ["expert_train", "coronacases", "radiopaedia"])
def test_real_slices_lie_on_their_back(origin: str, shared_data: Path) -> None:
    """In the midline the spine is at the back, and it is denser than what is in front."""
    found = adapter("covid_semiseg").collect(shared_data / "slices/COVID-SemiSeg").records
    chosen = [record for record in found if origin in record.id]
    on_back = []
    for record in chosen[:: max(1, len(chosen) // 20)]:
        _, y, x = load(record).image.array.shape
        midline = load(record).image.array[0, :, 2 * x // 5 : 3 * x // 5].astype(float)
        on_back.append(midline[-y // 4 :].mean() > midline[: y // 4].mean())
    assert np.mean(on_back) > 0.8


def test_the_columns_are_documented(repository: Path) -> None:
    text = (repository / "training/data/README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in manifest.COLUMNS)
    assert all(f"| `{name}` |" in text for name in ADAPTERS if name != "manifest")

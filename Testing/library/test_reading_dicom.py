"""DICOM folders as archives hold them: real files, real decoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from COVIDMultitaskLib.errors import Cancelled, InputError, NotChestCTError
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import read_volume
from Testing.library.dicom_series import PATIENT, Series, write_many_slices
from Testing.library.simple_chest import chest_hu

HU = chest_hu()


def test_ricord_is_read_as_itk_reads_it(shared_data: Path) -> None:
    import SimpleITK as sitk

    folder = shared_data / "ct" / "RICORD1A_001012"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    volume = read_volume(folder)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, np.maximum(sitk.GetArrayViewFromImage(image), -1024))
    assert volume.geometry.shape == (248, 512, 512)
    assert np.allclose(volume.geometry.spacing_mm[::-1], image.GetSpacing())
    assert np.allclose(volume.geometry.origin_mm, image.GetOrigin())
    assert np.allclose(volume.geometry.direction[:, ::-1].ravel(), image.GetDirection())
    told = volume.provenance
    assert (told.format, told.modality, told.kernel, told.slice_thickness_mm) == ("DICOM", "CT", "STANDARD", 1.25)
    assert told.missing_slices == 0
    assert any("-3024" in note for note in told.notes)


def test_one_file_stands_for_its_series(shared_data: Path) -> None:
    volume = read_volume(shared_data / "ct" / "RICORD1A_001012" / "1-100.dcm")
    assert volume.geometry.shape == (248, 512, 512)


def test_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    source = Series(HU).write(tmp_path / "source")
    files = FileSet()
    for file in source:
        files.add(with_what_a_file_set_needs(file))
    files.write(tmp_path / "disc")
    assert np.array_equal(read_volume(tmp_path / "disc" / "DICOMDIR").array, HU)


def with_what_a_file_set_needs(file: Path):
    import pydicom

    image = pydicom.dcmread(file)
    image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = "20200101", "120000", "1", ""
    return image


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_voxels_survive_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    Series(HU, transfer_syntax=syntax).write(tmp_path)
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, HU)


def test_subfolders_and_other_files_do_not_disturb(tmp_path: Path) -> None:
    Series(HU).write(tmp_path / "study" / "série 2")
    (tmp_path / "README.txt").write_text("not DICOM")
    (tmp_path / "study" / "notes").write_bytes(b"\0" * 300)
    (tmp_path / "empty.dcm").touch()
    assert np.array_equal(read_volume(tmp_path).array, HU)


def test_head_or_feet_first_order_gives_the_same_volume(tmp_path: Path) -> None:
    Series(HU[::-1], origin_mm=(-200, -180, 100 + 23 * 12), step_mm=(0, 0, -12)).write(tmp_path)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, HU)
    assert volume.geometry.origin_mm == (-200, -180, 100)


angles = st.floats(-0.4, 0.4)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rotation=st.tuples(angles, angles, st.floats(-3.1, 3.1)),
    tilt=st.floats(-0.5, 0.5),
    spacing=st.tuples(st.floats(4.0, 10.0), st.floats(4.0, 12.0), st.floats(4.0, 12.0)),
    feet_first=st.booleans(),
)
def test_every_voxel_lies_where_dicom_says(tmp_path_factory, rotation, tilt, spacing, feet_first) -> None:
    """DICOM PS3.3 C.7.6.2.1.1: position + column * spacing * row direction + row * spacing * column direction."""
    from scipy.spatial.transform import Rotation

    along_row, along_column, normal = Rotation.from_euler("xyz", rotation).as_matrix().T
    step = spacing[0] * (normal + np.tan(tilt) * along_column) * (-1 if feet_first else 1)
    hu = chest_hu((16, 20, 24), (16.0, 16.0, 16.0))
    series = Series(hu, (*along_row, *along_column), step, pixel_spacing_mm=spacing[1:])
    folder = tmp_path_factory.mktemp("series")
    series.write(folder)
    volume = read_volume(folder)
    for n, row, column in [(0, 0, 0), (15, 19, 23), (7, 3, 20)]:
        world = series.position_mm(n) + column * spacing[2] * along_row + row * spacing[1] * along_column
        k, j, i, _ = np.linalg.solve(volume.geometry.affine, [*world, 1.0])
        # A drift of less than 0.1 mm over the whole scan counts as rounding, not as tilt.
        assert np.allclose([j, i], [row, column], atol=0.03) and abs(k - round(k)) < 1e-3
        assert volume.array[round(k), row, column] == hu[n, row, column]
    assert not volume.geometry.is_orthogonal or abs(tilt) < 0.01


def test_gantry_tilt_is_kept_and_said(tmp_path: Path) -> None:
    tilt = np.radians(20)
    orientation = (1, 0, 0, 0, np.cos(tilt), -np.sin(tilt))
    Series(HU, orientation, step_mm=(0, 0, 12)).write(tmp_path)
    volume = read_volume(tmp_path)
    assert np.allclose(volume.geometry.direction[:, 0], [0, 0, 1])
    assert np.isclose(volume.geometry.voxel_ml, 12 * np.cos(tilt) * 81 / 1000)
    assert any("20.0 degrees" in note for note in volume.provenance.notes)


def test_rounded_positions_of_an_upright_scan_are_no_tilt(tmp_path: Path) -> None:
    for n in range(24):
        position = [f"{-200 + 0.001 * (n % 3):.3f}", "-180", f"{100 + 12 * n:.1f}"]
        Series(HU, uid="1.2.9").write_slice(tmp_path / f"{n}.dcm", n, ImagePositionPatient=position)
    assert np.array_equal(read_volume(tmp_path).geometry.direction[:, 0], [0, 0, 1])


def test_slope_and_intercept_may_differ_by_slice(tmp_path: Path) -> None:
    Series(HU, rescale=[(1 + n % 2, -1024 + n) for n in range(24)]).write(tmp_path)
    assert np.abs(read_volume(tmp_path).array - HU).max() <= 1


def test_fractional_slope_gives_floats(tmp_path: Path) -> None:
    series = Series(HU, rescale=(0.5371, -1000))
    series.write(tmp_path)
    array = read_volume(tmp_path).array
    assert array.dtype == np.float32
    expected = np.stack([series.stored(n) for n in range(24)]) * 0.5371 - 1000
    assert np.allclose(array, np.maximum(expected, -1024), atol=1e-3)


@pytest.mark.parametrize(
    ("padding", "representation", "rescale"),
    [(-2000, 1, (1, -1024)), (-32768, 1, (1, -1024)), (63536, 0, (1, -1024)), (32000, 1, (1, -1024))],
)
def test_padding_becomes_air(tmp_path: Path, padding: int, representation: int, rescale: tuple[int, int]) -> None:
    series = Series(HU, rescale=rescale)
    for n in range(24):
        stored = series.stored(n).astype("<u2" if representation == 0 else "<i2")
        stored[:3] = padding
        series.write_slice(
            tmp_path / f"{n}.dcm",
            n,
            PixelData=stored.tobytes(),
            PixelRepresentation=representation,
            PixelPaddingValue=padding,
        )
    array = read_volume(tmp_path).array
    assert array.dtype == np.int16
    assert (array[:, :3] == -1024).all()
    assert np.array_equal(array[:, 3:], HU[:, 3:])


def test_the_chest_series_is_chosen_and_the_rest_said(tmp_path: Path) -> None:
    Series(HU, attributes={"SeriesNumber": 2}).write(tmp_path / "2")
    Series(HU[:8], attributes={"SeriesNumber": 3}).write(tmp_path / "3")
    Series(HU[:2], attributes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": 1}).write(
        tmp_path / "1"
    )
    coronal = Series(np.zeros((40, 24, 48), np.int16), (1, 0, 0, 0, 0, -1), (0, 9, 0), attributes={"SeriesNumber": 4})
    coronal.write(tmp_path / "4")
    reformat = Series(
        np.zeros((30, 40, 48), np.int16), attributes={"ImageType": ["DERIVED", "SECONDARY", "MPR"], "SeriesNumber": 5}
    )
    reformat.write(tmp_path / "5")
    head = Series(np.zeros((30, 40, 48), np.int16), attributes={"BodyPartExamined": "HEAD", "SeriesNumber": 6})
    head.write(tmp_path / "6")
    Series(HU, attributes={"Modality": "MR", "SeriesNumber": 7}).write(tmp_path / "7")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, HU)
    note = volume.provenance.notes[0]
    assert note.startswith("Chosen: series 2 (24 images, axial)")
    for left_out in ("series 3 (8", "series 4 (40 images, not axial)", "series 5", "series 6", "2 localiser", "24 MR"):
        assert left_out in note


def test_a_series_can_be_named(tmp_path: Path) -> None:
    Series(HU).write(tmp_path / "long")
    Series(HU[4:20], uid="1.2.77").write(tmp_path / "short")
    assert np.array_equal(read_volume(tmp_path, series="1.2.77").array, HU[4:20])
    with pytest.raises(InputError, match="no images of the chosen series"):
        read_volume(tmp_path, series="1.2.78")


def test_duplicates_are_dropped(tmp_path: Path) -> None:
    series = Series(HU)
    series.write(tmp_path)
    series.write(tmp_path, planes=[3, 4, 20], prefix="copy")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, HU)
    assert any("3 slice(s) at a position" in note for note in volume.provenance.notes)


def test_two_phases_of_one_series_are_not_mixed(tmp_path: Path) -> None:
    for phase in (0, 1):
        series = Series(HU + 7 * phase, uid="1.2.5", attributes={"AcquisitionNumber": phase})
        for n in range(24):
            series.write_slice(tmp_path / f"{phase}-{n}.dcm", n, InstanceNumber=2 * n + (n + phase) % 2)
    assert len(np.unique(read_volume(tmp_path).array - HU)) == 1


def test_one_series_numbered_as_several_acquisitions_stays_whole(tmp_path: Path) -> None:
    series = Series(HU)
    for n in range(24):
        series.write_slice(tmp_path / f"{n}.dcm", n, AcquisitionNumber=1 + n // 12)
    assert np.array_equal(read_volume(tmp_path).array, HU)


def test_slices_of_another_size_are_left_out(tmp_path: Path) -> None:
    Series(HU, uid="1.2.6").write(tmp_path / "a")
    Series(HU[:5, :20], uid="1.2.6").write(tmp_path / "b")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, HU)
    assert "(5 images" in volume.provenance.notes[0]


def fine_chest(step: float = 5.0) -> Series:
    return Series(chest_hu((48, 40, 48), (step, 9.0, 9.0)), step_mm=(0, 0, step))


def test_few_missing_slices_are_interpolated_and_counted(tmp_path: Path) -> None:
    series = fine_chest()
    series.write(tmp_path, planes=[n for n in range(48) if n not in (5, 20, 21)])
    volume = read_volume(tmp_path)
    assert volume.geometry.shape == (48, 40, 48)
    assert np.isclose(volume.geometry.spacing_mm[0], 5.0)
    assert volume.provenance.missing_slices == 3
    assert any("3 of 48 slices are missing" in note for note in volume.provenance.notes)
    hu = series.hu.astype(float)
    assert np.abs(volume.array[5] - (hu[4] + hu[6]) / 2).max() <= 0.5
    assert np.abs(volume.array[20] - (2 * hu[19] + hu[22]) / 3).max() <= 0.51
    kept = [n for n in range(48) if n not in (5, 20, 21)]
    assert np.array_equal(volume.array[kept], series.hu[kept])


@pytest.mark.parametrize(
    ("step", "missing", "sentence"),
    [
        (5.0, range(1, 47, 4), "not evenly spaced or too many are missing: 12 of 48"),
        (5.0, range(20, 24), "gap of 25 mm where 4 slices are missing"),
    ],
)
def test_incomplete_series_are_refused(tmp_path: Path, step: float, missing: range, sentence: str) -> None:
    fine_chest(step).write(tmp_path, planes=[n for n in range(48) if n not in missing])
    with pytest.raises(InputError, match=sentence):
        read_volume(tmp_path)


def test_unevenly_spaced_slices_are_refused(tmp_path: Path) -> None:
    series = fine_chest()
    for n in range(48):
        position = ["-200", "-180", f"{100 + 5 * n + 0.03 * n * n:.3f}"]
        series.write_slice(tmp_path / f"{n}.dcm", n, ImagePositionPatient=position)
    with pytest.raises(InputError, match="not evenly spaced"):
        read_volume(tmp_path)


def test_rounding_of_the_slice_distance_does_not_add_up(tmp_path: Path) -> None:
    hu = chest_hu((200, 10, 12), (0.7, 36.0, 36.0))
    series = Series(hu, pixel_spacing_mm=(36, 36))
    for n in range(200):
        series.write_slice(tmp_path / f"{n}.dcm", n, ImagePositionPatient=["0", "0", f"{0.6667 * n:.2f}"])
    volume = read_volume(tmp_path)
    assert volume.provenance.missing_slices == 0
    assert np.isclose(volume.geometry.spacing_mm[0], 0.6667, atol=1e-4)


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    series = Series(HU)
    series.write_enhanced(tmp_path / "enhanced.dcm", order=np.random.default_rng(1).permutation(24).tolist())
    volume = read_volume(tmp_path / "enhanced.dcm")
    assert np.array_equal(volume.array, HU)
    assert np.allclose(volume.geometry.spacing_mm, (12, 9, 9))
    assert np.allclose(volume.geometry.origin_mm, series.origin_mm)


def test_what_the_header_tells(tmp_path: Path) -> None:
    Series(HU, attributes={"ConvolutionKernel": ["Br40f", "3"], "ContrastBolusAgent": "Iomeron"}).write(tmp_path)
    told = read_volume(tmp_path).provenance
    assert (told.kernel, told.contrast, told.slice_thickness_mm) == ("Br40f/3", True, 12.0)


def test_no_patient_in_what_is_told(tmp_path: Path) -> None:
    Series(HU).write(tmp_path)
    volume = read_volume(tmp_path)
    told = repr(volume.provenance)
    assert PATIENT.split("^")[0] not in told and "4711" not in told


def test_truncated_slices(tmp_path: Path) -> None:
    files = Series(HU).write(tmp_path)
    for file in files[3:5]:
        file.write_bytes(file.read_bytes()[:-1500])
    with pytest.raises(InputError, match="2 of the 24 slices are damaged or cut short; copy the series again"):
        read_volume(tmp_path)


def test_truncated_real_slice(shared_data: Path, tmp_path: Path) -> None:
    for file in sorted((shared_data / "ct" / "RICORD1A_001012").iterdir())[:56:4]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damaged = tmp_path / "1-009.dcm"
    damaged.write_bytes(damaged.read_bytes()[:60_000])
    with pytest.raises(InputError, match="1 of the 14 slices"):
        read_volume(tmp_path)


def test_slice_truncated_in_its_header_is_a_missing_slice(tmp_path: Path) -> None:
    series = fine_chest()
    files = series.write(tmp_path)
    files[7].write_bytes(files[7].read_bytes()[:300])
    volume = read_volume(tmp_path)
    assert volume.provenance.missing_slices == 1


def test_all_slices_undecodable(tmp_path: Path) -> None:
    for file in Series(HU).write(tmp_path):
        file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(InputError, match="None of the slices' pixels can be decoded"):
        read_volume(tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The folder is empty"):
        read_volume(tmp_path)


def test_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_volume(tmp_path)


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_other_modalities_are_no_chest_ct(tmp_path: Path, modality: str) -> None:
    Series(HU, attributes={"Modality": modality}).write(tmp_path)
    with pytest.raises(NotChestCTError, match=f"modality {modality}, not CT") as caught:
        read_volume(tmp_path)
    assert caught.value.exit_code == 3


def test_localisers_alone_are_no_chest_ct(tmp_path: Path) -> None:
    Series(HU[:2], attributes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}).write(tmp_path)
    with pytest.raises(NotChestCTError, match="only localisers"):
        read_volume(tmp_path)


def test_slices_without_positions(tmp_path: Path) -> None:
    Series(HU, attributes={"ImagePositionPatient": None}).write(tmp_path)
    with pytest.raises(NotChestCTError, match="no axial CT series"):
        read_volume(tmp_path)


def test_one_slice(tmp_path: Path) -> None:
    Series(HU).write(tmp_path, planes=[4])
    with pytest.raises(InputError, match="single slice"):
        read_volume(tmp_path)


def test_few_slices(tmp_path: Path) -> None:
    Series(HU).write(tmp_path, planes=range(5))
    with pytest.raises(InputError, match="only 5 slices, fewer than the 8 needed"):
        read_volume(tmp_path)


def test_five_thousand_slices_are_refused_by_their_headers(tmp_path: Path) -> None:
    write_many_slices(tmp_path, 5000)
    with pytest.raises(InputError, match="5000 slices, more than the 3000 accepted"):
        read_volume(tmp_path)


def test_zero_pixel_spacing(tmp_path: Path) -> None:
    Series(HU, pixel_spacing_mm=(0, 9)).write(tmp_path)
    with pytest.raises(InputError, match="not positive"):
        read_volume(tmp_path)


def test_orientation_that_spans_no_plane(tmp_path: Path) -> None:
    Series(HU, (1, 0, 0, 1, 0, 0)).write(tmp_path)
    with pytest.raises(InputError, match="orientation is not valid"):
        read_volume(tmp_path)


def test_no_read_permission(tmp_path: Path, unprivileged) -> None:
    for file in Series(HU).write(tmp_path):
        file.chmod(0)
    with unprivileged(tmp_path), pytest.raises(InputError, match=r"24 file\(s\) of the folder may not be read"):
        read_volume(tmp_path)


def test_reading_can_be_cancelled(tmp_path: Path) -> None:
    Series(HU).write(tmp_path)
    asked = iter(range(1000))
    with pytest.raises(Cancelled):
        read_volume(tmp_path, Progress(is_cancelled=lambda: next(asked) >= 12))
    assert next(asked) == 13, "asked again after the cancellation"


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; check the path"):
        read_volume(tmp_path / "nowhere")

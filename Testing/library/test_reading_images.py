"""NIfTI, NRRD and MetaImage: geometry without loss, and a sentence for whatever is wrong."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.errors import InputError, NotChestCTError
from COVIDMultitaskLib.reading import read_label_map, read_volume
from COVIDMultitaskLib.reading.nifti import NIFTI1, NIFTI2
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Volume
from COVIDMultitaskLib.writing import write_volume
from Testing.library.simple_chest import chest_hu, chest_volume

SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".mha"]
HU = chest_hu((10, 12, 14), (25.0, 30.0, 32.0))


def written_by_itk(path: Path, array: np.ndarray, **kwargs) -> Path:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array, **kwargs)
    image.SetSpacing((9.0, 9.0, 12.0, 1.0)[: image.GetDimension()])
    sitk.WriteImage(image, str(path))
    return path


def edited(path: Path, pattern: bytes, replacement: bytes) -> Path:
    """Another header line in a text header."""
    content, count = re.subn(pattern, replacement, path.read_bytes(), count=1)
    assert count == 1
    path.write_bytes(content)
    return path


def edited_nifti(path: Path, **fields) -> Path:
    """Other header fields in an unpacked NIfTI-1."""
    content = bytearray(path.read_bytes())
    header = np.frombuffer(content, NIFTI1, count=1)
    for name, value in fields.items():
        header[name][0] = value
    path.write_bytes(content)
    return path


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Oblique, flipped, permuted, anisotropic and sheared grids."""
    from scipy.spatial.transform import Rotation

    angle = st.floats(-3.1, 3.1)
    direction = Rotation.from_euler("xyz", [draw(angle) for _ in range(3)]).as_matrix()[
        :, draw(st.permutations(range(3)))
    ]
    direction = direction * [draw(st.sampled_from([-1, 1])) for _ in range(3)]
    third = direction[:, 0] + draw(st.floats(-0.5, 0.5)) * direction[:, 1]
    direction = np.column_stack([third / np.linalg.norm(third), direction[:, 1:]])
    spacing = [draw(st.floats(20.0, 60.0)) for _ in range(3)]
    origin = [draw(st.floats(-500.0, 500.0)) for _ in range(3)]
    return Geometry(HU.shape, tuple(spacing), tuple(origin), direction)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries(), dtype=st.sampled_from([np.int16, np.int32, np.float32, np.float64]))
def test_what_is_written_is_read(tmp_path_factory, suffix: str, geometry: Geometry, dtype: type) -> None:
    path = tmp_path_factory.mktemp("volume") / f"scan{suffix}"
    write_volume(Volume(HU.astype(dtype), geometry), path)
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, HU)
    assert volume.geometry.is_close_to(geometry, 1e-3 if ".nii" in suffix else 1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_itk_reads_what_is_written(tmp_path: Path, suffix: str) -> None:
    import SimpleITK as sitk
    from scipy.spatial.transform import Rotation

    direction = Rotation.from_euler("xyz", (0.3, 0.2, -2.0)).as_matrix() * [-1, 1, 1]
    volume = chest_volume(direction=direction)
    write_volume(volume, tmp_path / f"scan{suffix}")
    image = sitk.ReadImage(str(tmp_path / f"scan{suffix}"))
    assert np.array_equal(sitk.GetArrayViewFromImage(image), volume.array)
    assert Volume.from_sitk(image).geometry.is_close_to(volume.geometry, 1e-2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_itk_writes_is_read(tmp_path: Path, suffix: str) -> None:
    path = written_by_itk(tmp_path / f"scan{suffix}", chest_hu())
    volume = read_volume(path)
    assert np.array_equal(volume.array, chest_hu())
    assert volume.geometry.is_close_to(Geometry((24, 40, 48), (12, 9, 9), (0, 0, 0)))


def test_real_nifti_agrees_with_itk(shared_data: Path) -> None:
    import SimpleITK as sitk

    for name in ("imlab_id001", "imlab_id002", "LungDx_A0001_s2"):
        path = shared_data / "ct" / f"{name}.nii.gz"
        image = sitk.ReadImage(str(path))
        volume = read_volume(path)
        assert np.array_equal(volume.array, sitk.GetArrayViewFromImage(image))
        assert volume.geometry.is_close_to(Volume.from_sitk(image).geometry, 1e-2)


def test_fractional_values_stay_floats(tmp_path: Path) -> None:
    volume = chest_volume()
    write_volume(volume.with_array(volume.array + np.float32(0.25)), tmp_path / "scan.nii.gz")
    array = read_volume(tmp_path / "scan.nii.gz").array
    assert array.dtype == np.float32
    assert np.array_equal(array, volume.array + np.float32(0.25))


def test_nifti_slope_is_applied(tmp_path: Path) -> None:
    volume = chest_volume()
    write_volume(volume.with_array(((volume.array + 1024) // 2).astype(np.int16)), tmp_path / "scan.nii")
    edited_nifti(tmp_path / "scan.nii", scl_slope=2.0, scl_inter=-1024.0)
    assert np.abs(read_volume(tmp_path / "scan.nii").array - volume.array).max() <= 1


def test_nifti_without_slope_ignores_the_intercept(tmp_path: Path) -> None:
    write_volume(chest_volume(), tmp_path / "scan.nii")
    edited_nifti(tmp_path / "scan.nii", scl_slope=np.nan, scl_inter=np.nan)
    assert np.array_equal(read_volume(tmp_path / "scan.nii").array, chest_hu())


@pytest.mark.parametrize("flip", [1, -1])
def test_nifti_qform_alone(tmp_path: Path, flip: int) -> None:
    from scipy.spatial.transform import Rotation

    volume = chest_volume(direction=Rotation.from_euler("xyz", (0.3, -2.2, 1.0)).as_matrix() * [1, 1, flip])
    write_volume(volume, tmp_path / "scan.nii")
    edited_nifti(tmp_path / "scan.nii", sform_code=0, srow=np.zeros((3, 4)))
    assert read_volume(tmp_path / "scan.nii").geometry.is_close_to(volume.geometry, 1e-2)


def test_nifti_whose_forms_differ_is_said(tmp_path: Path) -> None:
    volume = chest_volume()
    write_volume(volume, tmp_path / "scan.nii")
    edited_nifti(tmp_path / "scan.nii", qoffset=(1, 2, 3))
    got = read_volume(tmp_path / "scan.nii")
    assert got.geometry.is_close_to(volume.geometry)
    assert "sform and qform differ" in got.provenance.notes[0]


def test_nifti_without_orientation_lies_where_itk_puts_it(tmp_path: Path) -> None:
    import SimpleITK as sitk

    write_volume(chest_volume(), tmp_path / "scan.nii")
    edited_nifti(tmp_path / "scan.nii", sform_code=0, qform_code=0)
    got = read_volume(tmp_path / "scan.nii")
    assert got.geometry.is_close_to(Volume.from_sitk(sitk.ReadImage(str(tmp_path / "scan.nii"))).geometry, 1e-2)
    assert "no orientation" in got.provenance.notes[0]


def test_nifti_in_metres(tmp_path: Path) -> None:
    volume = chest_volume()
    small = Geometry(volume.geometry.shape, (0.012, 0.009, 0.009), tuple(o / 1000 for o in volume.geometry.origin_mm))
    write_volume(Volume(volume.array, small), tmp_path / "scan.nii")
    edited_nifti(tmp_path / "scan.nii", xyzt_units=1)
    assert read_volume(tmp_path / "scan.nii").geometry.is_close_to(volume.geometry, 1e-2)


@pytest.mark.parametrize("layout", [NIFTI1, NIFTI2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_layout_and_byte_order(tmp_path: Path, layout: np.dtype, order: str) -> None:
    volume = chest_volume()
    header = np.zeros((), layout.newbyteorder(order))
    header["sizeof_hdr"] = layout.itemsize
    header["dim"] = [3, 48, 40, 24, 1, 1, 1, 1]
    header["datatype"], header["bitpix"], header["vox_offset"] = 4, 16, 544
    header["magic"] = b"n+1" if layout is NIFTI1 else b"n+2\0\r\n\x1a\n"
    header["srow"] = (np.diag([-1, -1, 1, 1]) @ volume.geometry.affine[:, [2, 1, 0, 3]])[:3]
    header["sform_code"] = 1
    voxels = volume.array.astype(f"{order}i2").tobytes()
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(header.tobytes().ljust(544, b"\0") + voxels))
    got = read_volume(tmp_path / "scan.nii.gz")
    assert np.array_equal(got.array, volume.array)
    assert got.array.dtype.isnative
    assert got.geometry.is_close_to(volume.geometry, 1e-2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_four_dimensions_with_one_frame(tmp_path: Path, suffix: str) -> None:
    path = written_by_itk(tmp_path / f"scan{suffix}", chest_hu()[None], isVector=False)
    volume = read_volume(path)
    assert np.array_equal(volume.array, chest_hu())
    assert np.allclose(volume.geometry.spacing_mm, (12, 9, 9))


def refuse(path: Path, sentence: str, kind: type[Exception] = InputError) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        read_volume(path)
    message = str(caught.value)
    assert "\n" not in message and "itk" not in message.lower() and "/tmp" not in message


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_real_four_dimensions(tmp_path: Path, suffix: str) -> None:
    refuse(
        written_by_itk(tmp_path / f"s{suffix}", np.stack([chest_hu()] * 3), isVector=False), "4 dimensions .3 frames"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_dimensions(tmp_path: Path, suffix: str) -> None:
    refuse(written_by_itk(tmp_path / f"s{suffix}", chest_hu()[12]), "two dimensions; give a whole chest CT")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_colour(tmp_path: Path, suffix: str) -> None:
    colour = np.stack([chest_hu().astype(np.uint8)] * 3, axis=-1)
    refuse(written_by_itk(tmp_path / f"s{suffix}", colour, isVector=True), "colour")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_slice(tmp_path: Path, suffix: str) -> None:
    refuse(written_by_itk(tmp_path / f"s{suffix}", chest_hu()[12:13]), "single slice")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_few_slices(tmp_path: Path, suffix: str) -> None:
    refuse(written_by_itk(tmp_path / f"s{suffix}", chest_hu()[:7]), "only 7 slices, fewer than the 8 needed")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_file(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"s{suffix}").write_text("This is not an image.\n" * 50)
    refuse(tmp_path / f"s{suffix}", f"s{re.escape(suffix)} is not a .*damaged")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"s{suffix}").touch()
    refuse(tmp_path / f"s{suffix}", "is not a .*damaged")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated(tmp_path: Path, capfd, suffix: str, share: float) -> None:
    path = tmp_path / f"scan{suffix}"
    write_volume(chest_volume(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuse(path, "truncated|damaged")
    assert capfd.readouterr().err == ""


def test_truncated_uncompressed_meta_image(tmp_path: Path, capfd) -> None:
    path = written_by_itk(tmp_path / "scan.mha", chest_hu())
    path.write_bytes(path.read_bytes()[:-100])
    refuse(path, "truncated")
    assert capfd.readouterr().err == ""


def test_meta_header_without_its_voxels(tmp_path: Path) -> None:
    path = written_by_itk(tmp_path / "scan.mhd", chest_hu())
    assert np.array_equal(read_volume(path).array, chest_hu())
    (tmp_path / "scan.raw").unlink()
    refuse(path, "not beside it; copy both")


def test_damaged_gzip(tmp_path: Path) -> None:
    write_volume(chest_volume(), tmp_path / "scan.nii.gz")
    content = bytearray((tmp_path / "scan.nii.gz").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (tmp_path / "scan.nii.gz").write_bytes(content)
    refuse(tmp_path / "scan.nii.gz", "truncated or damaged; copy it again")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    import SimpleITK as sitk

    path = tmp_path / f"slice{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(chest_hu()[12].astype(np.uint8)), str(path))
    refuse(path, "pictures; only volumes are accepted")


def test_pairs_of_files(tmp_path: Path) -> None:
    refuse(written_by_itk(tmp_path / "scan.img", chest_hu()), "one of a pair of files; save the scan as a single")


def test_zero_spacing(tmp_path: Path) -> None:
    sentence = "spacing .* is (zero|not positive).*correct the"
    refuse(edited(written_by_itk(tmp_path / "a.mha", HU), rb"ElementSpacing = \S+", b"ElementSpacing = 0"), sentence)
    refuse(edited(written_by_itk(tmp_path / "a.nrrd", HU), rb"directions: \([^)]*\)", b"directions: (0,0,0)"), sentence)
    written_by_itk(tmp_path / "a.nii", HU)
    refuse(edited_nifti(tmp_path / "a.nii", srow=np.diag([9.0, 9.0, 0.0, 1.0])[:3]), sentence)


def test_direction_that_cannot_be_inverted(tmp_path: Path) -> None:
    sentence = "direction matrix.* cannot be inverted"
    bad_matrix = b"TransformMatrix = 1 0 0 0 1 0 0 1 0\n"
    refuse(edited(written_by_itk(tmp_path / "a.mha", HU), rb"TransformMatrix = .*\n", bad_matrix), sentence)
    refuse(edited(written_by_itk(tmp_path / "a.nrrd", HU), rb"directions: \([^)]*\)", b"directions: (0,9,0)"), sentence)
    written_by_itk(tmp_path / "a.nii", HU)
    refuse(edited_nifti(tmp_path / "a.nii", srow=[[9, 0, 0, 0], [0, 9, 9, 0], [0, 9, 9, 0]]), sentence)


def test_geometry_that_is_not_a_number(tmp_path: Path) -> None:
    written_by_itk(tmp_path / "a.nii", HU)
    refuse(edited_nifti(tmp_path / "a.nii", srow=np.full((3, 4), np.nan)), "not a number")


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_five_thousand_slices_are_refused_before_the_voxels(tmp_path: Path, suffix: str) -> None:
    path = written_by_itk(tmp_path / f"scan{suffix}", chest_hu())
    if suffix == ".nii":
        edited_nifti(path, dim=[3, 48, 40, 5000, 1, 1, 1, 1])
    elif suffix == ".nrrd":
        edited(path, rb"sizes: 48 40 24", b"sizes: 48 40 5000")
    else:
        edited(path, rb"DimSize = 48 40 24", b"DimSize = 48 40 5000")
        os.truncate(path, 48 * 40 * 5000 * 2 + 1000)
    refuse(path, "5000 slices, more than the 3000 accepted")


def test_a_volume_beyond_the_memory_is_refused_before_the_voxels(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("COVIDMultitaskLib.reading.bounds.physical_memory_bytes", lambda: 100_000)
    refuse(written_by_itk(tmp_path / "scan.nii", chest_hu()), "of memory and this machine has")


@pytest.mark.parametrize(("spacing", "sentence"), [(0.5, "covers only 12 mm"), (200.0, "covers 9.6 m")])
def test_impossible_field_of_view(tmp_path: Path, spacing: float, sentence: str) -> None:
    volume = chest_volume()
    write_volume(Volume(volume.array, Geometry(volume.array.shape, (spacing,) * 3, (0, 0, 0))), tmp_path / "s.nrrd")
    refuse(tmp_path / "s.nrrd", sentence)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_values_that_are_not_finite(tmp_path: Path, suffix: str, value: float) -> None:
    volume = chest_volume()
    array = volume.array.astype(np.float32)
    array[3, 4, 5:8] = value
    write_volume(volume.with_array(array), tmp_path / f"s{suffix}")
    refuse(tmp_path / f"s{suffix}", "3 voxels are NaN or infinite")


def test_infinities_of_both_signs(tmp_path: Path) -> None:
    volume = chest_volume()
    array = volume.array.astype(np.float64)
    array[0, 0, 0], array[1, 1, 1] = np.inf, -np.inf
    write_volume(volume.with_array(array), tmp_path / "s.nrrd")
    refuse(tmp_path / "s.nrrd", "2 voxels are NaN or infinite")


def test_constant_image(tmp_path: Path) -> None:
    write_volume(chest_volume().with_array(np.full((24, 40, 48), -1000, np.int16)), tmp_path / "s.nrrd")
    refuse(tmp_path / "s.nrrd", "same value .-1000.; the image is empty")


def test_mr_like(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    hu = chest_hu()
    mr = np.where(hu < -500, 20, np.where(hu > 300, 900, 420)) + rng.rayleigh(30, hu.shape)
    write_volume(chest_volume().with_array(mr.astype(np.uint16)), tmp_path / "mr.nii.gz")
    refuse(tmp_path / "mr.nii.gz", "not Hounsfield units .* as in MR images", NotChestCTError)
    bright = np.clip(np.where(hu < -500, 2, 215) + rng.normal(0, 3, hu.shape), 0, 255)
    write_volume(chest_volume().with_array(bright.astype(np.uint8)), tmp_path / "8bit.nii.gz")
    refuse(tmp_path / "8bit.nii.gz", "not Hounsfield units", NotChestCTError)
    normalised = (mr - mr.mean()) / mr.std()
    write_volume(chest_volume().with_array(normalised.astype(np.float32)), tmp_path / "z.nii.gz")
    refuse(tmp_path / "z.nii.gz", "not Hounsfield units", NotChestCTError)


def test_label_map_is_no_ct(tmp_path: Path) -> None:
    labels = (chest_hu() < -500).astype(np.uint8) * 3
    write_volume(chest_volume().with_array(labels), tmp_path / "labels.nrrd")
    refuse(tmp_path / "labels.nrrd", "as a label map does; give the CT itself", NotChestCTError)
    got = read_label_map(tmp_path / "labels.nrrd")
    assert np.array_equal(got.array, labels) and got.array.dtype == np.uint8


def test_label_map_in_floats(tmp_path: Path) -> None:
    labels = (chest_hu() < -500).astype(np.float64) * 3
    write_volume(chest_volume().with_array(labels), tmp_path / "labels.nii.gz")
    assert np.array_equal(read_label_map(tmp_path / "labels.nii.gz").array, labels)
    write_volume(chest_volume().with_array(labels + 0.5), tmp_path / "labels.nii.gz")
    with pytest.raises(InputError, match="not integers"):
        read_label_map(tmp_path / "labels.nii.gz")


@pytest.mark.parametrize("padding", [-3024, -100_000])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_padding_becomes_air(tmp_path: Path, suffix: str, padding: int) -> None:
    array = chest_hu().astype(np.int32)
    array[:, :5] = padding
    write_volume(chest_volume().with_array(array), tmp_path / f"s{suffix}")
    volume = read_volume(tmp_path / f"s{suffix}")
    assert volume.array.dtype == np.int16
    assert (volume.array[:, :5] == -1024).all()
    assert any(f"down to {padding:g}" in note for note in volume.provenance.notes)


def windowed(low: float, high: float, top: float, dtype: type) -> np.ndarray:
    grey = (chest_hu().astype(np.float64) - low) / (high - low) * top
    grey = np.clip(grey, 0, top)
    return (np.rint(grey) if np.issubdtype(dtype, np.integer) else grey).astype(dtype)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (windowed(-1250, 250, 255, np.uint8), "0 to 255 were taken for a window of -1250 to 250 HU"),
        (windowed(-1400, 100, 1, np.float32), "0 to 1 were taken for a scale of -1400 to 100 HU"),
    ],
)
def test_windowed_scans_come_back_to_hounsfield(tmp_path: Path, array: np.ndarray, sentence: str) -> None:
    write_volume(chest_volume().with_array(array), tmp_path / "s.nii.gz")
    volume = read_volume(tmp_path / "s.nii.gz")
    assert volume.intensity is IntensityKind.HOUNSFIELD
    assert volume.array.dtype == np.int16
    assert any(sentence in note for note in volume.provenance.notes)
    inside = (chest_hu() > -1020) & (chest_hu() < 90)
    assert np.abs(volume.array[inside] - chest_hu()[inside]).max() <= 3


@pytest.mark.parametrize("window", [(-160, 240), (-20, 80)])
def test_picture_of_another_window_is_refused(tmp_path: Path, window: tuple[int, int]) -> None:
    write_volume(chest_volume().with_array(windowed(*window, 255, np.uint8)), tmp_path / "s.nrrd")
    refuse(tmp_path / "s.nrrd", "pictures of unknown window", NotChestCTError)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.nii\.gz does not exist; check the path"):
        read_volume(tmp_path / "nowhere.nii.gz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_read_permission(tmp_path: Path, unprivileged, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    write_volume(chest_volume(), path)
    path.chmod(0)
    with unprivileged(tmp_path):
        refuse(path, "may not be read; ask for permission")


def test_folder_without_passage(tmp_path: Path, unprivileged) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    write_volume(chest_volume(), closed / "s.nrrd")
    closed.chmod(0)
    with unprivileged(tmp_path), pytest.raises(InputError, match="may not be read"):
        read_volume(closed / "s.nrrd")
    closed.chmod(0o755)


def test_names_with_other_letters(tmp_path: Path) -> None:
    path = tmp_path / "Größe 検査.nii.gz"
    write_volume(chest_volume(), path)
    assert np.array_equal(read_volume(str(path)).array, chest_hu())

"""Pictures of slices: what is read, what is refused, and where their lungs seem to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.preparation.picture import lung_part, picture_to_hu
from COVIDMultitaskLib.reading.picture import is_picture, read_picture
from COVIDMultitaskLib.volume import IntensityKind

LEFT, RIGHT = (0.30, 0.5), (0.70, 0.5)
"""Centres of the lungs, as shares of (width, height)."""
RADII = (0.15, 0.3)


def chest_picture(shape: tuple[int, int] = (160, 200), window: tuple[float, float] = (-1250.0, 250.0)) -> np.ndarray:
    """A slice with air around an oval body, two lungs and some noise, uint8 (y, x) in a window."""
    y, x = ((np.arange(n) + 0.5) / n for n in shape)
    y, x = y[:, None], x[None, :]
    hu = np.full(shape, -1000.0)
    hu[((x - 0.5) / 0.47) ** 2 + ((y - 0.5) / 0.45) ** 2 < 1] = 40
    hu[_lungs(shape)] = -850
    hu += np.random.default_rng(0).normal(0, 25, shape)
    low, high = window
    return np.clip(255 * (hu - low) / (high - low), 0, 255).astype(np.uint8)


def _lungs(shape: tuple[int, int]) -> np.ndarray:
    y, x = ((np.arange(n) + 0.5) / n for n in shape)
    ovals = [((x[None] - cx) / RADII[0]) ** 2 + ((y[:, None] - cy) / RADII[1]) ** 2 < 1 for cx, cy in (LEFT, RIGHT)]
    return ovals[0] | ovals[1]


def write_grey(array: np.ndarray, path: Path) -> Path:
    from PIL import Image

    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(("suffix", "format"), [(".png", "PNG"), (".JPG", "JPEG"), (".jpeg", "JPEG")])
def test_grey_values_are_read_as_they_are(tmp_path: Path, suffix: str, format: str) -> None:
    grey = chest_picture()
    volume = read_picture(write_grey(grey, tmp_path / f"slice{suffix}"))
    assert volume.array.shape == (1, *grey.shape) and volume.intensity is IntensityKind.PICTURE
    assert np.abs(volume.array[0].astype(int) - grey).max() <= (0 if format == "PNG" else 40)
    assert volume.provenance.format == format and volume.provenance.notes == ()
    assert is_picture(f"a/b{suffix}") and not is_picture("a/b.nii.gz")


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    deep = chest_picture().astype(np.uint16) * 200
    assert np.array_equal(read_picture(write_grey(deep, tmp_path / "deep.png")).array[0], deep)


@pytest.mark.parametrize("channels", [3, 4])
def test_grey_in_colour_channels_is_grey(tmp_path: Path, channels: int) -> None:
    grey = chest_picture()
    stack = np.repeat(grey[:, :, None], channels, axis=2)
    if channels == 4:
        stack[..., 3] = 255
    volume = read_picture(write_grey(stack, tmp_path / "rgb.png"))
    np.testing.assert_allclose(volume.array[0], grey, atol=0.01)
    assert volume.provenance.notes == ()


def test_colours_become_grey_and_it_is_said(tmp_path: Path) -> None:
    stack = np.repeat(chest_picture()[:, :, None], 3, axis=2)
    stack[20:40, 20:40] = (255, 0, 0)
    volume = read_picture(write_grey(stack, tmp_path / "overlay.png"))
    assert volume.array[0, 30, 30] == pytest.approx(0.299 * 255, abs=0.1)
    assert "colours were turned to grey" in volume.provenance.notes[0]


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((63, 100), np.uint8), "has 100 x 63 pixels; give a slice of 64 to 8192"),
        (np.zeros((100, 100), np.uint8), "holds only a few grey values"),
        ((np.indices((100, 100)).sum(0) % 3 * 100).astype(np.uint8), "holds only a few grey values"),
    ],
    ids=["small", "constant", "mask"],
)
def test_what_is_no_slice_is_refused(tmp_path: Path, array: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_picture(write_grey(array, tmp_path / "bad.png"))


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=r"^bad.png cannot be read as a picture; save it as PNG or JPEG again\.$"):
        read_picture(tmp_path / "bad.png")


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    path = write_grey(chest_picture(), tmp_path / "bad.png")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_picture(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_picture(tmp_path / "nowhere.png")


# -- where the lungs are


def extent(part: tuple[slice, slice], shape: tuple[int, int]) -> np.ndarray:
    return np.array([[part[0].start, part[0].stop], [part[1].start, part[1].stop]]) / np.array(shape)[:, None]


LUNG_BOX = np.array([[0.5 - 0.3, 0.5 + 0.3], [0.3 - 0.15, 0.7 + 0.15]])


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(100, 500),
    width=st.integers(100, 500),
    window=st.sampled_from([(-1250.0, 250.0), (-1000.0, 400.0), (-1150.0, 350.0), (-160.0, 240.0)]),
    border=st.integers(0, 60),
)
def test_a_whole_slice_is_cut_to_its_lungs(height: int, width: int, window, border: int) -> None:
    grey = np.pad(chest_picture((height, width), window), border)
    part = lung_part(grey)
    inner = extent(tuple(slice(one.start - border, one.stop - border) for one in part), (height, width))
    margin = 0.03 * (1 + 2 * border / min(height, width))
    assert (inner[:, 0] <= LUNG_BOX[:, 0] + 0.02).all() and (inner[:, 1] >= LUNG_BOX[:, 1] - 0.02).all()
    assert (np.abs(inner - LUNG_BOX) < margin + 0.03).all()


def test_a_slice_that_is_cut_already_stays() -> None:
    whole = chest_picture((400, 500))
    cut = whole[80:320, 75:425]  # the very box of the lungs, which touch its sides
    rows, columns = lung_part(cut)
    assert rows.stop - rows.start > 0.95 * cut.shape[0] and columns.stop - columns.start > 0.95 * cut.shape[1]


def test_lungs_alone_on_black_are_cut_out() -> None:
    grey = np.where(_lungs((200, 300)), chest_picture((200, 300)), 0).astype(np.uint8)
    grey[_lungs((200, 300))] += 60
    np.testing.assert_allclose(extent(lung_part(grey), grey.shape), LUNG_BOX, atol=0.05)


def test_without_lungs_all_of_it_stays() -> None:
    body = np.random.default_rng(0).normal(200, 8, (120, 150)).clip(0, 255).astype(np.uint8)
    assert lung_part(body) == (slice(0, 120), slice(0, 150))


@pytest.mark.parametrize("window", [(-1250.0, 250.0), (-1000.0, 400.0)])
def test_the_guess_at_hu_is_near_in_every_lung_window(window: tuple[float, float]) -> None:
    grey = chest_picture((200, 300), window)
    part = lung_part(grey)
    hu = picture_to_hu(grey[part])
    lungs = _lungs(grey.shape)[part]
    assert np.median(hu[lungs]) == pytest.approx(-850, abs=60) and np.median(hu[~lungs]) == pytest.approx(40, abs=60)

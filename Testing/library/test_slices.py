"""A single slice on the network's grid, and what the network finds there back on the slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.inference.slices import (
    SLAB_DEPTH,
    SMALLEST_FIELD,
    SliceEngine,
    lesion_probabilities,
    slab,
    slab_labels,
)
from COVIDMultitaskLib.networks.joint import SIDE_MULTIPLE, Segmentation
from COVIDMultitaskLib.preparation.intensity import clipped_hu
from Testing.library.tiny_bundle import random_network, write_tiny_bundle


class Threshold(torch.nn.Module):
    """Instead of a network: whatever is denser than -500 HU is ground-glass, and consolidation above 0 HU."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def segment(self, image: torch.Tensor) -> Segmentation:
        hu = clipped_hu(image[:, 0])
        classes = (hu > -500).long() + (hu > 0)
        return Segmentation(image, 20 * torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float(), image)


def a_slice(rows: int = 90, columns: int = 120) -> np.ndarray:
    """Lung with a dense block at the upper left and a denser one at the lower right."""
    hu = np.full((rows, columns), -850, np.float32)
    hu[: rows // 3, : columns // 4] = -300
    hu[rows // 2 :, columns // 2 :] = 50
    return hu


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.floats(0.3, 3.0))
def test_a_slab_has_sides_the_network_takes(rows: int, columns: int, pixel_mm: float) -> None:
    made = slab(torch.zeros(2, rows, columns), pixel_mm, 2.5)
    assert made.shape[:3] == (2, 1, SLAB_DEPTH)
    assert all(
        side % SIDE_MULTIPLE == 0 and side >= least for side, least in zip(made.shape[3:], SMALLEST_FIELD, strict=True)
    )


def test_the_slice_lies_in_the_middle_of_air_at_the_networks_spacing() -> None:
    made = clipped_hu(slab(torch.zeros(1, 100, 200), 1.25, 2.5))
    assert made.shape == (1, 1, SLAB_DEPTH, *SMALLEST_FIELD)
    inside = made[0, 0, 3, 47:97, 38:138]
    assert torch.allclose(inside, torch.zeros(()), atol=0.1)
    outside = torch.ones(SMALLEST_FIELD, dtype=torch.bool)
    outside[47:97, 38:138] = False
    assert torch.allclose(made[0, 0, 3][outside], torch.tensor(-1024.0))


def test_labels_lie_where_their_slab_is() -> None:
    hu = torch.from_numpy(a_slice())
    labels = (hu > -500).to(torch.uint8) + (hu > 0).to(torch.uint8)
    seen = clipped_hu(slab(hu[None], 1.3, 2.5))[0, 0]
    on_grid = slab_labels(labels[None], 1.3, 2.5, outside=255)[0]
    assert on_grid.shape == seen.shape and on_grid.dtype == torch.uint8
    within = on_grid != 255
    assert int(within[0].sum()) == round(90 * 1.3 / 2.5) * round(120 * 1.3 / 2.5)
    expected = (seen > -500).to(torch.uint8) + (seen > 0).to(torch.uint8)
    assert float((on_grid == expected)[within].float().mean()) > 0.97  # all but the blocks' borders
    assert set(on_grid[within].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("size", "pixel_mm"), [((90, 120), 2.5), ((360, 480), 0.7), ((61, 87), 4.1), ((500, 500), 2)])
def test_what_is_found_comes_back_to_its_place(size: tuple[int, int], pixel_mm: float, mirrored: bool) -> None:
    hu = a_slice(*size)
    found = lesion_probabilities(Threshold(), hu, pixel_mm, 2.5, mirrored)
    assert found.shape == (3, *size) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    truth = (hu > -500).astype(int) + (hu > 0)
    assert (found.argmax(0) == truth).mean() > 0.97
    middle = found[:, size[0] // 6, size[1] // 8]
    assert middle[1] > 0.99


def test_several_sizes_are_averaged() -> None:
    network, hu = random_network(), a_slice()
    small, large = (lesion_probabilities(network, hu, size, 2.5) for size in (1.5, 2.5))
    assert not np.allclose(small, large, atol=1e-3)
    np.testing.assert_allclose(lesion_probabilities(network, hu, [1.5, 2.5], 2.5), (small + large) / 2, atol=1e-6)


def test_the_mirrored_average_mirrors_with_the_slice() -> None:
    network, hu = random_network(), a_slice()
    found = lesion_probabilities(network, hu, 2.5, 2.5, mirrored=True)
    again = lesion_probabilities(network, hu[:, ::-1], 2.5, 2.5, mirrored=True)
    np.testing.assert_allclose(again[..., ::-1], found, atol=1e-5)


def test_the_joint_engine_answers_for_a_slice(tmp_path: Path) -> None:
    engine = make_engine(None, write_tiny_bundle(tmp_path / "bundle", network=random_network()), "cpu")
    assert isinstance(engine, SliceEngine)
    assert engine.predict_slice(a_slice(), 2.5).shape == (3, 90, 120)

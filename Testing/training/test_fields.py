"""What part of a scan a network is shown while it learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.preparation.grid import AIR_HU
from training.data.dataset import Case
from training.data.record import NOT_ANNOTATED, Record
from training.engines.fields import MARGIN_MM, in_some_field
from training.learning.sampling import collate_for_networks

SPACING_MM = 5.0


def chest(shape: tuple[int, int, int] = (40, 44, 60), **more: torch.Tensor) -> Case:
    """Every voxel tells where it is; the lungs lie within, nearer to the front than to the back."""
    z, y, x = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    lobes = torch.zeros(shape, dtype=torch.uint8)
    lobes[8:30, 9:27, 10:50] = 1
    lobes[8:20, 9:27, 30:50] = 2
    return Case(Record("chest", "test", ""), (z * 10000 + y * 100 + x).float(), lobes=lobes, **more)


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_a_field_holds_the_lungs_with_a_margin_and_moves_nothing(seed: int) -> None:
    batch = collate_for_networks([chest()])
    shown = in_some_field(batch, SPACING_MM, torch.Generator().manual_seed(seed))
    hu, lobes = shown["hu"][0], shown["lobes"][0]
    assert hu.shape == lobes.shape and all(n % 16 == 0 for n in hu.shape)
    places = hu[(lobes == 1) | (lobes == 2)]
    assert len(places) == 22 * 18 * 40, "all of the lungs is seen"
    same = hu != AIR_HU
    told = hu[same].long()
    before = batch["lobes"][0][told // 10000, told // 100 % 100, told % 100]
    assert torch.equal(before, lobes[same]), "each voxel keeps its label"
    assert set(lobes[~same].unique().tolist()) <= {NOT_ANNOTATED}
    for axis, length in enumerate((22, 18, 40)):
        seen = ((lobes == 1) | (lobes == 2)).amax([other for other in range(3) if other != axis]).nonzero().flatten()
        near, far = int(seen[0]), hu.shape[axis] - 1 - int(seen[-1])
        least, most = (margin / SPACING_MM for margin in MARGIN_MM)
        assert int(seen[-1]) - int(seen[0]) + 1 == length
        assert min(near, far) >= least - 1 and near + far <= 2 * most + 16


def test_fields_differ_and_depend_on_chance_alone() -> None:
    batch = collate_for_networks([chest()])
    fields = [
        in_some_field(batch, SPACING_MM, torch.Generator().manual_seed(seed))["hu"] for seed in (1, 1, 2, 3, 4, 5)
    ]
    assert torch.equal(fields[0], fields[1]) and len({tuple(one.shape) for one in fields}) > 1


def test_flags_of_slices_go_with_their_slices() -> None:
    flags = torch.arange(40, dtype=torch.uint8)
    case = chest(slice_flags=flags, lobe_flags=flags[:, None].expand(40, 5).contiguous())
    batch = collate_for_networks([case])
    shown = in_some_field(batch, SPACING_MM, torch.Generator().manual_seed(7))
    inside = shown["hu"][0].amax((1, 2)) != AIR_HU
    assert torch.equal(shown["slice_flags"][0][inside].float(), shown["hu"][0][inside].amax((1, 2)) // 10000)
    assert torch.equal(shown["lobe_flags"][0, :, 2], shown["slice_flags"][0])
    assert (shown["slice_flags"][0][~inside] == NOT_ANNOTATED).all()


@pytest.mark.parametrize("mask", [None, torch.zeros(40, 44, 60, dtype=torch.uint8)])
def test_without_known_lungs_the_whole_scan_is_shown(mask: torch.Tensor | None) -> None:
    bare = chest()
    batch = collate_for_networks([Case(bare.record, bare.hu, lobes=mask)])
    assert in_some_field(batch, SPACING_MM, torch.Generator().manual_seed(0)) is batch

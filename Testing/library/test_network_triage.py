"""The triage network is the published one, and takes lung boxes of any size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.networks.triage import VARIANTS, TriageNetwork, pyramid_max_pool

pytestmark = pytest.mark.usefixtures("one_thread")

BINS = (1, 2, 4, 8)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_widths_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = TriageNetwork()
    assert parameters(network.backbone) == 10_581_904
    assert parameters(network.lesion_head) == 1_208
    assert parameters(network.class_head) == 4_794_368
    assert parameters(network) == 15_377_480


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(5, 33, 47), (1, 8, 8), (9, 70, 64)])
def test_any_size_of_box(variant: str, size: tuple[int, int, int]) -> None:
    network = TriageNetwork(2, 8, variant).eval()
    with torch.no_grad():
        found = network(torch.rand(2, 1, *size))
    assert found.lesion_logits.shape == (2, 1, *size) and found.covid_logit.shape == (2, 1)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no variant 'bottom'; choose one of spatial, spatial-4, latent"):
        TriageNetwork(2, 8, "bottom")


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_makes_no_difference_to_the_class(variant: str) -> None:
    """Beyond the reach of the convolutions at its edge the class head sees the box alone, whatever is padded."""
    network = TriageNetwork(2, 8, variant).eval()
    box = torch.rand(1, 1, 16, 64, 64)
    padded = F.pad(box, (0, 0, 0, 0, 0, 16), value=0.7)
    with torch.no_grad():
        alone, within = network(box), network(padded, [(16, 64, 64)])
        unaware = network(padded)
    torch.testing.assert_close(within.covid_logit, alone.covid_logit, rtol=0, atol=1e-4)
    assert not torch.allclose(unaware.covid_logit, alone.covid_logit, atol=1e-6)


def test_slices_are_read_one_by_one() -> None:
    network = TriageNetwork(2, 8).eval()
    box = torch.rand(1, 1, 6, 40, 40)
    with torch.no_grad():
        whole = network(box).lesion_logits[0, 0]
        single = torch.cat([network.read_slices(one[None, None]).lesion_logits[0] for one in box[0, 0]])
    torch.testing.assert_close(single, whole, rtol=0, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 21)] * 3), st.integers(0, 10**6))
def test_the_pyramid_is_as_long_for_every_box(size: tuple[int, int, int], seed: int) -> None:
    torch.manual_seed(seed)
    maps = torch.randn(2, 3, *size)
    pooled = pyramid_max_pool(maps, BINS)
    assert pooled.shape == (2, 3 * 585)
    torch.testing.assert_close(pooled[:, :3], maps.flatten(2).amax(2))


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(8, 40)] * 3), st.integers(0, 10**6))
def test_the_pyramid_is_the_released_codes(size: tuple[int, int, int], seed: int) -> None:
    """Windows of n - (m - 1) s at steps of s = floor(n / m), by torch's own pooling."""
    torch.manual_seed(seed)
    maps = torch.randn(1, 2, *size)
    expected = []
    for bins in BINS:
        step = [n // bins for n in size]
        window = [n - (bins - 1) * s for n, s in zip(size, step, strict=True)]
        expected.append(F.max_pool3d(maps, window, step, ceil_mode=True).flatten(1))
    torch.testing.assert_close(pyramid_max_pool(maps, BINS), torch.cat(expected, 1))


def test_slices_in_reverse_give_the_same_maxima() -> None:
    maps = torch.randn(1, 2, 24, 16, 16)
    there, back = pyramid_max_pool(maps, BINS), pyramid_max_pool(maps.flip(2), BINS)
    torch.testing.assert_close(there.sort().values, back.sort().values)

"""The joint network: shapes, what it may see, and what its descriptor means."""

from __future__ import annotations

import pytest
import torch
from monai.networks.utils import pixelshuffle

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.networks.joint import (
    BLOCK,
    FEATURE_STRIDE,
    JointNetwork,
    coarse_probabilities,
    describe,
)
from Testing.library.tiny_bundle import OVERVIEWED, RANDOM_NETWORK, random_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=[RANDOM_NETWORK, OVERVIEWED], ids=["plain", "overview"])
def network(request: pytest.FixtureRequest) -> JointNetwork:
    return random_network(arguments=request.param)


@pytest.mark.parametrize("size", [(32, 16, 16), (16, 48, 32)])
def test_shapes(network: JointNetwork, size: tuple[int, ...]) -> None:
    with torch.inference_mode():
        found, read = network(torch.rand(2, 1, *size) * 2 - 1)
    assert found.lobes.shape == (2, 1 + len(labels.LOBES), *size)
    assert found.lesions.shape == (2, 1 + len(labels.LESIONS), *size)
    assert found.features.shape == (2, RANDOM_NETWORK["classifier_channels"], *(n // FEATURE_STRIDE for n in size))
    assert read.severity.shape == (2, len(labels.SEVERITIES))
    assert read.diagnosis.shape == (2, len(labels.DIAGNOSES))
    assert read.descriptor.shape == (2, network.descriptor_length)


@pytest.mark.parametrize("channels", [(4,), (4, 4, 4), (4, 4, 4, 4, 4)])
def test_it_has_four_resolutions(channels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="four resolutions"):
        JointNetwork(channels)


def test_scans_of_a_batch_do_not_influence_each_other(network: JointNetwork) -> None:
    torch.manual_seed(1)
    images = torch.rand(3, 1, 32, 32, 16) * 2 - 1
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    torch.testing.assert_close(together[0].lobes[1:2], alone[0].lobes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[1].diagnosis[1:2], alone[1].diagnosis, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("corner", [(8, 12, 20), (20, 4, 4)])
def test_logits_lie_where_the_image_does(network: JointNetwork, corner: tuple[int, int, int]) -> None:
    """Folding and unfolding blocks moves nothing and turns no axis round."""
    image = torch.full((1, 1, 32, 32, 48), -1.0)
    with torch.inference_mode():
        empty = network.segment(image).lobes
        z, y, x = corner
        image[0, 0, z : z + 6, y : y + 6, x : x + 6] = 0.5
        change = (network.segment(image).lobes - empty).abs().sum(1)[0]
    strongest = torch.nn.functional.avg_pool3d(change[None, None], 5, 1, 2)[0, 0]
    found = torch.stack(torch.unravel_index(strongest.argmax(), change.shape))
    assert (found - torch.tensor(corner) - 3).abs().max() <= 4


def test_the_overview_is_told_and_stays_as_it_is() -> None:
    """What it finds changes the answer; nothing it has learned is unlearned."""
    network, image = random_network(arguments=OVERVIEWED).train(), torch.rand(1, 1, 32, 32, 48) * 2 - 1
    found, read = network(image)
    (found.lobes.square().mean() + found.lesions.square().mean() + read.severity.sum()).backward()
    assert all(one.grad is None for one in network.overview.parameters())
    assert network.stem.conv_0.conv.weight.grad[:, BLOCK**3 :].abs().sum() > 0
    with torch.inference_mode():
        before = network.segment(image).lobes
        network.overview.lobe_head.bias[:8] += 5.0
        assert (network.segment(image).lobes - before).abs().max() > 1e-3


def test_the_overview_sees_the_image_at_half_the_resolution() -> None:
    network = random_network(arguments=OVERVIEWED)
    seen = []
    network.overview.stem.register_forward_pre_hook(lambda _, told: seen.append(told[0]))
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 24, 16, 16), scale_factor=2)
    with torch.inference_mode():
        network.segment(image)
    (blocks,) = seen
    assert blocks.shape == (1, BLOCK**3, 16, 8, 8)
    torch.testing.assert_close(pixelshuffle(blocks, 3, BLOCK)[:, :, :24], image[:, :, ::2, ::2, ::2])
    assert (pixelshuffle(blocks, 3, BLOCK)[:, :, 24:] == -1).all()


def test_the_classifier_does_not_bend_the_masks() -> None:
    network = random_network().train()
    _, read = network(torch.rand(1, 1, 32, 32, 16))
    (read.severity.sum() + read.diagnosis.sum()).backward()
    assert network.lobe_head.weight.grad is None and network.lesion_head.weight.grad is None
    assert network.feature_head.conv.weight.grad.abs().sum() > 0
    assert network.stem.conv_0.conv.weight.grad.abs().sum() > 0


def test_coarse_probabilities_are_means_over_blocks() -> None:
    logits = torch.full((1, 3, 8, 8, 8), -20.0)
    logits[:, 0] = 20
    logits[0, :, :2, :4, :4] = torch.tensor([-20.0, 20.0, -20.0])[:, None, None, None]
    coarse = coarse_probabilities(logits)
    assert coarse.shape == (1, 3, 2, 2, 2)
    torch.testing.assert_close(coarse[0, :, 0, 0, 0], torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(coarse.sum(1), torch.ones(1, 2, 2, 2))


def one_hot(values: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(values, classes).movedim(-1, 0)[None].float()


def test_the_descriptor_tells_features_and_affected_shares() -> None:
    """Lobes in slabs of 40 x 10 x 10; half the right middle lobe consolidated, a quarter of the left lower hazy."""
    lobes = torch.zeros(240, 10, 10, dtype=torch.long)
    for value in range(1, 6):
        lobes[40 * value :][:40] = value
    lesions = torch.zeros_like(lobes)
    lesions[40 * labels.RIGHT_MIDDLE :][:20] = labels.CONSOLIDATION
    lesions[40 * labels.LEFT_LOWER :][:10] = labels.GROUND_GLASS
    lesions[:30] = labels.GROUND_GLASS  # in no lobe: does not count
    features = torch.stack([(lobes > 0) * 2.0, (lesions > 0) * 3.0])[None]
    described = describe(features, one_hot(lobes, 6), one_hot(lesions, 3))[0]
    in_lung, in_lesion, shares = described[:2], described[2:4], described[4:]
    torch.testing.assert_close(in_lung, torch.tensor([2.0, 3 * 3000 / 20000]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(in_lesion, torch.tensor([2.0, 3.0]), rtol=1e-3, atol=1e-3)
    expected = torch.zeros(5, 2)
    expected[labels.RIGHT_MIDDLE - 1, 1] = 0.5
    expected[labels.LEFT_LOWER - 1, 0] = 0.25
    by_lung = torch.tensor([[0.125, 0.0], [0.0, 1 / 6]])
    torch.testing.assert_close(shares, torch.cat([expected, by_lung]).ravel(), rtol=1e-3, atol=1e-3)


def test_air_around_the_lungs_does_not_change_the_descriptor() -> None:
    torch.manual_seed(0)
    lobes, lesions = torch.randint(0, 6, (8, 8, 8)), torch.randint(0, 3, (8, 8, 8))
    features = torch.rand(1, 4, 8, 8, 8)
    padded = [torch.nn.functional.pad(values, (0, 4, 3, 0, 0, 2)) for values in (lobes, lesions)]
    wide = torch.nn.functional.pad(features, (0, 4, 3, 0, 0, 2), value=7.0)
    torch.testing.assert_close(
        describe(features, one_hot(lobes, 6), one_hot(lesions, 3)),
        describe(wide, one_hot(padded[0], 6), one_hot(padded[1], 3)),
    )


def test_a_scan_without_lungs_has_a_descriptor_too() -> None:
    nothing = torch.zeros(4, 4, 4, dtype=torch.long)
    described = describe(torch.rand(1, 4, 4, 4, 4), one_hot(nothing, 6), one_hot(nothing, 3))
    assert described.isfinite().all() and described.abs().max() == 0

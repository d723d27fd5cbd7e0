"""M2UNet is the published network, and a bag is a set."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.networks.m2unet import POOLINGS, M2UNet, RunningNorm

pytestmark = pytest.mark.usefixtures("one_thread")

SEVERE, NOT_SEVERE = labels.SEVERITIES.index("severe"), labels.SEVERITIES.index("not_severe")


def units(*modules: torch.nn.Module) -> float:
    """Trainable parameters in units of 1024, as the paper's Table 1 counts them."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters()) / 1024


@cache
def tiny(pool: str) -> M2UNet:
    """A small network that tells patches apart: its statistics are those of its inputs."""
    torch.manual_seed(1)
    network = M2UNet(4, 8, (6, 5), pool).train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        bags = torch.cat([bag(5, seed=seed) * (seed + 1) / 2 for seed in range(4)])
        for _ in range(2):  # a variance is about the mean of the pass before
            network(bags)
        found = network.eval()(bag(5))
    assert found.instance_scores.std() > 1e-3, "all patches look alike to it: it would prove nothing"
    return network


def bag(count: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Patches that differ in brightness, and hold noise."""
    torch.manual_seed(seed)
    levels = torch.linspace(0.1, 0.9, count).view(1, -1, 1, 1, 1)
    return levels + 0.3 * torch.randn(1, count, 1, side, side)


def test_every_block_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = M2UNet()
    first, *middle, last = (units(block) for block in network.encoder)
    assert first == pytest.approx(37, abs=0.5) and middle == pytest.approx([72] * 3, abs=0.5)
    assert last == pytest.approx(2595, abs=0.5)
    assert units(network.patch_level) == pytest.approx(193, abs=0.5)
    assert units(network.scan_level) == pytest.approx(48, abs=0.5)
    assert units(network.classifier) == pytest.approx(0.3, abs=0.05)
    deepest, *others = (units(block) for block in network.decoder)
    assert deepest == pytest.approx(397, abs=0.5) and others == pytest.approx([145] * 3, abs=0.5)
    assert units(network) == pytest.approx(3921, abs=1)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(sorted(POOLINGS)), st.permutations(range(6)))
def test_the_order_of_the_patches_does_not_matter(pool: str, order: list[int]) -> None:
    network, patches = tiny(pool), bag(6)
    with torch.no_grad():
        found, turned = network(patches), network(patches[:, order])
    torch.testing.assert_close(turned.severity_logits, found.severity_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(turned.instance_scores, found.instance_scores[:, order], rtol=0, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(sorted(POOLINGS)), st.integers(1, 4), st.integers(0, 3), st.floats(-1e3, 1e3))
def test_padding_does_not_matter_whatever_it_holds(pool: str, count: int, padding: int, value: float) -> None:
    network, patches = tiny(pool), bag(count)
    padded = torch.cat([patches, torch.full((1, padding, 1, 32, 32), value)], 1)
    is_instance = torch.arange(count + padding)[None] < count
    with torch.no_grad():
        found, with_padding = network(patches), network(padded, is_instance)
    torch.testing.assert_close(with_padding.severity_logits, found.severity_logits, rtol=0, atol=1e-5)
    assert not with_padding.instance_scores[:, count:].any() and not with_padding.lobe_logits[:, count:].any()


@pytest.mark.parametrize("pool", POOLINGS)
def test_it_trains_in_half_precision(pool: str) -> None:
    network = M2UNet(4, 8, (6, 5), pool).train()
    with torch.autocast("cpu", torch.bfloat16):
        found = network(torch.rand(2, 3, 1, 32, 32))
    found.severity_logits.float().sum().backward()
    assert network.patch_level.norm.running_mean.any() and network.patch_level.norm.running_mean.isfinite().all()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in network.scan_level.parameters())


@pytest.mark.parametrize("pool", POOLINGS)
def test_a_bag_does_not_see_the_others(pool: str) -> None:
    network = tiny(pool)
    one, other = bag(3), bag(3, seed=5)
    with torch.no_grad():
        together, alone = network(torch.cat([one, other])), network(other)
    torch.testing.assert_close(together.severity_logits[1:], alone.severity_logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [96, 128, 160, 192])
def test_sides_of_patches(side: int) -> None:
    with torch.no_grad():
        found = tiny("concept_lme")(bag(2, side))
    assert found.lobe_logits.shape == (1, 2, 6, side, side) and found.severity_logits.shape == (1, 2)


@pytest.mark.parametrize("pool", POOLINGS)
def test_parts_read_one_by_one_are_the_bag(pool: str) -> None:
    network, patches = tiny(pool), bag(5)
    with torch.no_grad():
        embeddings = torch.cat([network.embed(network.encode(one[None])[-1]) for one in patches[0]])
        torch.testing.assert_close(
            network.read(embeddings[None]).logits, network(patches).severity_logits, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("pool", POOLINGS)
def test_contributions_add_up_to_the_slope_of_the_log_odds(pool: str) -> None:
    """What the patches add together is the derivative of the log-odds along the pooled values themselves."""
    network = tiny(pool)
    with torch.no_grad():
        embeddings = network.embed(network.encode(bag(7)[0])[-1])[None]
    pooled = network.scan_level.pool(embeddings, torch.ones(1, 7, dtype=torch.bool)).values.detach()
    pooled.requires_grad_()
    level = network.scan_level
    logits = network.classifier(level.linear(torch.relu(level.norm(pooled))))[0]
    (slope,) = torch.autograd.grad(logits[SEVERE] - logits[NOT_SEVERE], pooled)
    scores = network.read(embeddings).instance_scores
    assert float(scores.detach().sum()) == pytest.approx(float((slope * pooled.detach()).sum()), abs=1e-4)
    assert scores.abs().max() > 0


def test_every_weight_learns_from_a_bag() -> None:
    network = M2UNet(4, 8, (6, 5)).train()
    found = network(bag(4))
    (found.severity_logits[0, SEVERE] + found.lobe_logits.square().mean()).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_relevance_is_where_the_patch_speaks_for_severe() -> None:
    network = tiny("concept_lme")
    with torch.inference_mode():
        relevance = network.relevance(network.encode(bag(3)[0])[-1])
    assert relevance.shape == (3, 2, 2) and (relevance >= 0).all() and relevance.max() > 0


def test_a_bag_of_one_scan_is_normalised_by_what_was_seen_before() -> None:
    norm = RunningNorm(3).train()
    rows = torch.randn(400, 1, 3) * 5 + 2
    for row in rows:
        norm(row)
    assert norm.running_mean.mean() == pytest.approx(2, abs=2.5)
    assert norm.running_var.mean() == pytest.approx(25, rel=0.6)
    training = norm(rows[0])
    torch.testing.assert_close(norm.eval()(rows[0]), training, rtol=0.3, atol=0.5)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no pooling 'mean'; choose one of concept_max"):
        M2UNet(4, 8, (6, 5), "mean")

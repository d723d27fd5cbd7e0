"""DeepSC-COVID's network: its three outputs, what each task may see of the other, and the statistics it reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.networks.deepsc_covid import STRIDES, CrossTaskGate, DeepSCCovid, normalise
from COVIDMultitaskLib.networks.lesion_statistics import NAMES, lesion_statistics

pytestmark = pytest.mark.usefixtures("one_thread")
CHANNELS = (2, 4, 4, 6, 8)


def tiny(hand_features: bool = True, seed: int = 0) -> DeepSCCovid:
    torch.manual_seed(seed)
    return DeepSCCovid(CHANNELS, hand_features)


def box(batch: int = 1, shape: tuple[int, ...] = (16, 32, 32), seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 32, 32), (24, 32, 48)])
def test_lesions_on_three_grids_and_three_diagnoses(shape: tuple[int, ...]) -> None:
    with torch.inference_mode():
        found = tiny().eval()(box(2, shape))
    z, y, x = shape
    grids = [(z, y, x), (z, y // 2, x // 2), (z // 2, y // 4, x // 4)]
    assert [tuple(logits.shape) for logits in found.lesion_logits] == [(2, 1, *grid) for grid in grids]
    assert found.class_logits.shape == (2, len(labels.DIAGNOSES))
    assert found.cam.shape == (2, 1, z // 4, y // 8, x // 8)


def test_every_coarser_output_learns_by_itself() -> None:
    """Deep supervision: each head's loss reaches the decoder's deepest block and no finer head."""
    for number in range(3):
        network = tiny()
        network(box()).lesion_logits[number].sum().backward()
        learning = [head.weight.grad is not None for head in network.lesions.heads]
        assert learning == [n == number for n in range(3)]
        assert network.lesions.ups[0].conv_block.conv1.conv.weight.grad.abs().sum() > 0


def test_the_order_of_diagnoses_is_the_papers() -> None:
    assert labels.DIAGNOSES == ("no_pneumonia", "other_pneumonia", "covid_19")


def test_it_has_five_stages() -> None:
    assert len(STRIDES) == 5
    with pytest.raises(ValueError, match="5 stages, not 4"):
        DeepSCCovid((2, 4, 4, 6))


def lesion_gradient(network: DeepSCCovid) -> float:
    parts = (network.lesions.heads[0].weight, network.lesions.ups[0].conv_block.conv1.conv.weight)
    return sum(0.0 if part.grad is None else float(part.grad.abs().sum()) for part in parts)


@pytest.mark.parametrize("allowed", [False, True])
def test_the_diagnosis_bends_the_mask_only_when_it_may(allowed: bool) -> None:
    network = tiny(hand_features=False)
    network.mask_has_gradient = allowed
    network(box()).class_logits[:, 2].sum().backward()
    assert (lesion_gradient(network) > 0) == allowed
    assert network.shared.stages[0].conv1.conv.weight.grad.abs().sum() > 0, "the shared subnet always learns"


@pytest.mark.parametrize("allowed", [False, True])
def test_the_activation_map_never_bends_the_mask(allowed: bool) -> None:
    network = tiny()
    network.mask_has_gradient = allowed
    network(box()).cam.square().sum().backward()
    assert lesion_gradient(network) == 0
    assert network.classifier.merge.conv.weight.grad.abs().sum() > 0


def test_each_task_weights_the_shared_map_by_what_both_make_of_it() -> None:
    """A change in the branch of one task changes the map of the other, and a closed gate shuts out one task alone."""
    torch.manual_seed(0)
    gate, x = CrossTaskGate(8), torch.randn(1, 8, 4, 4, 4)
    with torch.no_grad():
        before = gate(x)
        gate.branches[0].conv.weight.mul_(-1)
        after = gate(x)
        assert not torch.allclose(before[1], after[1])
        gate.squeeze[2].weight.zero_()
        gate.squeeze[2].bias.copy_(torch.cat([torch.full((8,), -40.0), torch.zeros(8)]))
        lesions, diagnosis = gate(x)
    assert lesions.abs().max() < 1e-6 < diagnosis.abs().max()


def test_gates_are_at_the_two_deepest_stages_and_start_open() -> None:
    network = tiny().eval()
    assert list(network.shared.gates) == ["3", "4"]
    with torch.inference_mode():
        for_lesions, for_class = network.shared(box())
    same = [torch.equal(a, b) for a, b in zip(for_lesions, for_class, strict=True)]
    assert same == [True, True, True, False, False]


def test_the_activation_map_adds_up_to_the_image_part_of_the_answer() -> None:
    """Attention-weighted, it is exactly how much the pooled features move the pneumonias against no pneumonia."""
    network = tiny(seed=3).eval()
    classifier = network.classifier
    with torch.inference_mode():
        for_lesions, for_class = network.shared(box())
        mask = network.lesions(for_lesions)[0].sigmoid()
        logits, cam = classifier(for_class, mask, box())
        attention = classifier._attention(classifier._features(for_class, mask))
        share = (cam * attention).sum()
        # Without the pooled features, with the same hidden units at work, the answer lacks just that share.
        described = torch.cat([torch.zeros(1, classifier.width), classifier._statistics(for_class, mask, box())], 1)
        pooled = (classifier._features(for_class, mask) * attention).sum((2, 3, 4))
        full = torch.cat([pooled, described[:, classifier.width :]], 1)
        active = (classifier.hidden(full) > 0).float()
        without = classifier.out(active * classifier.hidden(described))
    preference = [(out[0, 1] + out[0, 2]) / 2 - out[0, 0] for out in (logits, without)]
    assert float(share) == pytest.approx(float(preference[0] - preference[1]), abs=1e-5)
    assert abs(float(share)) > 1e-4


def test_boxes_of_a_batch_do_not_influence_each_other() -> None:
    network, images = tiny().eval(), box(3)
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    torch.testing.assert_close(together.lesion_logits[0][1:2], alone.lesion_logits[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.class_logits[1:2], alone.class_logits, rtol=1e-4, atol=1e-4)


def test_the_window() -> None:
    hu = torch.tensor([-2000.0, -1200.0, -300.0, 600.0, 3000.0])
    torch.testing.assert_close(normalise(hu), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))


# -- statistics of the lesions


def described(lesion: np.ndarray, image: np.ndarray) -> dict[str, float]:
    probability, density = (torch.from_numpy(a.astype(np.float32))[None, None] for a in (lesion, image))
    return dict(zip(NAMES, lesion_statistics(probability, density, 0.4, 0.5)[0].tolist(), strict=True))


def test_statistics_of_two_known_lesions() -> None:
    """A box of air with a large hazy lesion, left, low, at the back, and a dense small one, right, high, in front."""
    image, lesion = np.full((12, 12, 12), 0.1), np.zeros((12, 12, 12))
    for part, density in (((slice(0, 3), slice(8, 11), slice(7, 10)), 0.3), ((11, 1, 1), 0.9)):
        lesion[part], image[part] = 1, density
    got = described(lesion, image)
    assert got["count"] == pytest.approx(np.log(3) / 4)
    assert got["lung_share"] == pytest.approx(28 / 12**3)
    assert got["left_share"] == pytest.approx(27 / (12**3 / 2)) and got["right_share"] == pytest.approx(1 / (12**3 / 2))
    assert got["largest_share"] == pytest.approx(27 / 28)
    assert got["dorsal_share"] == pytest.approx(27 / 28) == pytest.approx(got["lower_share"])
    assert got["upper_share"] == pytest.approx(1 / 28) == pytest.approx(got["consolidation_share"])
    assert got["density"] == pytest.approx((27 * 0.3 + 0.9) / 28, abs=1e-6)
    # faces: 5 of 9 for the first, at the floor; 5 for the second, at the top
    faces = [0.2] * 45 + [0.8] * 5
    assert got["boundary_gradient"] == pytest.approx(np.mean(faces), abs=1e-6)


def test_the_periphery_is_the_outer_third() -> None:
    image = np.full((21, 21, 21), 0.9)
    image[1:-1, 1:-1, 1:-1] = 0.1
    shell, core = np.zeros_like(image), np.zeros_like(image)
    shell[2, 2:-2, 2:-2], core[9:12, 9:12, 9:12] = 1, 1
    assert described(shell, image)["peripheral_share"] == 1 and described(core, image)["peripheral_share"] == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0, 1))
def test_statistics_stay_in_range_for_any_mask(seed: int, density: float) -> None:
    chance = np.random.default_rng(seed)
    got = described((chance.random((6, 8, 8)) < density) * 1.0, chance.random((6, 8, 8)))
    assert all(0 <= value <= 1.5 for value in got.values()), got


def test_no_lesion_no_statistics_and_none_has_a_gradient() -> None:
    probability = torch.full((2, 1, 4, 4, 4), 0.4, requires_grad=True)
    numbers = lesion_statistics(probability, torch.rand(2, 1, 4, 4, 4), 0.4, 0.5)
    assert numbers.shape == (2, len(NAMES)) and not numbers.any() and not numbers.requires_grad

"""The network of Amyar et al.: three tasks of one slice, and a reconstruction that has nothing but the latent map."""

from __future__ import annotations

import pytest
import torch

from COVIDMultitaskLib.networks.amyar import SIDE, AmyarNetwork, Decoder, normalise

pytestmark = pytest.mark.usefixtures("one_thread")
CHANNELS = (2, 4, 6, 8)


def tiny(seed: int = 0) -> AmyarNetwork:
    torch.manual_seed(seed)
    return AmyarNetwork(CHANNELS, (32, 16), dropout=0.0)


def test_the_published_size() -> None:
    """64 to 1024 channels, a perceptron of 128 and 64: some 30 to 36 million parameters in this form."""
    with torch.device("meta"):
        network = AmyarNetwork()
    assert 30e6 < sum(p.numel() for p in network.parameters()) < 37e6
    assert [layer.out_features for layer in network.classifier if isinstance(layer, torch.nn.Linear)] == [128, 64, 1]
    assert [layer.p for layer in network.classifier if isinstance(layer, torch.nn.Dropout)] == [0.5, 0.5]
    assert SIDE == 256 and SIDE % network.side_multiple == 0


@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_three_answers(size: tuple[int, int]) -> None:
    image = torch.rand(3, 1, *size)
    found = tiny().eval()(image)
    assert found.lesion_logits.shape == found.reconstruction.shape == image.shape
    assert found.covid_logit.shape == (3,)
    assert 0 <= found.reconstruction.min() <= found.reconstruction.max() <= 1
    assert tiny().eval()(image, reconstruct=False).reconstruction is None


def test_strides_instead_of_pooling() -> None:
    network = tiny()
    assert not [m for m in network.encoder.modules() if "Pool" in type(m).__name__]
    sizes = [tuple(level.shape[2:]) for level in network.eval().encode(torch.rand(1, 1, 32, 48))]
    assert sizes == [(32, 48), (16, 24), (8, 12), (4, 6)]


def test_the_reconstruction_sees_the_latent_map_alone() -> None:
    """Other maps of the encoder, changed at will, leave it as it is and change the segmentation."""
    network = tiny()
    with torch.inference_mode():
        image = torch.rand(4, 1, 32, 32)
        found = network(image)
        *skips, latent = network.encode(image)
        assert torch.equal(network.reconstruct(latent), found.reconstruction)
        zeroed = network.segmentation(latent, [torch.zeros_like(skip) for skip in skips])
    assert not torch.allclose(zeroed, found.lesion_logits)
    with pytest.raises(ValueError, match="takes 0 skip connections, not 3"):
        network.reconstruction(latent, skips)
    with pytest.raises(ValueError, match="takes 3 skip connections, not 0"):
        network.segmentation(latent)


def touched(network: AmyarNetwork) -> set[str]:
    grads = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    return grads


@pytest.mark.parametrize(
    ("task", "head"),
    [("lesion_logits", "segmentation"), ("covid_logit", "classifier"), ("reconstruction", "reconstruction")],
)
def test_each_task_teaches_the_encoder_and_its_own_head_only(task: str, head: str) -> None:
    network = tiny()
    getattr(network(torch.rand(4, 1, 32, 32)), task).square().mean().backward()
    assert touched(network) == {"encoder", head}


def test_slices_of_a_batch_do_not_influence_each_other_in_use() -> None:
    network, images = tiny().eval(), torch.rand(3, 1, 32, 32)
    with torch.inference_mode():
        together, alone = network(images), network(images[2:])
    torch.testing.assert_close(together.lesion_logits[2:], alone.lesion_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.covid_logit[2:], alone.covid_logit, rtol=1e-4, atol=1e-5)


def test_the_window() -> None:
    torch.testing.assert_close(
        normalise(torch.tensor([-2000.0, -1000.0, -300.0, 400.0, 900.0])), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0])
    )


def test_a_decoder_of_one_level_is_no_decoder() -> None:
    with pytest.raises(ValueError, match="at least two levels"):
        AmyarNetwork((4,))
    assert Decoder((2, 4), with_skips=False)(torch.rand(1, 4, 3, 5)).shape == (1, 1, 6, 10)

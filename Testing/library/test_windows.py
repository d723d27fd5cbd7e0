"""One pass or many windows: the same answer, for any size, and it can be stopped inside."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from COVIDMultitaskLib.errors import Cancelled
from COVIDMultitaskLib.inference import windows
from COVIDMultitaskLib.inference.windows import segment_scan
from COVIDMultitaskLib.networks.joint import FEATURE_STRIDE, JointNetwork, Segmentation, coarse_probabilities
from COVIDMultitaskLib.progress import Event, Progress
from Testing.library.tiny_bundle import random_network

pytestmark = pytest.mark.usefixtures("one_thread")


class LocalNetwork(nn.Module):
    """Answers every voxel from itself alone: where the windows lie must make no difference at all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 9, 1)

    def segment(self, image: torch.Tensor) -> Segmentation:
        logits = self.layer(image)
        return Segmentation(logits[:, :6], logits[:, 6:], F.avg_pool3d(logits[:, :4], FEATURE_STRIDE))


@pytest.fixture(scope="module")
def network() -> JointNetwork:
    return random_network()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def noise(*size: int) -> torch.Tensor:
    """Texture that is alike everywhere, -1..1."""
    torch.manual_seed(3)
    coarse = F.interpolate(torch.rand(1, 1, *(max(n // 4, 1) for n in size)), size, mode="trilinear")
    return coarse * 2 - 1


def test_a_scan_of_a_fitting_size_is_one_pass(network: JointNetwork) -> None:
    image = noise(32, 48, 16)
    for got, expected in zip(segment_scan(network, image, Progress()), network.segment(image), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("size", [(32, 33, 47), (17, 16, 15), (1, 1, 1), (5, 90, 3), (33, 31, 50)])
@pytest.mark.parametrize("one_pass_voxels", [0, 10**9])
def test_any_size(network: JointNetwork, size: tuple[int, ...], one_pass_voxels: int, monkeypatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", (32, 48, 48))
    found = segment_scan(network, noise(*size), Progress(), one_pass_voxels)
    assert found.lobes.shape == (1, 6, *size) and found.lesions.shape == (1, 3, *size)
    assert found.features.shape == (1, 4, *(n // FEATURE_STRIDE for n in size))
    assert all(maps.dtype == torch.float32 and maps.isfinite().all() for maps in found)
    if min(size) >= FEATURE_STRIDE:
        assert coarse_probabilities(found.lobes).shape[2:] == found.features.shape[2:]


def test_what_is_missing_at_the_far_ends_is_air(network: JointNetwork) -> None:
    image = noise(27, 30, 19)
    with_air = F.pad(image, (0, 13, 0, 2, 0, 5), value=-1.0)
    found, expected = segment_scan(network, image, Progress()), network.segment(with_air)
    assert torch.equal(found.lobes, expected.lobes[..., :27, :30, :19])
    assert torch.equal(found.features, expected.features[..., :6, :7, :4])


@pytest.mark.parametrize("size", [(96, 32, 32), (112, 50, 64), (100, 90, 80)])
def test_windows_are_put_together_where_they_belong(size: tuple[int, ...], monkeypatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", (32, 48, 48))
    network, image = LocalNetwork(), noise(*size)
    whole, parts = (segment_scan(network, image, Progress(), limit) for limit in (10**9, 0))
    for got, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_windows_give_nearly_the_answer_of_one_pass(network: JointNetwork, monkeypatch) -> None:
    """Each window is normalised by itself; where the image is alike everywhere that matters little."""
    monkeypatch.setattr(windows, "WINDOW", (64, 256, 256))
    image = noise(160, 48, 48)
    whole, parts = (segment_scan(network, image, Progress(), limit) for limit in (10**9, 0))
    for got, expected in zip(parts[:2], whole[:2], strict=True):
        assert (got.argmax(1) == expected.argmax(1)).float().mean() > 0.9
        assert torch.corrcoef(torch.stack([got.ravel(), expected.ravel()]))[0, 1] > 0.98


def test_usual_scans_are_one_pass_and_bodies_are_not(monkeypatch) -> None:
    """At 2.5 mm: a chest of 0.4 m at once; two metres of a body, or of one lying askew, in bounded windows."""
    seen: list[tuple[int, ...]] = []

    def note(network: nn.Module, image: torch.Tensor, size: tuple[int, ...] | None = None) -> Segmentation:
        seen.append(size or tuple(image.shape[2:]))
        return Segmentation(*image.new_zeros(3, 1, 1, 1, 1, 1))

    network = LocalNetwork()
    monkeypatch.setattr(windows, "_in_windows", note)
    monkeypatch.setattr(network, "segment", lambda image: note(network, image))
    for size in ((160, 176, 192), (800, 160, 192), (560, 560, 48)):
        segment_scan(network, torch.zeros(1, 1, 1, 1, 1).expand(1, 1, *size), Progress())
    assert seen == [(160, 176, 192), (160, 160, 192), (160, 256, 48)]


@pytest.mark.parametrize("one_pass_voxels", [0, 10**9])
def test_progress_grows_layer_by_layer(network: JointNetwork, one_pass_voxels: int, monkeypatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", (32, 32, 32))
    monkeypatch.setattr("COVIDMultitaskLib.progress.QUIET_S", 0.0)
    events: list[Event] = []
    segment_scan(network, noise(64, 48, 32), Progress(events.append), one_pass_voxels)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert len(fractions) > 30 and fractions[0] < 0.1 and 0.8 < fractions[-1] <= 1.0


@pytest.mark.parametrize("one_pass_voxels", [0, 10**9])
@pytest.mark.parametrize("answers", [0, 1, 20, 60])
def test_it_stops_within_a_layer(network: JointNetwork, one_pass_voxels: int, answers: int, monkeypatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", (32, 32, 32))
    asked = 0

    def is_cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > answers

    size = (64, 48, 32) if one_pass_voxels == 0 else (32, 32, 32)
    if one_pass_voxels and answers == 60:
        answers = 30  # one pass has fewer layers
    with pytest.raises(Cancelled):
        segment_scan(network, noise(*size), Progress(is_cancelled=is_cancelled), one_pass_voxels)
    assert asked == answers + 1
    asked = -(10**9)
    segment_scan(network, noise(32, 32, 32), Progress(is_cancelled=is_cancelled))  # as if nothing had happened
    assert not any(module._forward_hooks for module in network.modules())

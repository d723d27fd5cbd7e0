"""Which device computes, what is said when it is not there, and what happens when it is too small."""

from __future__ import annotations

import pytest
import torch

from COVIDMultitaskLib.bundles import open_bundle
from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.inference import device as devices
from COVIDMultitaskLib.inference import windows
from COVIDMultitaskLib.inference.device import autocast, choose_device, is_out_of_memory, list_devices
from COVIDMultitaskLib.progress import Progress
from Testing.library.simple_chest import chest_volume

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def gpus(monkeypatch):
    """``gpus(n)``: as if so many were there."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(("count", "expected"), [(0, "cpu"), (1, "cuda"), (2, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(gpus, count: int, expected: str) -> None:
    gpus(count)
    assert choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_can_be_named(gpus, name: str) -> None:
    gpus(2)
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize(
    "name", ["gpu", "", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:999", "auto:1", "cpu\n", "mps:0"]
)
def test_unknown_devices(gpus, name: str) -> None:
    gpus(1)
    with pytest.raises(InputError, match=r"There is no device .*; choose one of auto, cpu, cuda"):
        choose_device(name)


def test_a_gpu_that_is_not_there(gpus) -> None:
    gpus(0)
    with pytest.raises(InputError, match="No CUDA device is usable here; choose the device cpu or auto"):
        choose_device("cuda")
    gpus(1)
    with pytest.raises(InputError, match="There is no device 'cuda:1', they are numbered from cuda:0"):
        choose_device("cuda:1")


def test_an_apple_gpu_is_taken_only_where_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="No Apple GPU is usable here; choose the device cpu or auto"):
        choose_device("mps")
    assert [record["device"] for record in list_devices()].count("mps") == 0
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 16_000_000_000, raising=False)
    assert choose_device("mps").type == "mps"
    assert {"device": "mps", "name": "Apple GPU", "memory_gb": 16.0, "free_gb": None} in list_devices()


def test_every_gpu_is_listed_with_its_memory(gpus, monkeypatch) -> None:
    gpus(2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10**9 * (index + 1), 8 * 10**9))
    gpu = {"device": "cuda:1", "name": "GPU 1", "memory_gb": 8.0, "free_gb": 2.0}
    assert [record["device"] for record in list_devices()][:3] == ["cpu", "cuda:0", "cuda:1"] and gpu in list_devices()


@pytest.mark.parametrize("has_units", [False, True])
def test_half_precision_on_the_cpu_only_where_it_has_units_for_it(monkeypatch, has_units: bool) -> None:
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: has_units)
    with autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if has_units else torch.float32)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_lack_of_memory_is_recognised(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_lack_of_memory_on_this_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


class SmallGpu:
    """Pretends to be a GPU that fails with ``error`` at the ``fails_at``-th pass over a scan, and so on."""

    def __init__(self, monkeypatch, error: Exception, fails_at: int = 1) -> None:
        self.used: list[str] = []
        self._device = "cuda"
        load, segment = JointEngine.load, windows.segment_scan

        def load_here(engine: JointEngine, device: torch.device | None = None):
            self._device = (device or engine._device).type
            return load(engine, torch.device("cpu"))

        def segment_there(*arguments):
            self.used.append(self._device)
            if self._device == "cuda" and len(self.used) >= fails_at:
                raise error
            return segment(*arguments)

        monkeypatch.setattr("COVIDMultitaskLib.engines.base.choose_device", lambda name: torch.device("cuda"))
        monkeypatch.setattr(JointEngine, "load", load_here)
        monkeypatch.setattr(windows, "segment_scan", segment_there)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_the_gpu_has_no_room_for_is_done_on_the_cpu(tiny_bundle, monkeypatch, fails_at: int) -> None:
    scan = chest_volume()
    expected = JointEngine(open_bundle(tiny_bundle), "cpu").predict(scan, Progress())
    gpu = SmallGpu(monkeypatch, torch.cuda.OutOfMemoryError("CUDA out of memory"), fails_at)
    engine = JointEngine(open_bundle(tiny_bundle), "cuda")
    for _ in range(2):  # the next scan may be smaller: the GPU is asked again
        gpu.used.clear()
        got = engine.predict(scan, Progress())
        assert gpu.used == ["cuda"] * fails_at + ["cpu"] * 2
        assert (got.lobes == expected.lobes).all() and got.diagnosis == expected.diagnosis


def test_other_errors_of_a_gpu_are_not_hidden(tiny_bundle, monkeypatch) -> None:
    gpu = SmallGpu(monkeypatch, RuntimeError("device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        JointEngine(open_bundle(tiny_bundle), "cuda").predict(chest_volume(), Progress())
    assert gpu.used == ["cuda"]


def test_a_cpu_without_room_says_so(tiny_bundle, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999999 bytes")

    monkeypatch.setattr(windows, "segment_scan", fail)
    with pytest.raises(MemoryError):
        JointEngine(open_bundle(tiny_bundle), "cpu").predict(chest_volume(), Progress())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_a_real_gpu_agrees_with_the_cpu(tiny_bundle) -> None:
    scan = chest_volume()
    on_cpu, on_gpu = (JointEngine(open_bundle(tiny_bundle), name).predict(scan, Progress()) for name in ("cpu", "cuda"))
    assert (on_cpu.lobes == on_gpu.lobes).mean() > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_a_real_gpu_that_is_too_small_hands_over(tiny_bundle) -> None:
    scan = chest_volume()
    expected = JointEngine(open_bundle(tiny_bundle), "cpu").predict(scan, Progress())
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-9)
    try:
        got = JointEngine(open_bundle(tiny_bundle), "cuda").predict(scan, Progress())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (got.lobes == expected.lobes).all()

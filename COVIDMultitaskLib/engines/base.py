"""What engines have in common that run the one network of a bundle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from COVIDMultitaskLib.bundles import INFERENCE, Bundle
from COVIDMultitaskLib.engines.contract import EngineIdentity, Prediction
from COVIDMultitaskLib.engines.support import Support
from COVIDMultitaskLib.errors import BundleError
from COVIDMultitaskLib.inference.device import choose_device, is_out_of_memory
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Volume

if TYPE_CHECKING:
    import torch
    from torch import nn

Network = TypeVar("Network", bound="nn.Module")
Settings = TypeVar("Settings")


class NetworkEngine(ABC, Generic[Network, Settings]):
    """An engine of one network: its bundle checked, its weights read once, the CPU where the GPU is too small.

    A subclass says what it is by the class attributes of :class:`COVIDMultitaskLib.engines.contract.Engine`, and
    defines ``read_settings``, ``build`` and ``predict_on``.

    :param device: "auto", "cpu" or "cuda".
    :param support: another engine, for those that need its lungs.
    :raises BundleError: when the bundle is of another engine, or its settings make no sense.
    :raises InputError: when the device is not there.
    """

    name: ClassVar[str]
    answers: ClassVar[frozenset[str]]
    takes: ClassVar[str]
    needs_lungs: ClassVar[bool] = False
    works_in_2d: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, device: str = "auto", support: Support | None = None) -> None:
        if bundle.identity.engine != self.name:
            raise BundleError(
                f"The bundle {bundle.identity.bundle} is for the engine {bundle.identity.engine}, not for {self.name};"
                " choose that engine or another bundle."
            )
        self.identity: EngineIdentity = bundle.identity
        self.settings: Settings = checked(bundle, self.read_settings)
        self._bundle = bundle
        self._device = choose_device(device)
        self._support = support
        self._network: Network | None = None

    @staticmethod
    @abstractmethod
    def read_settings(told: dict[str, Any]) -> Settings:
        """What the bundle's ``configs/inference.json`` tells.

        :raises KeyError, TypeError, ValueError: when something is missing or makes no sense.
        """

    @abstractmethod
    def build(self) -> Network:
        """The network that the settings describe, without its weights.

        :raises TypeError, ValueError: when they describe none.
        """

    @abstractmethod
    def predict_on(self, device: torch.device, volume: Volume, progress: Progress) -> Prediction:
        """As :meth:`predict`, on one device."""

    def load(self, device: torch.device | None = None) -> Network:
        """The network on a device, the engine's own if none is named; read once.

        :raises BundleError: when the weights do not fit the network.
        """
        import torch

        with torch.inference_mode(False):  # weights that evidence can be traced through
            if self._network is None:
                self._network = self._read_network()
            return self._network.to(device or self._device)

    def _read_network(self) -> Network:
        """Takes no memory before the weights are known to fit."""
        import torch

        weights = self._bundle.weights()
        try:
            with torch.device("meta"):
                network = self.build()
            network.load_state_dict(weights, assign=True)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BundleError(
                f"The weights of the bundle {self._bundle.path.name} do not fit its network; install the bundle again."
            ) from error
        if self.works_in_2d:  # halves the time of 2D convolutions on a CPU
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.eval()

    def predict(self, volume: Volume, progress: Progress) -> Prediction:
        """The engine's answers for a scan in Hounsfield units.

        :raises NotChestCTError: when no lungs are found.
        :raises Cancelled: when the user asked to stop.
        :raises MemoryError: when the CPU's memory does not suffice either.
        """
        import torch

        for device in dict.fromkeys((self._device, torch.device("cpu"))):
            try:
                with torch.inference_mode():
                    return self.predict_on(device, volume, progress)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if device.type == "cuda":  # only now, without the error, is nothing left that holds the GPU's memory
                torch.cuda.empty_cache()
        raise MemoryError


def checked(bundle: Bundle, read: Callable[[dict[str, Any]], Settings]) -> Settings:
    """What a bundle's "inference" tells: its SHA-256 says that it is whole, not that it makes sense.

    :raises BundleError: when ``read`` finds that something is missing or makes no sense.
    """
    try:
        return read(bundle.inference)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{INFERENCE} of the bundle {bundle.path.name} lacks a setting or holds a wrong one ({error});"
            " install the bundle again."
        ) from error


def within(value: Any, low: float, high: float) -> float:
    """A number of a bundle's settings. :raises TypeError, ValueError: when it is none between the limits."""
    number = float(value)
    if not low <= number <= high:
        raise ValueError(f"{number:g} is not in {low:g}..{high:g}")
    return number

"""The engines, by name."""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.bundles import Bundle, open_bundle, shipped_bundle
from COVIDMultitaskLib.engines.contract import Engine
from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.errors import BundleError

ENGINES = {"joint": JointEngine}
"""Engine classes by name; each is made from a bundle and a device's name."""

DEFAULT_ENGINE = "joint"


def make_engine(name: str | None = None, bundle: str | Path | None = None, device: str = "auto") -> Engine:
    """The engine of that name with its shipped weights, or the one a bundle folder is for.

    :raises BundleError: unknown name, or a bundle that is damaged or for another engine.
    :raises InputError: when the device is not there.
    """
    if name is not None and name not in ENGINES:
        raise BundleError(f"There is no engine {name!r}; choose one of {', '.join(sorted(ENGINES))}.")
    opened: Bundle = open_bundle(bundle) if bundle is not None else shipped_bundle(name or DEFAULT_ENGINE)
    wanted = name or opened.identity.engine
    if wanted not in ENGINES:
        raise BundleError(
            f"The bundle {opened.identity.bundle} is for the unknown engine {wanted!r}; update COVIDMultitask."
        )
    return ENGINES[wanted](opened, device)

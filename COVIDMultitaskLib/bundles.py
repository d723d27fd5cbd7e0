"""Weights in MONAI's bundle layout, checked before they are loaded.

A bundle is a folder with ``configs/metadata.json`` (who made it, on what, for which
engine), ``configs/inference.json`` (the network's arguments and the preparation),
``models/model.safetensors``, ``docs/README.md`` (the model card), ``LICENSE`` and
``SHA256SUMS`` over all of them. Nothing in a bundle is ever executed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from COVIDMultitaskLib.engines.contract import EngineIdentity
from COVIDMultitaskLib.errors import BundleError
from COVIDMultitaskLib.resources import resource

if TYPE_CHECKING:
    import torch

FORMAT = 1
METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
WEIGHTS = "models/model.safetensors"
CARD = "docs/README.md"
LICENCE = "LICENSE"
SUMS = "SHA256SUMS"
FILES = (METADATA, INFERENCE, WEIGHTS, CARD, LICENCE)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its files are whole and it fits this software.

    :param metadata: MONAI's metadata; what is ours is under "covid_multitask".
    :param inference: arguments of the network and of the preparation.
    """

    path: Path
    metadata: dict[str, Any]
    inference: dict[str, Any]
    identity: EngineIdentity

    def weights(self) -> dict[str, torch.Tensor]:
        """The network's tensors, in float32.

        :raises BundleError: when the file is damaged.
        """
        from safetensors.torch import load_file

        try:
            return {name: tensor.float() for name, tensor in load_file(self.path / WEIGHTS).items()}
        except Exception as error:
            raise BundleError(f"The weights of {self.path.name} cannot be read; install the bundle again.") from error


def open_bundle(path: str | Path) -> Bundle:
    """Check and open a bundle.

    :raises BundleError: when a file is missing, its SHA-256 is another, or the format is newer.
    """
    folder = Path(path)
    _check_files(folder)
    sums = _read_sums(folder)
    for name in FILES:
        if sums.get(name) != sha256(folder / name):
            raise BundleError(
                f"{name} of the bundle {folder.name} is not the file that was published (its SHA-256 differs);"
                " install the bundle again from a source you trust."
            )
    metadata, inference = _read_json(folder / METADATA), _read_json(folder / INFERENCE)
    return Bundle(folder, metadata, inference, _identity(folder, metadata, sums[WEIGHTS]))


def shipped_bundles() -> list[Path]:
    """The folders of the bundles under ``Resources/Bundles``, by name."""
    return sorted(path.parent.parent for path in resource("Bundles").glob(f"*/{METADATA}"))


def shipped_bundle(engine: str) -> Bundle:
    """The bundle that ships for an engine.

    :raises BundleError: when there is none.
    """
    for path in shipped_bundles():
        if _read_json(path / METADATA).get("covid_multitask", {}).get("engine") == engine:
            return open_bundle(path)
    raise BundleError(f"No weights for the engine {engine!r} are installed; give a bundle folder instead.")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` over a bundle's files, in the format of ``sha256sum``."""
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in FILES), encoding="utf-8")


def _check_files(folder: Path) -> None:
    missing = [name for name in (*FILES, SUMS) if not (folder / name).is_file()]
    if missing:
        raise BundleError(
            f"{folder} is no complete weight bundle ({', '.join(missing)} missing); give a bundle's folder."
        )


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").split("\n")
        return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines if line.strip())}
    except (ValueError, UnicodeDecodeError) as error:
        raise BundleError(f"{SUMS} of the bundle {folder.name} is damaged; install the bundle again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as JSON; install the bundle again.") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} does not hold a JSON object; install the bundle again.")
    return content


def _identity(folder: Path, metadata: dict[str, Any], digest: str) -> EngineIdentity:
    own = metadata.get("covid_multitask", {})
    if own.get("format", 0) > FORMAT:
        raise BundleError(
            f"The bundle {folder.name} was made for a newer version of this software; update COVIDMultitask."
        )
    try:
        return EngineIdentity(
            own["engine"], metadata["name"], metadata["version"], digest, own["trained_on"], own["licence"]
        )
    except KeyError as error:
        raise BundleError(f"{METADATA} of the bundle {folder.name} lacks {error}; install the bundle again.") from error

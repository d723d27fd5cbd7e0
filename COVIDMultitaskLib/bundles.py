"""Weights in MONAI's bundle layout, checked before they are loaded.

A bundle is a folder with ``configs/metadata.json`` (who made it, on what, for which
engine), ``configs/inference.json`` (the network's arguments and the preparation),
``models/model.safetensors``, ``docs/README.md`` (the model card), ``LICENSE`` and
``SHA256SUMS`` over all of them. It may also hold where its weights come from: ``configs/training.yaml`` (the
experiment) and ``docs/split.json`` (which records trained); and where they fail: ``docs/failures.png``. Nothing in a
bundle is ever executed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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
EXPERIMENT = "configs/training.yaml"
SPLIT = "docs/split.json"
FILES = (METADATA, INFERENCE, WEIGHTS, CARD, LICENCE)
FAILURES = "docs/failures.png"
OPTIONAL = (EXPERIMENT, SPLIT, FAILURES)
"""Files that a bundle may have."""


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
        """The network's tensors, in float32, from the very bytes that were checked.

        :raises BundleError: when the file is damaged, or was changed since the bundle was opened.
        """
        from safetensors.torch import load

        content = _content(self.path / WEIGHTS)
        if hashlib.sha256(content).hexdigest() != self.identity.sha256:
            raise BundleError(
                f"The weights of the bundle {self.path.name} were changed while they were used; start again."
            )
        try:
            return {name: tensor.float() for name, tensor in load(content).items()}
        except Exception as error:
            raise BundleError(f"The weights of {self.path.name} cannot be read; install the bundle again.") from error


def open_bundle(path: str | Path) -> Bundle:
    """Check and open a bundle.

    :raises BundleError: when a file is missing, its SHA-256 is another, or the format is newer.
    """
    folder = Path(path).expanduser()
    _check_files(folder)
    sums = _read_sums(folder)
    content = {name: _content(folder / name) for name in files_of(folder)}
    for name in content:
        if sums.get(name) != hashlib.sha256(content[name]).hexdigest():
            raise BundleError(
                f"{name} of the bundle {folder.name} is not the file that was published (its SHA-256 differs);"
                " install the bundle again from a source you trust."
            )
    metadata, inference = (_json_object(content[name], folder / name) for name in (METADATA, INFERENCE))
    return Bundle(folder, metadata, inference, _identity(folder, metadata, sums[WEIGHTS]))


def shipped_bundles() -> list[Path]:
    """The folders of the bundles under ``Resources/Bundles``, by name."""
    folders = sorted(path.parent.parent for path in resource("Bundles").glob(f"*/{METADATA}"))
    return [folder for folder in folders if not folder.name.startswith(".")]


def shipped_bundle(engine: str) -> Bundle:
    """The bundle that ships for an engine.

    :raises BundleError: when there is none, or one that ships is damaged.
    """
    for path in shipped_bundles():
        metadata = _json_object(_content(path / METADATA), path / METADATA)
        if _own(metadata).get("engine") == engine:
            return open_bundle(path)
    raise BundleError(f"No weights for the engine {engine!r} are installed; give a bundle folder instead.")


def files_of(folder: Path) -> tuple[str, ...]:
    """The files of a bundle that checksums are kept of."""
    return (*FILES, *(name for name in OPTIONAL if (folder / name).exists()))


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` over a bundle's files, in the format of ``sha256sum``."""
    lines = (f"{hashlib.sha256(_content(folder / name)).hexdigest()}  {name}\n" for name in files_of(folder))
    (folder / SUMS).write_bytes("".join(lines).encode())


def _check_files(folder: Path) -> None:
    try:
        missing = [name for name in (*FILES, SUMS) if not (folder / name).is_file()]
    except OSError as error:
        raise BundleError(f"{folder} cannot be read ({error.strerror}); correct its permissions.") from error
    if missing:
        raise BundleError(
            f"{folder} is no complete weight bundle ({', '.join(missing)} missing); give a bundle's folder."
        )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}); correct its permissions or install the bundle again."
        ) from error


def _read_sums(folder: Path) -> dict[str, str]:
    """Digest of each file; the lines of ``sha256sum`` may mark the file's name as binary by a star."""
    try:
        lines = _content(folder / SUMS).decode("utf-8").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        return {name.removeprefix("*"): digest.lower() for digest, name in pairs}
    except ValueError as error:
        raise BundleError(f"{SUMS} of the bundle {folder.name} is damaged; install the bundle again.") from error


def _json_object(content: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as JSON; install the bundle again.") from error
    if not isinstance(found, dict):
        raise BundleError(f"{path} does not hold a JSON object; install the bundle again.")
    return found


def _own(metadata: dict[str, Any]) -> dict[str, Any]:
    """What is ours in MONAI's metadata."""
    own = metadata.get("covid_multitask")
    return own if isinstance(own, dict) else {}


def _identity(folder: Path, metadata: dict[str, Any], digest: str) -> EngineIdentity:
    own = _own(metadata)
    number = own.get("format")
    if isinstance(number, int) and number > FORMAT:  # the rest may stand elsewhere by then
        _refuse_format(folder)
    told = {
        "engine": own.get("engine"),
        "bundle": metadata.get("name"),
        "version": metadata.get("version"),
        "trained_on": own.get("trained_on"),
        "licence": own.get("licence"),
    }
    said = {name: value for name, value in told.items() if isinstance(value, str) and value.strip()}
    if told.keys() - said:
        unsaid = ", ".join(name for name in told if name not in said)
        raise BundleError(f"{METADATA} of the bundle {folder.name} does not tell its {unsaid}; install it again.")
    if number != FORMAT:
        _refuse_format(folder)
    return EngineIdentity(sha256=digest, **said)


def _refuse_format(folder: Path) -> NoReturn:
    raise BundleError(f"The bundle {folder.name} was made for another version of this software; update COVIDMultitask.")

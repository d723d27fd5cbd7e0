"""Weight bundles that come as a zip file: added to a folder of the user's own, and removed from it.

Of an archive only the files of a bundle are taken, under names that stand here: whatever else it holds,
and wherever its names point, nothing of it reaches the disk.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from COVIDMultitaskLib.bundles import FILES, METADATA, OPTIONAL, SUMS, WEIGHTS, Bundle, open_bundle
from COVIDMultitaskLib.errors import BundleError, OutputError

LARGEST_WEIGHTS = 4 * 2**30
LARGEST_TEXT = 2**24
"""Bytes; more is no bundle of ours but an attack or a mistake."""

_CHUNK = 2**20
_STAGING = ".adding-"


def add_bundle(archive: str | Path, folder: str | Path) -> Bundle:
    """Add the bundle of a zip file to a folder, checked, and whole or not at all.

    A file beside the archive that is named like it with ".sha256" added, in the format of ``sha256sum``,
    holds the archive's own checksum.

    :param folder: of the user's bundles; made when it is not there.
    :return: the bundle at its place in ``folder``.
    :raises BundleError: when it is no archive of one whole bundle, too large, other than published, or there already.
    :raises OutputError: when the folder cannot be written to.
    """
    archive, folder = Path(archive), Path(folder).expanduser()
    _check_published(archive)
    staging = folder / f"{_STAGING}{secrets.token_hex(4)}"
    unpacked = staging / archive.stem  # the name that errors tell
    try:
        unpacked.mkdir(parents=True)
        with _opened(archive) as content:
            _unpack(content, archive.name, unpacked)
        return _publish(unpacked, folder)
    except OSError as error:
        raise OutputError(
            f"The bundle cannot be written to {folder} ({error.strerror}); free some space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_bundle(bundle: str | Path, folder: str | Path) -> None:
    """Remove a bundle from the folder of the user's bundles.

    :raises BundleError: when it does not lie in that folder, as those that ship do not.
    :raises OutputError: when it cannot be removed.
    """
    bundle, folder = Path(bundle), Path(folder).expanduser()
    if bundle.parent.resolve() != folder.resolve() or not (bundle / METADATA).is_file():
        raise BundleError(f"{bundle.name} is not one of the bundles you added; only those can be removed.")
    going = folder / f"{_STAGING}{secrets.token_hex(4)}"
    try:
        bundle.rename(going)  # gone from the list at once, whatever the rest takes
        going.unlink() if going.is_symlink() else shutil.rmtree(going)
    except OSError as error:
        raise OutputError(
            f"The bundle {bundle.name} cannot be removed ({error.strerror}); close other programs that use it."
        ) from error


def _check_published(archive: Path) -> None:
    """:raises BundleError: when the archive has another checksum than the file beside it says."""
    try:
        told = archive.with_name(f"{archive.name}.sha256").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        told = []
    with _readable(archive), archive.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if not told or told[0].lower() != digest.hexdigest():
        raise BundleError(
            f"{archive.name} is not the file that was published (its SHA-256 differs); download it again."
        )


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"{archive.name} cannot be read ({error.strerror}); choose another file.") from error


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with _readable(archive):
            content = zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise BundleError(f"{archive.name} is no zip file, or a damaged one; download it again.") from error
    with content:
        yield content


def _unpack(content: zipfile.ZipFile, name: str, folder: Path) -> None:
    """Write the bundle's files, and no other, into an empty folder."""
    root = _root(content, name)
    for wanted in (*FILES, SUMS, *OPTIONAL):
        try:
            entry = content.getinfo(root + wanted)
        except KeyError as error:
            if wanted in OPTIONAL:
                continue
            raise BundleError(f"{name} holds no complete bundle ({wanted} is missing); download it again.") from error
        limit = LARGEST_WEIGHTS if wanted == WEIGHTS else LARGEST_TEXT
        (folder / wanted).parent.mkdir(exist_ok=True)
        _copy(content, entry, folder / wanted, limit, name)


def _root(content: zipfile.ZipFile, name: str) -> str:
    """Where in the archive the bundle lies: at its top, or in a folder."""
    roots = [entry[: -len(METADATA)] for entry in content.namelist() if entry.endswith(METADATA)]
    roots = [root for root in roots if not root or root.endswith("/")]
    if len(roots) != 1:
        raise BundleError(f"{name} holds {len(roots) or 'no'} weight bundles; choose a zip file with one.")
    return roots[0]


def _copy(content: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limit: int, name: str) -> None:
    """Copy one entry, counting what really comes out of it: its header may lie."""
    too_large = BundleError(f"{name} holds a file that is larger than any bundle's; it is not installed.")
    if entry.file_size > limit:
        raise too_large
    left = limit
    try:
        with content.open(entry) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise too_large
                file.write(chunk)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError, zlib.error) as error:
        raise BundleError(f"{name} is damaged or encrypted; download it again.") from error


def _publish(unpacked: Path, folder: Path) -> Bundle:
    """Check the unpacked bundle and give it its name in the folder."""
    identity = open_bundle(unpacked).identity
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{identity.bundle}-{identity.version}").strip(".-")
    target = folder / (name or "bundle")
    if target.exists():
        raise BundleError(f"{identity.bundle} {identity.version} is there already; remove it first.")
    unpacked.rename(target)
    return open_bundle(target)

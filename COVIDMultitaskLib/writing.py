"""Results on disk: each file whole or not at all, and all files of an analysis together.

A file is written under a temporary name in the same folder, flushed to the disk and renamed.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from COVIDMultitaskLib.errors import OutputError
from COVIDMultitaskLib.volume import Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

VOLUME_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")
_GZIP_LEVEL = 3
_STAGING = ".covid-multitask-"


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write an array with its whole geometry, compressed (except ``.nii``).

    :param path: ends with .nrrd, .nii.gz, .nii or .mha. NIfTI keeps the geometry in 32-bit floats.
    :raises OutputError: another suffix, no permission, no space, no such folder.
    """
    path = Path(path)
    suffix = next((s for s in VOLUME_SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise OutputError(f"{path.name} has no known suffix; write to one of {', '.join(VOLUME_SUFFIXES)}.")
    if volume.array.dtype == bool:
        volume = volume.with_array(volume.array.astype(np.uint8))
    with _whole_file(path) as temporary:
        if suffix in (".nii", ".nii.gz"):
            _write_nifti(volume, temporary)
        else:
            _write_itk(volume, temporary)


def write_json(data: Any, path: str | Path) -> None:
    """Write JSON as UTF-8, indented; NaN and infinity, which JSON has not, are our fault.

    :raises OutputError: no permission, no space, no such folder.
    :raises ValueError: for NaN or infinity.
    """
    write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: str | Path) -> None:
    """Write UTF-8 with line feeds. :raises OutputError: no permission, no space, no such folder."""
    write_bytes(text.encode("utf-8"), path)


def write_bytes(content: bytes, path: str | Path) -> None:
    """:raises OutputError: no permission, no space, no such folder."""
    with _whole_file(Path(path)) as temporary:
        temporary.write_bytes(content)


def write_picture(grey: np.ndarray, path: str | Path) -> None:
    """Write a PNG. :raises OutputError: no permission, no space, no such folder.

    :param grey: uint8 (y, x).
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with _whole_file(Path(path)) as temporary:
        _itk_write(sitk.GetImageFromArray(grey), temporary)


class OutputFolder:
    """The folder of an analysis, whose results appear together at the end or not at all.

    Results are written to ``staging``, a hidden folder in it, and moved to their place when the
    ``with`` block ends without an exception; else nothing changes. Of earlier results, those named
    in ``results`` are replaced or removed, so that two analyses never mix.

    :param path: created when it is not there.
    :param results: names of all files the analysis may write; ``*`` in a name stands for any letters.
    :param overwrite: whether earlier results may be replaced.
    :raises OutputError: on entering, when results are there already or the folder cannot be written to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with OutputFolder(Path(parent, "out"), ["findings.json"]) as out:
    ...         write_json({"score": 3}, out / "findings.json")
    ...     sorted(file.name for file in Path(parent, "out").iterdir())
    ['findings.json']
    """

    def __init__(self, path: str | Path, results: Sequence[str], overwrite: bool = False) -> None:
        self.path = Path(path).expanduser()
        self.results = tuple(results)
        self.overwrite = overwrite
        self.staging = self.path
        self._created: list[Path] = []

    def __truediv__(self, name: str) -> Path:
        """Where to write the result ``name`` until it is published."""
        return self.staging / name

    def __enter__(self) -> OutputFolder:
        """Prepare the folder before the work begins, so that it is not done in vain."""
        self._refuse_earlier_results()
        try:
            self._create()
            self.staging = self.path / f"{_STAGING}{secrets.token_hex(4)}"
            self.staging.mkdir()
        except OSError as error:
            self._remove_created()
            raise _sentence(error, self.path) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish the results, or leave the folder as it was."""
        try:
            if kind is None:
                self._publish()
        except OSError as failure:
            kind = type(failure)
            raise _sentence(failure, self.path) from failure
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
            if kind is not None:
                self._remove_created()

    def _refuse_earlier_results(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file, not a folder; give another output folder.")
        earlier = self._earlier_results()
        if earlier and not self.overwrite:
            raise OutputError(
                f"{self.path} already holds {', '.join(earlier)}; allow overwriting or give another output folder."
            )

    def _earlier_results(self) -> list[str]:
        found = [file.name for name in self.results for file in sorted(self.path.glob(name))]
        return list(dict.fromkeys(found))

    def _create(self) -> None:
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._created.append(folder)

    def _remove_created(self) -> None:
        for folder in reversed(self._created):
            try:
                folder.rmdir()
            except OSError:  # someone else has put something into it
                return

    def _publish(self) -> None:
        """Move the results in; when a move fails, put the earlier ones back."""
        earlier = self.staging / ".earlier"
        earlier.mkdir()
        written = [file.name for file in self.staging.iterdir() if file != earlier]
        done: list[tuple[Path, Path]] = []
        try:
            for name in sorted({*self._earlier_results(), *written}):
                if (self.path / name).exists():
                    _move(self.path / name, earlier / name, done)
            for name in sorted(written):
                _move(self.staging / name, self.path / name, done)
        except OSError:
            for source, target in reversed(done):
                os.replace(target, source)
            raise
        _flush_folder(self.path)


def _move(source: Path, target: Path, done: list[tuple[Path, Path]]) -> None:
    os.replace(source, target)
    done.append((source, target))


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A temporary file name beside ``path`` that becomes ``path`` when the block ends well."""
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        temporary.touch(exist_ok=False)  # tells early, and why, when the folder cannot be written to
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _sentence(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_itk(volume: Volume, path: Path) -> None:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    _itk_write(volume.to_sitk(), path)


def _itk_write(image: sitk.Image, path: Path) -> None:
    import SimpleITK as sitk

    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        room = image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
        raise OSError(_cause(path.parent, room), "could not be written") from error


def _write_nifti(volume: Volume, path: Path) -> None:
    """By hand: ITK loses a shear and does not notice a full disk."""
    from COVIDMultitaskLib.reading.nifti import nifti1_header

    array = np.ascontiguousarray(volume.array)
    header = nifti1_header(volume.geometry, array.dtype)
    voxels = array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data
    with path.open("wb") as plain, _packed(plain) if path.name.lower().endswith(".gz") else plain as file:
        file.write(header)
        file.write(voxels)


def _packed(file: BinaryIO) -> gzip.GzipFile:
    """Without name and time, so that the same volume gives the same file."""
    return gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)


def _cause(folder: Path, array_bytes: int) -> int:
    """ITK does not say why writing failed; a disk with less room than the array was probably full."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return error.errno or errno.EIO
    return errno.ENOSPC if free < array_bytes else errno.EIO


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """So that the new name survives a power cut; Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse it for folders, and the file itself is safe
        return
    finally:
        os.close(descriptor)


_CAUSES: Mapping[int, str] = {
    errno.ENOSPC: "The disk of {path} is full; free some space, or give another output folder.",
    errno.EDQUOT: "The disk quota for {path} is used up; free some space, or give another output folder.",
    errno.EACCES: "There is no permission to write {path}; give another output folder.",
    errno.EPERM: "There is no permission to write {path}; give another output folder.",
    errno.EROFS: "{path} is on a disk that cannot be written to; give another output folder.",
    errno.ENOENT: "The folder of {path} does not exist; create it or give another one.",
    errno.ENOTDIR: "{path} is not in a folder but in a file; give another output folder.",
}


def _sentence(error: OSError, path: Path) -> OutputError:
    path = Path(*(part for part in path.parts if not part.startswith(_STAGING)))  # where it was to be, for the user
    template = _CAUSES.get(error.errno or 0, "{path} could not be written ({reason}); give another output folder.")
    return OutputError(template.format(path=path, reason=error.strerror or type(error).__name__))

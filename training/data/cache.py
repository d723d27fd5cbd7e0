"""Prepared samples on disk, so that the accelerator never waits for a scan to be read and resampled.

An entry is named after what it was made from: the files (by size and time, or by content), how they are read,
and the settings. Whoever changes any of these gets a new entry. Entries are written whole or not at all, so
processes may share a cache; a damaged entry is made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from COVIDMultitaskLib.errors import InputError, OutputError
from COVIDMultitaskLib.volume import Geometry
from COVIDMultitaskLib.writing import write_bytes
from training.data.loading import load
from training.data.preparation import Prepared, Settings, prepare
from training.data.record import ImageFile, LabelFile, Record
from training.processes import map_in_processes

VERSION = 1
"""Of the preparation; a change that alters arrays raises it."""

Tell = Callable[[int], None]

_ARRAYS = tuple(one.name for one in fields(Prepared) if one.name != "grid")


class PreparedCache:
    """Gives the prepared arrays of records, from disk where they are there.

    :param folder: created when it is not there.
    :param by_content: name entries by the files' content instead of their size and time; slower, and the cache
        may be carried to another machine.
    """

    def __init__(self, folder: str | Path, settings: Settings | None = None, by_content: bool = False) -> None:
        self.folder = Path(folder)
        self.settings = settings or Settings()
        self._by_content = by_content

    def get(self, record: Record) -> Prepared:
        """The record's arrays, prepared now if they are not in the cache.

        :raises InputError: when the record cannot be loaded; see :func:`training.data.loading.load`.
        :raises OutputError: when the entry cannot be written.
        """
        path = self.path(record)
        found = _read(path)
        if found is None:
            found = prepare(load(record), self.settings)
            _write(found, path)
        return found

    def path(self, record: Record) -> Path:
        """Where a record's entry is or will be.

        :raises InputError: when a file of the record is missing.
        """
        return self.folder / f"{self.key(record)}.npz"

    def key(self, record: Record) -> str:
        """SHA-256 of everything that decides the arrays."""
        described = {
            "version": VERSION,
            "settings": asdict(self.settings),
            "intensity": record.intensity.value,
            "image": self._described(record.image),
            "masks": [self._described_labels(one) for one in (record.lobes, record.lungs, record.lesions)],
            "flags": [record.slice_flags, record.lobe_flags],
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def fill(self, records: Sequence[Record], workers: int = 1, tell: Tell = lambda done: None) -> None:
        """Prepare all records that are not in the cache yet, in several processes.

        :param tell: called with the number of records done.
        :raises InputError: for the first record that cannot be loaded.
        """
        for done, _ in enumerate(map_in_processes(self._ensure, records, workers), start=1):
            tell(done)

    def _ensure(self, record: Record) -> None:
        """As :meth:`get`, without handing the arrays from process to process."""
        self.get(record)

    def _described_labels(self, labels: LabelFile | None) -> Any:
        if labels is None:
            return None
        parts = [
            [self._described(file), sorted(codes.values.items()), codes.strict, codes.above]
            for file, codes in labels.parts
        ]
        return [parts, labels.takes_image_geometry]

    def _described(self, image: ImageFile | None) -> Any:
        if image is None:
            return None
        files = [self._identity(file) for path in image.paths for file in _files(path)]
        turns = [turn.value for turn in image.turns]
        return [files, image.reader.value, turns, image.slice_index, image.spacing_mm]

    def _identity(self, path: Path) -> Any:
        try:
            if self._by_content:
                return content_digest(path)
            stat = path.stat()
        except OSError as error:
            raise InputError(f"{path} is missing; copy it again or take its record out.") from error
        return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for parent, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def content_digest(path: Path) -> str:
    """SHA-256 of a file. :raises OSError: when it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _write(prepared: Prepared, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The cache folder {path.parent} cannot be created ({error.strerror}); give another."
        ) from error
    buffer = io.BytesIO()
    grid = prepared.grid
    place = {"spacing_mm": grid.spacing_mm, "origin_mm": grid.origin_mm, "direction": grid.direction.tolist(),
             "shape": grid.shape}  # fmt: skip
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("grid.json", json.dumps(place))
        for name in _ARRAYS:
            array = getattr(prepared, name)
            if array is not None:
                # Labels shrink a hundredfold in no time; Hounsfield units hardly, and are read faster as they are.
                packing = zipfile.ZIP_STORED if name == "hu" else zipfile.ZIP_DEFLATED
                content = io.BytesIO()
                np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(f"{name}.npy", content.getbuffer(), packing, compresslevel=1)
    write_bytes(buffer.getvalue(), path)


def _read(path: Path) -> Prepared | None:
    """An entry; ``None`` when it is not there or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            place = json.loads(archive.read("grid.json"))
            arrays = {
                name: np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
                for name in _ARRAYS
                if f"{name}.npy" in archive.namelist()
            }
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError):
        return None
    grid = Geometry(
        tuple(place["shape"]), tuple(place["spacing_mm"]), tuple(place["origin_mm"]), np.array(place["direction"])
    )
    return Prepared(grid, **arrays)

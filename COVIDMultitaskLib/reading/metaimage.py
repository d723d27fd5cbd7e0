"""Whether a MetaImage file (.mha, .mhd) is complete: ITK reads a truncated one with noise on stderr."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import InputError

_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


def check_meta_image(path: Path) -> None:
    """:raises InputError: when voxels are missing from the file, or the file of the voxels is."""
    fields, header_bytes = _header(path)
    data_file = fields.get("ElementDataFile", "")
    if data_file.upper() == "LOCAL":
        present = path.stat().st_size - header_bytes
    elif not data_file or data_file.upper().startswith("LIST") or "%" in data_file:
        return
    elif (path.parent / data_file).is_file():
        present = (path.parent / data_file).stat().st_size
    else:
        raise InputError(f"The voxels of {path.name} are in another file, which is not beside it; copy both.")
    if present < _expected_bytes(fields):
        raise InputError(f"{path.name} is truncated: some of its voxels are missing; copy it again.")


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Fields up to ``ElementDataFile``, which ends the header, and the header's length."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(200):
            line = file.readline(4096)
            key, separator, value = line.decode("latin-1").partition("=")
            if not separator:
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                break
        return fields, file.tell()


def _expected_bytes(fields: dict[str, str]) -> int:
    """0 where the header does not tell."""
    if fields.get("CompressedData", "").lower() == "true":
        return int(fields.get("CompressedDataSize", "0"))
    kind = fields.get("ElementType", "").removeprefix("MET_").removeprefix("U")
    sizes = [int(n) for n in fields.get("DimSize", "0").split()]
    return int(np.prod(sizes)) * _BYTES.get(kind, 0) * int(fields.get("ElementNumberOfChannels", "1"))

"""NIfTI-1 and NIfTI-2 files, read and written with their full affine.

ITK refuses a sheared sform or writes it back as a rotation, reads a truncated file as zeros, and
reports success on a full disk; a scan's geometry and voxels are too dear for that. Layout of the header:
https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.volume import Geometry

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_COLOUR = {128, 2304}

NIFTI1 = np.dtype(
    [
        ("sizeof_hdr", "i4"), ("unused", "V35"), ("dim_info", "u1"), ("dim", "i2", 8), ("intent", "f4", 3),
        ("intent_code", "i2"), ("datatype", "i2"), ("bitpix", "i2"), ("slice_start", "i2"), ("pixdim", "f4", 8),
        ("vox_offset", "f4"), ("scl_slope", "f4"), ("scl_inter", "f4"), ("slice_end", "i2"), ("slice_code", "u1"),
        ("xyzt_units", "u1"), ("cal", "f4", 2), ("timing", "f4", 2), ("gl", "i4", 2), ("descrip", "S80"),
        ("aux_file", "S24"), ("qform_code", "i2"), ("sform_code", "i2"), ("quatern", "f4", 3),
        ("qoffset", "f4", 3), ("srow", "f4", (3, 4)), ("intent_name", "S16"), ("magic", "S4"),
    ]
)  # fmt: skip
NIFTI2 = np.dtype(
    [
        ("sizeof_hdr", "i4"), ("magic", "S8"), ("datatype", "i2"), ("bitpix", "i2"), ("dim", "i8", 8),
        ("intent", "f8", 3), ("pixdim", "f8", 8), ("vox_offset", "i8"), ("scl_slope", "f8"), ("scl_inter", "f8"),
        ("cal", "f8", 2), ("timing", "f8", 2), ("slice_range", "i8", 2), ("descrip", "S80"), ("aux_file", "S24"),
        ("qform_code", "i4"), ("sform_code", "i4"), ("quatern", "f8", 3), ("qoffset", "f8", 3),
        ("srow", "f8", (3, 4)), ("slice_code", "i4"), ("xyzt_units", "i4"), ("intent_code", "i4"),
        ("intent_name", "S16"), ("dim_info", "u1"), ("unused", "V15"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI header tells.

    :param shape: voxels along (i, j, k, ...), trailing ones removed.
    :param dtype: type of the stored values, with its byte order.
    :param offset: bytes before the first voxel.
    :param slope: factor to the true values.
    :param intercept: added after ``slope``.
    :param affine: 4 x 4 from voxel index (i, j, k, 1) to RAS millimetres.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    affine: np.ndarray
    notes: tuple[str, ...] = ()

    def geometry(self) -> Geometry:
        """:raises InputError: zero spacing, or axes that do not span the space."""
        matrix = _RAS_TO_LPS @ self.affine
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if not np.all(spacing > 0):
            raise InputError("The voxel spacing in the NIfTI header is zero or not a number; correct the header.")
        direction = matrix[:3, :3] / spacing
        i, j, k = self.shape
        origin = (matrix[0, 3], matrix[1, 3], matrix[2, 3])
        return Geometry((k, j, i), (spacing[2], spacing[1], spacing[0]), origin, direction[:, ::-1])


def read_nifti_header(path: Path) -> NiftiHeader:
    """:raises InputError: when the file is no NIfTI, or a colour or complex image."""
    try:
        with open_nifti(path) as file:
            return _parse(file.read(NIFTI2.itemsize), path.name)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _not_nifti(path.name) from error


def read_nifti_array(path: Path, header: NiftiHeader) -> np.ndarray:
    """The 3D voxels as (z, y, x): stored integers, or float32 where a slope or offset applies.

    :raises InputError: when the file is truncated or damaged.
    """
    array = np.empty(header.shape[::-1], dtype=header.dtype)
    try:
        with open_nifti(path) as file:
            file.read(header.offset)
            got = _read_into(file, array.reshape(-1).view(np.uint8).data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path.name} is truncated or damaged; copy it again.") from error
    if got < array.nbytes:
        raise InputError(f"{path.name} is truncated: it holds {got} of {array.nbytes} bytes of voxels; copy it again.")
    array = array.astype(header.dtype.newbyteorder("="), copy=False)
    if header.slope == 1.0 and header.intercept == 0.0:
        return array
    return array.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)


def nifti1_header(geometry: Geometry, dtype: np.dtype) -> bytes:
    """Header of a single-file NIfTI-1 with the whole affine as sform, and as qform unless sheared."""
    ras = _RAS_TO_LPS @ geometry.affine[:, [2, 1, 0, 3]]
    header = np.zeros((), dtype=NIFTI1)
    header["sizeof_hdr"] = NIFTI1.itemsize
    header["dim"] = [3, *geometry.shape[::-1], 1, 1, 1, 1]
    header["datatype"] = _code_of(dtype)
    header["bitpix"] = dtype.itemsize * 8
    header["vox_offset"] = NIFTI1.itemsize + 4
    header["scl_slope"] = 1.0
    header["xyzt_units"] = 2
    header["srow"] = ras[:3]
    header["sform_code"] = 1
    header["pixdim"] = [1.0, *geometry.spacing_mm[::-1], 0, 0, 0, 0]
    header["magic"] = b"n+1"
    if geometry.is_orthogonal:
        quaternion, handedness = _quaternion(ras[:3, :3] / np.linalg.norm(ras[:3, :3], axis=0))
        header["pixdim"][0] = handedness
        header["quatern"], header["qoffset"], header["qform_code"] = quaternion, ras[:3, 3], 1
    return header.tobytes() + bytes(4)


def open_nifti(path: Path) -> gzip.GzipFile | IO[bytes]:
    """The file's bytes, unpacked when it is gzip whatever its name says."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _code_of(dtype: np.dtype) -> int:
    for code, name in _TYPES.items():
        if np.dtype(name) == dtype.newbyteorder("="):
            return code
    raise ValueError(f"NIfTI has no voxel type {dtype}")


def _parse(raw: bytes, name: str) -> NiftiHeader:
    for layout in (NIFTI1, NIFTI2):
        for order in ("<", ">"):
            if len(raw) >= layout.itemsize and raw[:4] == np.array(layout.itemsize, f"{order}i4").tobytes():
                header = np.frombuffer(raw, layout.newbyteorder(order), count=1)[0]
                return _interpret(header, order, name)
    raise _not_nifti(name)


def _interpret(header: np.void, order: str, name: str) -> NiftiHeader:
    if not header["magic"].startswith(b"n+"):
        raise InputError(f"{name} is not a single-file NIfTI; save it as .nii or .nii.gz.")
    code = int(header["datatype"])
    if code in _COLOUR:
        raise InputError(f"{name} is a colour image; give the CT with one grey value per voxel.")
    if code not in _TYPES:
        raise InputError(f"{name} holds voxels of NIfTI type {code}, which no CT has; convert it to 16-bit integers.")
    slope = float(header["scl_slope"])
    scaled = np.isfinite(slope) and slope != 0.0
    affine, notes = _affine(header)
    return NiftiHeader(
        shape=_shape(header),
        dtype=np.dtype(order + _TYPES[code]),
        offset=int(header["vox_offset"]),
        slope=slope if scaled else 1.0,
        intercept=float(header["scl_inter"]) if scaled else 0.0,
        affine=affine,
        notes=notes,
    )


def _shape(header: np.void) -> tuple[int, ...]:
    count = int(header["dim"][0])
    shape = [int(n) for n in header["dim"][1 : 1 + count]] if 0 < count < 8 else []
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if not shape or min(shape) < 1:
        raise InputError("The NIfTI header states no valid image size; the file is damaged: copy it again.")
    return tuple(shape)


def _affine(header: np.void) -> tuple[np.ndarray, tuple[str, ...]]:
    """The sform where there is one, else the qform, else the bare spacing as ITK takes it."""
    scale = np.diag([*[_MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)] * 3, 1.0])
    sform = np.vstack([header["srow"].astype(np.float64), [0, 0, 0, 1]])
    qform = _qform(header)
    if header["sform_code"] > 0:
        differ = header["qform_code"] > 0 and not np.allclose(sform, qform, atol=0.01)
        note = "The file's sform and qform differ; the sform was used."
        return scale @ sform, (note,) if differ else ()
    if header["qform_code"] > 0:
        return scale @ qform, ()
    bare = _RAS_TO_LPS @ np.diag([*np.abs(header["pixdim"][1:4].astype(np.float64)), 1.0])
    return scale @ bare, ("The file states no orientation; the axes were taken to run to the left, back and head.",)


def _qform(header: np.void) -> np.ndarray:
    b, c, d = header["quatern"].astype(np.float64)
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    spacing = np.abs(header["pixdim"][1:4].astype(np.float64))
    handedness = -1.0 if header["pixdim"][0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing * [1.0, 1.0, handedness]
    affine[:3, 3] = header["qoffset"]
    return affine


def _quaternion(rotation: np.ndarray) -> tuple[np.ndarray, float]:
    """(b, c, d) with a >= 0, and -1 when the third axis is flipped."""
    from scipy.spatial.transform import Rotation

    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    b, c, d, a = Rotation.from_matrix(rotation * [1.0, 1.0, handedness]).as_quat()
    return np.array([b, c, d]) * (1.0 if a >= 0 else -1.0), handedness


def _read_into(file: gzip.GzipFile | IO[bytes], target: memoryview) -> int:
    got = 0
    while got < len(target):
        chunk = file.read(min(1 << 22, len(target) - got))
        if not chunk:
            break
        target[got : got + len(chunk)] = chunk
        got += len(chunk)
    return got


def _not_nifti(name: str) -> InputError:
    return InputError(f"{name} is not a NIfTI file or is damaged; give a NIfTI, NRRD, MetaImage or DICOM scan.")

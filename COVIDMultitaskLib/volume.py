"""A CT (or a label map of it) with its place in the patient.

Everything here is in array order (z, y, x): shape, spacing, and the columns of
``direction``. World coordinates are DICOM's LPS millimetres (x to the patient's
left, y to the back, z to the head).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk


class IntensityKind(str, Enum):
    """What the voxel values mean."""

    HOUNSFIELD = "hounsfield"
    WINDOW_8BIT = "window_8bit"  # 0..255 over HU -1250..250
    UNIT_SCALE = "unit_scale"  # 0..1 over HU -1400..100
    PICTURE = "picture"  # grey values of unknown window


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an array lie in the patient.

    :param shape: voxels along (z, y, x).
    :param spacing_mm: distance between voxel centres along (z, y, x).
    :param origin_mm: LPS position of the centre of voxel (0, 0, 0), as (x, y, z).
    :param direction: 3 x 3; column n is the LPS unit vector of array axis n (z, y, x). The
        columns need not be perpendicular: a tilted gantry gives a sheared volume.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: np.ndarray = field(default_factory=lambda: np.eye(3)[:, ::-1])

    def __post_init__(self) -> None:
        direction = np.array(self.direction, dtype=np.float64).reshape(3, 3)
        direction[np.abs(direction) < 1e-15] = 0.0  # ITK cannot invert matrices with numbers like 1e-300
        direction.setflags(write=False)
        object.__setattr__(self, "direction", direction)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing_mm", tuple(float(s) for s in self.spacing_mm))
        object.__setattr__(self, "origin_mm", tuple(float(o) for o in self.origin_mm))
        self._check()

    def _check(self) -> None:
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise InputError(
                f"The voxel spacing {self.spacing_mm} mm is not positive; correct the file's header and try again."
            )
        if not np.all(np.isfinite(self.direction)) or not np.all(np.isfinite(self.origin_mm)):
            raise InputError("The image's position or direction is not a number; correct the file's header.")
        if abs(np.linalg.det(self.direction)) < 1e-3:
            raise InputError("The image's direction matrix cannot be inverted; correct the file's header.")

    @property
    def affine(self) -> np.ndarray:
        """4 x 4 matrix from a voxel index (z, y, x, 1) to LPS millimetres (x, y, z, 1)."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres, shear included."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def is_orthogonal(self) -> bool:
        """Whether the axes are perpendicular (not sheared)."""
        return bool(np.allclose(self.direction.T @ self.direction, np.eye(3), atol=1e-4))

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Length of the field of view along (z, y, x)."""
        z, y, x = (n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return z, y, x

    def corners_mm(self) -> np.ndarray:
        """(8, 3) LPS positions of the outer corners of the field of view."""
        ends = [(-0.5, n - 0.5) for n in self.shape]
        index = np.array([(z, y, x, 1.0) for z in ends[0] for y in ends[1] for x in ends[2]])
        return (index @ self.affine.T)[:, :3]

    def cropped(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Geometry:
        """The part from voxel ``start`` to before voxel ``stop``, both (z, y, x)."""
        origin = (self.affine @ np.array([*start, 1.0]))[:3]
        shape = (stop[0] - start[0], stop[1] - start[1], stop[2] - start[2])
        return replace(self, shape=shape, origin_mm=tuple(origin))

    def is_close_to(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Same shape and, at every corner, the same place within ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        return bool(np.allclose(self.corners_mm(), other.corners_mm(), atol=tolerance_mm))


@dataclass(frozen=True)
class Provenance:
    """What reading a scan told about it. Holds no name, number or date of a patient.

    :param format: "DICOM", "NIfTI", "NRRD", "MetaImage" or "phantom".
    :param modality: DICOM modality, when known.
    :param kernel: reconstruction kernel, when known.
    :param slice_thickness_mm: when known.
    :param missing_slices: how many slices the positions show to be missing.
    :param contrast: whether contrast medium was given, when known.
    :param notes: what was noticed and done while reading, one sentence each.
    """

    format: str
    modality: str | None = None
    kernel: str | None = None
    slice_thickness_mm: float | None = None
    missing_slices: int = 0
    contrast: bool | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """A 3D array with its geometry.

    :param array: (z, y, x).
    :param geometry: place of the array; its shape equals the array's.
    :param intensity: what the values mean (of a label map: leave it).
    :param provenance: what reading it told.
    """

    array: np.ndarray
    geometry: Geometry
    intensity: IntensityKind = IntensityKind.HOUNSFIELD
    provenance: Provenance = Provenance("memory")

    def __post_init__(self) -> None:
        if tuple(self.array.shape) != self.geometry.shape:
            raise ValueError(f"array {self.array.shape} and geometry {self.geometry.shape} differ in shape")

    def with_array(self, array: np.ndarray) -> Volume:
        """Other values on the same grid."""
        return replace(self, array=array)

    def to_sitk(self) -> sitk.Image:
        """The same volume as a SimpleITK image (whose axes are x, y, z)."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(self.array)
        image.SetSpacing(self.geometry.spacing_mm[::-1])
        image.SetOrigin(self.geometry.origin_mm)
        image.SetDirection(self.geometry.direction[:, ::-1].ravel().tolist())
        return image

    @staticmethod
    def from_sitk(
        image: sitk.Image,
        intensity: IntensityKind = IntensityKind.HOUNSFIELD,
        provenance: Provenance = Provenance("memory"),
    ) -> Volume:
        """The volume of a 3D SimpleITK image."""
        import SimpleITK as sitk

        return Volume(sitk.GetArrayFromImage(image), geometry_of_sitk(image), intensity, provenance)


def geometry_of_sitk(image: sitk.Image) -> Geometry:
    """The geometry of a 3D SimpleITK image."""
    x, y, z = image.GetSize()
    direction = np.array(image.GetDirection()).reshape(3, 3)[:, ::-1]
    return Geometry((z, y, x), image.GetSpacing()[::-1], image.GetOrigin(), direction)

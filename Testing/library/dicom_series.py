"""Writes real DICOM series of a given geometry, with the faults that archives show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

PATIENT = "Doe^Jane"


@dataclass
class Series:
    """One series to write.

    :param hu: (z, y, x) Hounsfield units.
    :param orientation: LPS direction of increasing column, then of increasing row.
    :param step_mm: LPS vector from slice to slice; not along the normal for a tilted gantry.
    :param pixel_spacing_mm: between rows, then between columns.
    :param rescale: slope and intercept of every slice, or one pair for all.
    :param attributes: DICOM attributes to set on every slice, ``None`` to remove one.
    """

    hu: np.ndarray
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0)
    step_mm: Sequence[float] = (0, 0, 12)
    origin_mm: Sequence[float] = (-200, -180, 100)
    pixel_spacing_mm: Sequence[float] = (9, 9)
    rescale: Any = (1, -1024)
    transfer_syntax: str = ExplicitVRLittleEndian
    attributes: Mapping[str, Any] = field(default_factory=dict)
    uid: str = field(default_factory=generate_uid)

    def position_mm(self, n: float) -> np.ndarray:
        """LPS position of the first pixel of slice ``n``."""
        return np.asarray(self.origin_mm, float) + n * np.asarray(self.step_mm, float)

    def rescale_of(self, n: int) -> tuple[float, float]:
        """Slope and intercept of slice ``n``."""
        return self.rescale if np.ndim(self.rescale) == 1 else self.rescale[n]

    def stored(self, n: int) -> np.ndarray:
        """Pixel values of slice ``n`` as stored."""
        slope, intercept = self.rescale_of(n)
        return np.rint((self.hu[n] - intercept) / slope).astype("<i2")

    def write(self, folder: Path, planes: Sequence[int] | None = None, prefix: str = "slice") -> list[Path]:
        """Write the slices (or only ``planes``); their names do not follow their order."""
        folder.mkdir(parents=True, exist_ok=True)
        return [
            self.write_slice(folder / f"{prefix}{(7919 * n) % 10007:05d}.dcm", n)
            for n in (range(len(self.hu)) if planes is None else planes)
        ]

    def write_slice(self, path: Path, n: int, **attributes: Any) -> Path:
        """Write slice ``n``, with attributes of its own."""
        image = self._image(CTImageStorage)
        image.InstanceNumber = n + 1
        image.ImageOrientationPatient = _decimals(self.orientation)
        image.ImagePositionPatient = _decimals(self.position_mm(n))
        image.PixelSpacing = _decimals(self.pixel_spacing_mm)
        image.RescaleSlope, image.RescaleIntercept = _decimals(self.rescale_of(n))
        _set_pixels(image, self.stored(n))
        _set(image, {**self.attributes, **attributes})
        return _save(image, path, self.transfer_syntax)

    def write_enhanced(self, path: Path, order: Sequence[int] | None = None) -> Path:
        """Write all slices as one enhanced multi-frame CT, its frames in ``order``."""
        order = list(range(len(self.hu)) if order is None else order)
        image = self._image(EnhancedCTImageStorage)
        image.NumberOfFrames = len(order)
        slope, intercept = _decimals(self.rescale_of(0))
        shared = Dataset()
        shared.PixelMeasuresSequence = _item(PixelSpacing=_decimals(self.pixel_spacing_mm), SliceThickness="12")
        shared.PlaneOrientationSequence = _item(ImageOrientationPatient=_decimals(self.orientation))
        shared.PixelValueTransformationSequence = _item(
            RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU"
        )
        image.SharedFunctionalGroupsSequence = DicomSequence([shared])
        image.PerFrameFunctionalGroupsSequence = DicomSequence([self._frame(n) for n in order])
        _set_pixels(image, np.stack([self.stored(n) for n in order]))
        _set(image, self.attributes)
        return _save(image, path, self.transfer_syntax)

    def _frame(self, n: int) -> Dataset:
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=_decimals(self.position_mm(n)))
        return frame

    def _image(self, sop_class: str) -> FileDataset:
        image = FileDataset(None, {}, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = sop_class, generate_uid()
        image.PatientName, image.PatientID, image.Modality = PATIENT, "4711", "CT"
        image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", self.uid
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.SliceThickness, image.SeriesNumber = "12", 1
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        return image


def write_many_slices(folder: Path, count: int) -> None:
    """A series of ``count`` small slices, written fast: copies of one file with other numbers."""
    series = Series(np.zeros((1, 2, 2), np.int16), origin_mm=(0, 0, 11111.5))
    template = series.write_slice(folder / "0.dcm", 0, SOPInstanceUID="1.2.3.11111").read_bytes()
    for n in range(count):
        number = b"%05d" % (10000 + n)
        (folder / f"{n}.dcm").write_bytes(
            template.replace(b"11111.5", number + b".5").replace(b".11111", b"." + number)
        )


def _set_pixels(image: Dataset, stored: np.ndarray) -> None:
    image.Rows, image.Columns = stored.shape[-2:]
    image.PixelData = stored.tobytes()


def _set(image: Dataset, attributes: Mapping[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)


def _save(image: FileDataset, path: Path, transfer_syntax: str) -> Path:
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if transfer_syntax == RLELossless:
        image["PixelData"].VR = "OW"
        image.compress(RLELossless)
    else:
        image.file_meta.TransferSyntaxUID = transfer_syntax
    image.save_as(path, enforce_file_format=True)
    return path


def _item(**attributes: Any) -> DicomSequence:
    item = Dataset()
    _set(item, attributes)
    return DicomSequence([item])


def _decimals(values: Sequence[float]) -> list[str]:
    """DICOM decimal strings of at most 16 characters."""
    return [f"{float(value):.9g}" for value in values]

"""Statistics of expert lesion masks: ``python -m training.synthesis.measure_masks FOLDER``.

What it prints for MosMedData's 50 masks is kept in ``literature.MILD_COVID``; the masks themselves are not used.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import InputError
from training.synthesis.statistics import Lesions, measure_lesions


def measure_folder(folder: Path) -> list[Lesions]:
    """Statistics of every mask in a folder.

    :raises InputError: when there is none.
    """
    import SimpleITK as sitk

    paths = sorted(folder.glob("*.nii.gz"))
    if not paths:
        raise InputError(f"{folder} holds no .nii.gz masks; give the folder of masks.")
    found = []
    for path in paths:
        mask = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
        measured = measure_lesions(sitk.GetArrayFromImage(mask), mask.GetSpacing()[::-1])
        if measured is not None:
            found.append(measured)
    return found


def table(patients: list[Lesions]) -> str:
    """Quartiles over patients, and how many have lesions on both sides."""
    rows = [f"{len(patients)} patients; bilateral {np.mean([p.bilateral for p in patients]):.2f}"]
    for field in fields(Lesions):
        values = np.array([getattr(p, field.name) for p in patients], float)
        low, middle, high = np.percentile(values, (25, 50, 75))
        spread = f", deviation of the logarithm {np.log(values).std():.2f}" if (values > 0).all() else ""
        rows.append(f"{field.name:14} {middle:8.2f}  ({low:.2f} to {high:.2f}){spread}")
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(table(measure_folder(parser.parse_args().folder)))

"""What a network says about labelled scans it was not trained on: the data that calibration works with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.engines.joint import HEADS, Look, grid_around_lungs, grid_of_whole, look_at, normalised
from COVIDMultitaskLib.errors import NotChestCTError
from COVIDMultitaskLib.networks.joint import Classification, JointNetwork
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry
from training.data.dataset import Case
from training.data.record import LESION_OF_ANY_KIND, NOT_ANNOTATED, Record
from training.engines.boxes import mask_in, upright_geometry, upright_volume

VOXELS_PER_SCAN = 4000
"""Voxels drawn from the lungs of each scan: neighbours tell little that is new."""


@dataclass(frozen=True)
class Labelled:
    """What a head said where the truth is known.

    :param logits: (n, classes).
    :param truth: (n,) class indices.
    :param patients: (n,) which patient each row is of; rows of one patient are never split.
    """

    logits: np.ndarray
    truth: np.ndarray
    patients: np.ndarray

    @property
    def scale(self) -> int:
        """How many patients there are."""
        return len(np.unique(self.patients))


@dataclass(frozen=True)
class HeldOut:
    """A network's answers on held-out scans.

    :param heads: by the names of :data:`COVIDMultitaskLib.engines.joint.HEADS`; one row for each scan that has the
        label, of masks one for each drawn voxel of the lungs.
    :param descriptors: (scans, n).
    :param patients: (scans,) which patient each scan is of.
    """

    heads: dict[str, Labelled]
    descriptors: np.ndarray
    patients: np.ndarray


def patient_of(record: Record) -> str:
    """The patient, else the group that must stay together, else the scan itself."""
    return record.patient_id or record.group or record.id


def read_held_out(network: JointNetwork, cases: Iterable[Case], spacing_mm: float, seed: int = 0) -> HeldOut:
    """Show held-out scans to a network as the engine does, and keep what it says where the truth is known.

    :param network: in evaluation mode.
    :param cases: on the network's grid; missing labels stay out of their head's rows.
    :param spacing_mm: of that grid.
    """
    rows: dict[str, list[tuple[np.ndarray, np.ndarray, str]]] = {head: [] for head in HEADS}
    descriptors, patients = [], []
    chance = np.random.default_rng(seed)
    for case in cases:
        patient = patient_of(case.record)
        look, read = show(network, case, spacing_mm)
        descriptors.append(read.descriptor[0].float().numpy())
        patients.append(patient)
        for head, order in (("severity", labels.SEVERITIES), ("diagnosis", labels.DIAGNOSES)):
            if (name := getattr(case.record, head)) is not None:
                rows[head].append((getattr(read, head).float().numpy(), np.array([order.index(name)]), patient))
        for head, truth in _known_masks(case, look.grid, spacing_mm).items():
            rows[head].append((*_drawn_voxels(getattr(look.segmentation, head)[0], truth, look, chance), patient))
    heads = {head: _labelled(found) for head, found in rows.items() if found}
    return HeldOut(heads, np.array(descriptors), np.array(patients))


def show(network: JointNetwork, case: Case, spacing_mm: float) -> tuple[Look, Classification]:
    """What a network in evaluation mode finds in a scan, as the engine lets it look: around the lungs.

    A network that finds no lungs, as in a trial, is shown the whole scan.

    :param spacing_mm: of the case's grid.
    """
    volume = upright_volume(case.hu, spacing_mm)
    whole = grid_of_whole(volume.geometry, spacing_mm, network.overview is not None)
    with torch.inference_mode():
        first = look_at(network.overview or network, normalised(volume, whole), whole, Progress())
        try:
            grid = grid_around_lungs(first, volume.geometry, spacing_mm)
        except NotChestCTError:
            grid = grid_of_whole(volume.geometry, spacing_mm, has_overview=False)
        look = look_at(network, normalised(volume, grid), grid, Progress())
        return look, look.classify(network)


def _known_masks(case: Case, grid: Geometry, spacing_mm: float) -> dict[str, np.ndarray]:
    """The masks that tell all of their head's classes, (z, y, x) on a grid; beyond the case nothing is annotated."""
    scan = upright_geometry(case.hu, spacing_mm)
    known = {}
    for head in ("lobes", "lesions"):
        mask = getattr(case, head)
        if mask is not None and not (head == "lesions" and (mask == LESION_OF_ANY_KIND).any()):
            known[head] = mask_in(mask, scan, grid, NOT_ANNOTATED).numpy()
    return known


def _drawn_voxels(
    logits: torch.Tensor, truth: np.ndarray, look: Look, chance: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, classes) and truth (n,) of random voxels that are lung to the network or labelled in the truth."""
    counts = (truth != NOT_ANNOTATED) & ((look.lobes > 0) | (truth > 0))
    places = np.flatnonzero(counts)
    drawn = chance.choice(places, min(VOXELS_PER_SCAN, len(places)), replace=False)
    return logits.flatten(1)[:, drawn].T.float().numpy(), truth.ravel()[drawn].astype(np.int64)


def _labelled(rows: list[tuple[np.ndarray, np.ndarray, str]]) -> Labelled:
    logits, truth, patients = zip(*rows, strict=True)
    of_rows = np.repeat(np.array(patients), [len(each) for each in truth])
    return Labelled(np.concatenate(logits), np.concatenate(truth), of_rows)

"""What a bundle is told of its calibration, and what the model card says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from COVIDMultitaskLib.engines.joint import HEADS
from COVIDMultitaskLib.errors import InputError
from training.calibration.held_out import HeldOut
from training.calibration.temperature import Calibration, calibrate
from training.calibration.unlikeness import UnlikenessFit, fit_unlikeness, independent_features


@dataclass(frozen=True)
class BundleCalibration:
    """The calibration of all heads, as far as the held-out scans allow.

    :param heads: by name; a head that could not be calibrated is left out and keeps temperature 1.
    :param unlikeness: ``None``: a makeshift stands in the settings.
    :param settings: "temperature" and "unlikeness" of ``configs/inference.json``.
    :param notes: one sentence for everything that could not be done.
    """

    heads: dict[str, Calibration]
    unlikeness: UnlikenessFit | None
    settings: dict[str, Any]
    notes: tuple[str, ...]


def calibrate_bundle(held_out: HeldOut, features: int) -> BundleCalibration:
    """Calibrate every head that enough held-out patients have a label for; say which could not be.

    :param features: how many of a descriptor's first entries tell whether a scan is like the training data.
    """
    heads, notes, unlikeness = {}, [], None
    for head in HEADS:
        try:
            heads[head] = calibrate(head, held_out.heads.get(head))
        except InputError as error:
            notes.append(str(error))
    try:
        unlikeness = fit_unlikeness(held_out.descriptors, held_out.patients, features)
    except InputError as error:
        notes.append(str(error))
    settings = {
        "temperature": {head: heads[head].temperature if head in heads else 1.0 for head in HEADS},
        "unlikeness": unlikeness.settings if unlikeness else independent_features(held_out.descriptors, features),
    }
    return BundleCalibration(heads, unlikeness, settings, tuple(notes))

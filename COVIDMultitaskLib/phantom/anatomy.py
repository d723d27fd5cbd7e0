"""All of one patient's anatomy as smooth fields on a coarse grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.phantom import organs, skeleton, thorax
from COVIDMultitaskLib.phantom.fields import Field, Grid, texture
from COVIDMultitaskLib.phantom.patient import Patient
from COVIDMultitaskLib.phantom.shapes import to_distance

COARSE_MM = 3.0
LOW, HIGH = (-27.0, -42.0, -216.0), (285.0, 248.0, 216.0)
"""Ends (z, y, x) of the space in which anatomy is known."""


@dataclass(frozen=True)
class Anatomy:
    """Distances (mm, negative inside) to the organs of one patient, and his lobes, on the coarse grid.

    :param fields: by name: body, cage, lungs, major, minor (fissures), mediastinum, heart, vessels, lumen,
        oesophagus, nodes, diaphragm, liver, spleen, stomach, bones.
    :param lobes: values of ``labels.LOBES`` where the lungs are, 0 elsewhere.
    """

    patient: Patient
    grid: Grid
    fields: dict[str, Field]
    lobes: np.ndarray

    def on(self, name: str, grid: Grid) -> np.ndarray:
        """One distance field on another grid."""
        return self.fields[name].on(grid)


def build_anatomy(patient: Patient) -> Anatomy:
    """The patient's anatomy; takes about a second."""
    grid = Grid.spanning(LOW, HIGH, COARSE_MM)
    bumps = texture(patient.seed, "bumps", 45.0, size=32).on(grid)
    waves = texture(patient.seed, "waves", 60.0, size=32).on(grid)
    arrays = _central(grid, patient, bumps)
    arrays["body"] = thorax.body(grid, patient.fat) + 1.0 * bumps
    arrays["cage"] = thorax.cage(grid) + 0.6 * waves
    arrays["lungs"] = thorax.lungs(grid, arrays["mediastinum"], patient) + 0.5 * bumps + 0.6 * waves
    arrays["lungs"] = np.maximum(arrays["lungs"], arrays["cage"] + 1.5)
    arrays["major"] = thorax.major_fissure(grid, patient, 3.0 * waves)
    arrays["minor"] = thorax.minor_fissure(grid, patient, 3.0 * bumps)
    arrays |= _abdomen(grid, patient, arrays["cage"], bumps)
    arrays["bones"] = np.minimum(skeleton.shoulders(grid, arrays["cage"]), skeleton.sternum(grid))
    lobes = thorax.lobes_of(arrays["major"], arrays["minor"], grid.x) * (arrays["lungs"] < 0)
    fields = {name: Field(array.astype(np.float32), grid) for name, array in arrays.items()}
    return Anatomy(patient, grid, fields, lobes.astype(np.uint8))


def _central(grid: Grid, patient: Patient, bumps: np.ndarray) -> dict[str, np.ndarray]:
    heart = organs.heart(grid, patient) + 1.5 * bumps
    vessels, lumen = organs.great_vessels(grid), organs.airway_lumen(grid)
    spine = skeleton.vertebral_bodies(grid)
    return {
        "heart": heart,
        "vessels": vessels,
        "lumen": lumen,
        "oesophagus": organs.oesophagus(grid),
        "nodes": organs.soft_tissue(grid) + bumps,
        "mediastinum": organs.mediastinum(grid, heart, vessels, lumen, spine),
    }


def _abdomen(grid: Grid, patient: Patient, cage: np.ndarray, bumps: np.ndarray) -> dict[str, np.ndarray]:
    below = to_distance(grid.z[:, None, None] - thorax.diaphragm(grid, patient) + np.zeros_like(cage), grid)
    inner = below + 3.0  # the muscle's thickness
    return {
        "diaphragm": below,
        "liver": organs.liver(grid, inner, cage) + bumps,
        "spleen": organs.spleen(grid, inner, cage) + bumps,
        "stomach": organs.stomach(grid, inner, cage) + bumps,
    }

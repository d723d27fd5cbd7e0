"""What the model card tells of the simulation, from the constants that scans are drawn with."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from COVIDMultitaskLib import labels
from training.synthesis import acquisition, body, chest, disease, literature, lungs, shape, trees
from training.synthesis.appearance import HELD_OUT, TRAIN, shares_between
from training.synthesis.cases import HELD_OUT_SHAPES


def simulation_facts() -> dict[str, Any]:
    """The simulator's version and numbers, by part.

    Ranges are (least, most), or several of these. Shares are from 0 to 1, attenuation is in HU, lengths are in mm and
    volumes in ml.
    """
    return {
        "simulator": chest.SIMULATOR,
        "shape": _shape(),
        "body": {"fat_mm": body.FAT_MM, "contrast": body.CONTRAST_CHANCE},
        "lungs": _lungs(),
        "disease": _disease(),
        "mild": _mild(),
        "scanner": _scanner(),
        "trained": asdict(TRAIN),
        "held_out": {**asdict(HELD_OUT), "shapes": HELD_OUT_SHAPES, "between": shares_between()},
    }


def _shape() -> dict[str, Any]:
    widest = math.exp(shape.STRETCH)
    return {
        "tilt_degrees": math.degrees(shape.LARGEST_TILT),
        "scale": (shape.SCALE[0] / widest, shape.SCALE[1] * widest),
        "displaced_mm": shape.DISPLACEMENT_MM[1],
        "diaphragm_raised": shape.DIAPHRAGM_RAISED,
        "aorta_moved": shape.AORTA_MOVED,
        "enlarged": {name: chance for name, (chance, _, _) in shape.ENLARGED.items()},
    }


def _lungs() -> dict[str, Any]:
    return {
        "parenchyma_hu": lungs.PARENCHYMA_HU,
        "mosaic": lungs.MOSAIC_CHANCE,
        "emphysema": lungs.EMPHYSEMA_CHANCE,
        "dependent": lungs.DEPENDENT_CHANCE,
        "ml_per_end": trees.ML_PER_END,
    }


def _disease() -> dict[str, Any]:
    on_any_side = 1 - (1 - disease.EFFUSION_OF_A_SIDE) ** len(labels.LUNGS)
    return {
        "diagnoses": chest.DIAGNOSES,
        "patterns": disease.PATTERNS,
        "effusion": {name: chance * on_any_side for name, chance in chest.EFFUSION_CHANCE.items()},
        "moderate_count": disease.MODERATE_COUNT,
        "moderate_share": disease.MODERATE_SHARE,
        "diffuse_share": disease.DIFFUSE_SHARE,
        "crazy_paving": disease.CRAZY_PAVING_CHANCE,
        "above_lung_hu": disease.GLASS_ABOVE_LUNG_HU,
        "severe_above_percent": chest.SEVERE_ABOVE_PERCENT,
        "peripheral": literature.COVID_PERIPHERAL,
        "bilateral": literature.COVID_BILATERAL,
        "consolidation": literature.COVID_CONSOLIDATION,
    }


def _mild() -> dict[str, Any]:
    """Mild COVID-19 and the masks that its lesions are made to match."""
    return {
        "masks": literature.MASKS_MEASURED,
        "licence": literature.MASKS_LICENCE,
        "pieces": literature.MILD_COVID.components,
        "total_ml": literature.MILD_COVID.total_ml,
        "largest_count": literature.LARGEST_COUNT,
    }


def _scanner() -> dict[str, Any]:
    return {
        "slices_mm": acquisition.SLICES_MM,
        "common_slices": acquisition.COMMON_SLICES_CHANCE,
        "slices": acquisition.SLICES,
        "pixel_mm": acquisition.PIXEL_MM,
        "cut": acquisition.CUT_CHANCE,
        "round_field": acquisition.ROUND_FIELD_CHANCE,
        "round_field_mm": acquisition.ROUND_FIELD_MM,
    }

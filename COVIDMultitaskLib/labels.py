"""The one place where labels, names, colours and codes are declared.

Label values are those written to ``lobes.nrrd``, ``lungs.nrrd`` and ``lesions.nrrd`` and learned
by the networks. Colours are sRGB in 0..255. Codes are SNOMED CT unless a scheme is
named.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A coded concept ``scheme^value^meaning`` as DICOM and Slicer terminologies use it."""

    value: str
    meaning: str
    scheme: str = "SCT"


@dataclass(frozen=True)
class Label:
    """One label of a label map.

    :param value: voxel value in the label map.
    :param key: identifier in JSON, column names and training records.
    :param name: what a radiologist reads.
    :param color: sRGB, 0..255.
    :param type_code: what the segment is (or where, for a lobe).
    :param modifier: laterality, where it has one.
    :param category: terminology category of the segment.
    """

    value: int
    key: str
    name: str
    color: tuple[int, int, int]
    type_code: Code
    category: Code
    modifier: Code | None = None


ANATOMICAL_STRUCTURE = Code("123037004", "Anatomical Structure")
MORPHOLOGICALLY_ALTERED_STRUCTURE = Code("49755003", "Morphologically Altered Structure")
LUNG = Code("39607008", "Lung")
RIGHT = Code("24028007", "Right")
LEFT = Code("7771000", "Left")

LEFT_UPPER, LEFT_LOWER, RIGHT_UPPER, RIGHT_MIDDLE, RIGHT_LOWER = 1, 2, 3, 4, 5
GROUND_GLASS, CONSOLIDATION = 1, 2

_UPPER_LOBE = Code("45653009", "Upper lobe of lung")
_LOWER_LOBE = Code("90572001", "Lower lobe of lung")
_MIDDLE_LOBE = Code("72481006", "Middle lobe of right lung")

LOBES: tuple[Label, ...] = (
    Label(LEFT_UPPER, "left_upper", "Left upper lobe", (86, 156, 214), _UPPER_LOBE, ANATOMICAL_STRUCTURE, LEFT),
    Label(LEFT_LOWER, "left_lower", "Left lower lobe", (78, 201, 176), _LOWER_LOBE, ANATOMICAL_STRUCTURE, LEFT),
    Label(RIGHT_UPPER, "right_upper", "Right upper lobe", (197, 134, 192), _UPPER_LOBE, ANATOMICAL_STRUCTURE, RIGHT),
    Label(
        RIGHT_MIDDLE, "right_middle", "Right middle lobe", (220, 205, 121), _MIDDLE_LOBE, ANATOMICAL_STRUCTURE, RIGHT
    ),
    Label(RIGHT_LOWER, "right_lower", "Right lower lobe", (148, 120, 206), _LOWER_LOBE, ANATOMICAL_STRUCTURE, RIGHT),
)

LESIONS: tuple[Label, ...] = (
    Label(
        GROUND_GLASS,
        "ground_glass",
        "Ground-glass opacity",
        (255, 165, 0),
        Code("112120", "Ground glass opacity", "DCM"),
        MORPHOLOGICALLY_ALTERED_STRUCTURE,
    ),
    Label(
        CONSOLIDATION,
        "consolidation",
        "Consolidation",
        (220, 38, 38),
        Code("9656002", "Consolidation"),
        MORPHOLOGICALLY_ALTERED_STRUCTURE,
    ),
)

LUNG_LABELS: tuple[Label, ...] = (
    Label(1, "left", "Left lung", (86, 156, 214), LUNG, ANATOMICAL_STRUCTURE, LEFT),
    Label(2, "right", "Right lung", (197, 134, 192), LUNG, ANATOMICAL_STRUCTURE, RIGHT),
)
"""Where an engine knows the lungs but not their lobes."""

LUNGS: dict[str, tuple[int, ...]] = {
    "left": (LEFT_UPPER, LEFT_LOWER),
    "right": (RIGHT_UPPER, RIGHT_MIDDLE, RIGHT_LOWER),
}
"""Lobe values that make up each lung, by the patient's side."""

DIAGNOSES: tuple[str, ...] = ("no_pneumonia", "other_pneumonia", "covid_19")
"""Order of the diagnosis logits."""

DIAGNOSIS_NAMES: dict[str, str] = {
    "no_pneumonia": "No pneumonia",
    "other_pneumonia": "Other pneumonia",
    "covid_19": "COVID-19",
}

SEVERITIES: tuple[str, ...] = ("not_severe", "severe")
"""Order of the severity logits."""

"""How others number the lobes, and the way to ours (``COVIDMultitaskLib.labels``)."""

from __future__ import annotations

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import LEFT_LOWER, LEFT_UPPER, LOBES, RIGHT_LOWER, RIGHT_MIDDLE, RIGHT_UPPER
from training.data.record import LEFT_LUNG, LUNG_OF_ANY_SIDE, RIGHT_LUNG, Codes

_OURS = {label.value: label.value for label in LOBES}

LOBE_CODES: dict[str, Codes] = {
    # ours, and that of lungmask's LTRCLobes
    "covid_multitask": Codes(_OURS),
    "lungmask": Codes(_OURS),
    # LUNA16 releases hold the lungs, the trachea and borders under other numbers
    "luna16": Codes(
        {4: RIGHT_UPPER, 5: RIGHT_MIDDLE, 6: RIGHT_LOWER, 7: LEFT_UPPER, 8: LEFT_LOWER},
        strict=False,
    ),
    "lola11": Codes({10: LEFT_UPPER, 11: LEFT_LOWER, 20: RIGHT_UPPER, 21: RIGHT_MIDDLE, 22: RIGHT_LOWER}),
    # class indices of TotalSegmentator v2's merged map, which holds a hundred other structures
    "totalsegmentator": Codes(
        {10: LEFT_UPPER, 11: LEFT_LOWER, 12: RIGHT_UPPER, 13: RIGHT_MIDDLE, 14: RIGHT_LOWER}, strict=False
    ),
}
"""Conventions by name."""

LUNG_CODES: dict[str, Codes] = {
    "any": Codes.threshold(0, LUNG_OF_ANY_SIDE),
    "left_right": Codes({1: LEFT_LUNG, 2: RIGHT_LUNG}),
    "right_left": Codes({1: RIGHT_LUNG, 2: LEFT_LUNG}),  # lungmask's R231
}
"""Lung masks: without sides, left 1 and right 2, or right 1 and left 2."""


def lobe_codes(convention: str) -> Codes:
    """:raises InputError: for an unknown convention."""
    if convention not in LOBE_CODES:
        raise InputError(f'The lobe convention "{convention}" is unknown; choose one of {", ".join(LOBE_CODES)}.')
    return LOBE_CODES[convention]

"""Whether contrast medium was given, from what a DICOM header says of it."""

from __future__ import annotations

_NONE_GIVEN = frozenset({"NO", "NONE", "N", "NO CONTRAST", "WITHOUT", "W/O"})


def contrast_given(agent: str) -> bool | None:
    """Read the text of Contrast/Bolus Agent (0018,0010); None: an empty one is no proof that none was given.

    >>> contrast_given("Iohexol"), contrast_given(" none "), contrast_given("")
    (True, False, None)
    """
    text = agent.strip().upper()
    return text not in _NONE_GIVEN if text else None

"""Rows of buttons that do not fit beside each other stand below each other: large fonts in a narrow panel."""

from __future__ import annotations

import qt

ROWS = ("bundleRow", "shownRow", "evidenceRow", "windowRow", "editRow", "restoreRow", "exportRow", "exportMoreRow")
"""Widgets, not layouts: to PythonQt a layout is false, and ``childWidgetVariables`` passes over it, while all that it
holds is hidden in a collapsed section."""

ROOM = 320
"""Pixels for a row in a panel of 350."""


def arrangeRows(ui) -> None:
    """Choose the direction of every row by what its buttons need with the present font."""
    for name in ROWS:
        row = getattr(ui, name).layout()
        row.setDirection(qt.QBoxLayout.LeftToRight)
        row.invalidate()
        if row.minimumSize().width() > ROOM:
            row.setDirection(qt.QBoxLayout.TopToBottom)

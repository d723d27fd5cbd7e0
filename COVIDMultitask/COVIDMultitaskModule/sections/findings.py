"""Findings: what was found in the chosen scan, and a way to each place."""

from __future__ import annotations

from ..compat import tr as _
from ..display import centerOf, jumpTo
from ..findings import FindingsView
from ..findings_html import LOBE_LINK, findingsHtml, researchHtml
from ..rows import ROOM
from ..scene_writer import readRecord, readResults

LINES_ACROSS = 20
"""How many times the height of a line the table of lobes is wide."""


class FindingsSection:
    """Shows the findings that the scene holds for a scan; they survive saving and loading it."""

    def __init__(self, ui) -> None:
        self.ui = ui
        self.volume = None
        self._places: list = []
        ui.placesList.connect("currentRowChanged(int)", self._visit)
        ui.placesList.connect("itemClicked(QListWidgetItem*)", self._visitAgain)
        ui.findingsLabel.connect("linkActivated(QString)", self._follow)

    def show(self, volumeNode, isDark: bool) -> None:
        """Show what the scene holds for a volume (or ``None``)."""
        self.volume = volumeNode
        view = readRecord(volumeNode) if volumeNode is not None else None
        self.ui.researchLabel.text = researchHtml(view or FindingsView({}), isDark)
        self._list(view)
        if view is not None:
            isNarrow = LINES_ACROSS * self.ui.findingsLabel.fontMetrics().height() > ROOM
            self.ui.findingsLabel.text = findingsHtml(view, isDark, isNarrow)
        elif volumeNode is None:
            self.ui.findingsLabel.text = _("Choose a chest CT and press Apply.")
        else:
            self.ui.findingsLabel.text = _("Not analysed yet: press Apply.")

    def _list(self, view: FindingsView | None) -> None:
        self._places = [*view.places, *view.parts] if view is not None else []
        self.ui.placesList.blockSignals(True)
        self.ui.placesList.clear()
        for place in self._places:
            self.ui.placesList.addItem(place.title + (f" ({place.detail})" if place.detail else ""))
        self.ui.placesList.blockSignals(False)
        self.ui.placesList.visible = bool(self._places)
        self.ui.placesLabel.visible = bool(self._places)

    def _visit(self, row: int) -> None:
        if self.volume is not None and 0 <= row < len(self._places):
            jumpTo(self.volume, self._places[row].ras)

    def _visitAgain(self) -> None:
        self._visit(self.ui.placesList.currentRow)

    def _follow(self, link: str) -> None:
        nodes = readResults(self.volume) if self.volume is not None else None
        if nodes is None or nodes.lobes is None or not link.startswith(LOBE_LINK):
            return
        center = centerOf(nodes.lobes, link[len(LOBE_LINK) :])
        if center is not None:
            jumpTo(nodes.lobes, center)

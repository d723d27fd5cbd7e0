"""Display: how the results look in the views."""

from __future__ import annotations

import slicer

from .. import display
from ..scene_writer import readResults

_WIDGETS = ("lobesCheck", "lesionsCheck", "outlineCheck", "surfaceCheck", "opacitySlider")


class DisplaySection:
    """Shows, hides and outlines the results of the chosen scan."""

    def __init__(self, ui) -> None:
        self.ui = ui
        self.volume = None
        ui.lobesCheck.connect("toggled(bool)", self._apply)
        ui.lesionsCheck.connect("toggled(bool)", self._apply)
        ui.outlineCheck.connect("toggled(bool)", self._apply)
        ui.surfaceCheck.connect("toggled(bool)", self._applySurfaces)
        ui.opacitySlider.connect("valueChanged(double)", self._apply)
        ui.lungButton.connect("clicked()", self._lungWindow)
        ui.mediastinumButton.connect("clicked()", self._mediastinumWindow)
        ui.layoutButton.connect("clicked()", self._layout)

    def show(self, volumeNode) -> None:
        """Take over how the results of a volume look now."""
        self.volume = volumeNode
        nodes = self._nodes()
        for name in _WIDGETS:
            getattr(self.ui, name).enabled = nodes is not None
        for name in ("lungButton", "mediastinumButton"):
            getattr(self.ui, name).enabled = volumeNode is not None
        if nodes is not None:
            self._take(nodes)

    def _take(self, nodes) -> None:
        for box, node in ((self.ui.lobesCheck, nodes.lobes), (self.ui.lesionsCheck, nodes.lesions)):
            box.enabled = node is not None
            box.blockSignals(True)
            box.checked = node is not None and bool(node.GetDisplayNode().GetVisibility())
            box.blockSignals(False)

    def _nodes(self):
        return readResults(self.volume) if self.volume is not None else None

    def _apply(self) -> None:
        nodes = self._nodes()
        if nodes is None:
            return
        display.setVisible(nodes.lobes, self.ui.lobesCheck.checked)
        display.setVisible(nodes.lesions, self.ui.lesionsCheck.checked)
        for node in (nodes.lobes, nodes.lesions):
            display.setOutlineOnly(node, self.ui.outlineCheck.checked)
            display.setOpacity(node, self.ui.opacitySlider.value)

    def _applySurfaces(self) -> None:
        nodes = self._nodes()
        for node in (nodes.lobes, nodes.lesions) if nodes is not None else ():
            display.setShownIn3D(node, self.ui.surfaceCheck.checked)

    def _lungWindow(self) -> None:
        display.setWindow(self.volume, display.LUNG_WINDOW)

    def _mediastinumWindow(self) -> None:
        display.setWindow(self.volume, display.MEDIASTINUM_WINDOW)

    def _layout(self) -> None:
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalWidescreenView)

"""Display: how the results look in the views."""

from __future__ import annotations

import slicer

from .. import display
from ..compat import busy, changeLayout
from ..compat import tr as _
from ..evidence import evidenceMaps
from ..findings import evidenceTitle
from ..scene_writer import readResults

_WIDGETS = ("lobesCheck", "lesionsCheck", "outlineCheck", "surfaceCheck", "opacitySlider")
_EVIDENCE = ("evidenceLabel", "evidenceRow")
_BESIDE_3D = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalWidescreenView


class DisplaySection:
    """Shows, hides and outlines the results of the chosen scan."""

    def __init__(self, ui) -> None:
        self.ui = ui
        self.volume = None
        self._maps: list[str] = []
        self._layoutBefore = -1
        ui.lobesCheck.connect("toggled(bool)", self._apply)
        ui.lesionsCheck.connect("toggled(bool)", self._apply)
        ui.outlineCheck.connect("toggled(bool)", self._apply)
        ui.surfaceCheck.connect("toggled(bool)", self._applySurfaces)
        ui.opacitySlider.connect("valueChanged(double)", self._apply)
        ui.evidenceSelector.connect("currentIndexChanged(int)", self._applyEvidence)
        ui.evidenceSlider.connect("valueChanged(double)", self._applyEvidence)
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
        self._takeEvidence()

    def present(self, volumeNode) -> None:
        """Set the views up for the first results of a volume."""
        display.present(volumeNode)

    def _take(self, nodes) -> None:
        shown = list(nodes.segmentations.values())
        looks = [node.GetDisplayNode() for node in shown]
        for box, kind in self._boxes(nodes):
            node = nodes.segmentations.get(kind)
            box.enabled = node is not None
            self._check(box, node is not None and bool(node.GetDisplayNode().GetVisibility()))
        self.ui.lobesCheck.text = _("B&oth lungs") if nodes.anatomy == "lungs" else _("L&obes")
        self._check(self.ui.outlineCheck, bool(looks) and not any(look.GetVisibility2DFill() for look in looks))
        self._check(self.ui.surfaceCheck, any(display.isShownIn3D(node) for node in shown))
        if looks:
            self._set(self.ui.opacitySlider, looks[-1].GetOpacity())

    def _boxes(self, nodes):
        return (self.ui.lobesCheck, nodes.anatomy), (self.ui.lesionsCheck, "lesions")

    def _check(self, box, isChecked: bool) -> None:
        box.blockSignals(True)
        box.checked = isChecked
        box.blockSignals(False)

    def _set(self, slider, value: float) -> None:
        slider.blockSignals(True)
        slider.value = value
        slider.blockSignals(False)

    def _takeEvidence(self) -> None:
        self._maps = list(evidenceMaps(self.volume)) if self.volume is not None else []
        shown = display.evidenceShown(self.volume) if self._maps else None
        selector = self.ui.evidenceSelector
        selector.blockSignals(True)
        selector.clear()
        for title in (_("Off"), *(evidenceTitle(name) for name in self._maps)):
            selector.addItem(title)
        selector.currentIndex = self._maps.index(shown[0]) + 1 if shown else 0
        selector.blockSignals(False)
        if shown:
            self._set(self.ui.evidenceSlider, shown[1])
        for name in _EVIDENCE:
            getattr(self.ui, name).visible = bool(self._maps)

    def _nodes(self):
        return readResults(self.volume) if self.volume is not None else None

    def _apply(self) -> None:
        nodes = self._nodes()
        if nodes is None:
            return
        for box, kind in self._boxes(nodes):
            display.setVisible(nodes.segmentations.get(kind), box.checked)
        for node in nodes.segmentations.values():
            display.setOutlineOnly(node, self.ui.outlineCheck.checked)
            display.setOpacity(node, self.ui.opacitySlider.value)

    def _applySurfaces(self) -> None:
        nodes = self._nodes()
        if nodes is None:
            return
        with busy():
            for node in nodes.segmentations.values():
                display.setShownIn3D(node, self.ui.surfaceCheck.checked)
        if self.ui.surfaceCheck.checked:
            display.center3D()

    def _applyEvidence(self) -> None:
        if self.volume is None:
            return
        index = self.ui.evidenceSelector.currentIndex
        name = self._maps[index - 1] if 0 < index <= len(self._maps) else None
        shown = evidenceMaps(self.volume).get(name) if name else None
        display.setEvidenceShown(self.volume, shown, self.ui.evidenceSlider.value)

    def _lungWindow(self) -> None:
        display.setWindow(self.volume, display.LUNG_WINDOW)

    def _mediastinumWindow(self) -> None:
        display.setWindow(self.volume, display.MEDIASTINUM_WINDOW)

    def _layout(self) -> None:
        """Beside the 3D view; pressed again, the layout that the user had."""
        before = changeLayout(_BESIDE_3D)
        if before == _BESIDE_3D and self._layoutBefore >= 0:
            changeLayout(self._layoutBefore)
        else:
            self._layoutBefore = before
        display.center3D()

"""Scan: which CT, and what matters about it."""

from __future__ import annotations

import html
from collections.abc import Callable

import slicer
import vtk

from ..compat import tr as _
from ..findings_html import Shades
from ..parameter import volumeProblem
from ..scan_summary import describeScan


class ScanSection:
    """Shows what matters about the chosen volume.

    :param onChosen: called with the volume, or ``None``, when another is chosen.
    :param onModified: called when the chosen one changes: it may be chosen before its voxels are there.
    :param onSample: called when the user wants a sample scan.
    """

    def __init__(self, ui, onChosen: Callable, onModified: Callable[[], None], onSample: Callable[[], None]) -> None:
        self.ui = ui
        self._onChosen = onChosen
        self._onModified = onModified
        self._observed: list = []
        ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._chosen)
        ui.sampleButton.connect("clicked()", onSample)

    @property
    def volume(self):
        """The chosen volume node, or ``None``."""
        return self.ui.inputSelector.currentNode()

    def choose(self, volumeNode) -> None:
        """Choose a volume."""
        self.ui.inputSelector.setCurrentNode(volumeNode)

    def setEnabled(self, isEnabled: bool) -> None:
        """While an analysis runs, its scan stays chosen."""
        self.ui.inputSelector.enabled = isEnabled
        self.ui.sampleButton.enabled = isEnabled

    def _chosen(self, node) -> None:
        self.watch(node)
        self._onChosen(node)

    def watch(self, node) -> None:
        """Follow the changes of a volume, or of none."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed = []
        if node is not None:
            events = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
                      slicer.vtkMRMLTransformableNode.TransformModifiedEvent)  # fmt: skip
            self._observed = [(node, node.AddObserver(event, self._modified)) for event in events]

    def _modified(self, caller, event) -> None:
        self._onModified()

    def show(self, isDark: bool) -> None:
        """Describe the chosen volume."""
        volume = self.volume
        if volume is None or volumeProblem(volume):
            self.ui.scanLabel.text = html.escape(volumeProblem(volume) or "") if volume is not None else ""
            self.ui.scanLabel.visible = volume is not None
            return
        shades = Shades.of(isDark)
        summary = describeScan(volume)
        facts = "<br>".join(f'<font color="{shades.quiet}">{html.escape(fact)}</font>' for fact in summary.facts)
        warnings = "".join(
            f'<br><font color="{shades.warning}">&#9888; {html.escape(text)}</font>' for text in summary.warnings
        )
        self.ui.scanLabel.text = facts + warnings
        self.ui.scanLabel.visible = True
        self.ui.sampleButton.toolTip = _("Make a phantom of a chest with known disease and choose it.")

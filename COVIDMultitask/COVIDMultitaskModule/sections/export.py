"""Export: files and nodes of the chosen scan's results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

from COVIDMultitaskLib.errors import CovidMultitaskError

from .. import export
from ..compat import busy
from ..compat import tr as _
from ..scene_writer import exportLabelmap, readResults, writeLesionTable

_BUTTONS = ("exportFolderButton", "exportNodesButton", "exportPicturesButton", "exportSceneButton", "exportSegButton")


class ExportSection:
    """Writes the results of the chosen scan to files, or as label maps and tables into the scene.

    :param say: shows one sentence to the user.
    """

    def __init__(self, ui, say: Callable[[str], None]) -> None:
        self.ui = ui
        self.volume = None
        self._say = say
        self._segToolTip = ui.exportSegButton.toolTip
        for name in export.FORMATS:
            ui.formatSelector.addItem(name)
        ui.exportFolderButton.connect("clicked()", self._toFolder)
        ui.exportNodesButton.connect("clicked()", self._toNodes)
        ui.exportPicturesButton.connect("clicked()", self._toPictures)
        ui.exportSceneButton.connect("clicked()", self._toScene)
        ui.exportSegButton.connect("clicked()", self._toSeg)

    def show(self, volumeNode) -> None:
        """Offer what there is of a volume."""
        self.volume = volumeNode
        hasResults = volumeNode is not None and readResults(volumeNode) is not None
        for name in _BUTTONS:
            getattr(self.ui, name).enabled = hasResults
        problem = export.dicomSegProblem(volumeNode) if hasResults else None
        self.ui.exportSegButton.enabled = hasResults and problem is None
        self.ui.exportSegButton.toolTip = problem or self._segToolTip

    def _toFolder(self) -> None:
        folder = self._askFolder(_("Folder for the results"))
        if folder is None:
            return
        question = _("{folder} holds results already. Replace them?").format(folder=folder)
        if export.holdsCase(folder) and not slicer.util.confirmOkCancelDisplay(question):
            return
        suffix = export.FORMATS[self.ui.formatSelector.currentText]
        self._write(folder, lambda: export.exportCase(self.volume, folder, suffix, overwrite=True))

    def _toPictures(self) -> None:
        folder = self._askFolder(_("Folder for the pictures"))
        if folder is None:
            return
        self._write(folder, lambda: export.exportPictures(self.volume, folder))
        if not export.canDrawOverview():
            self._say(self.ui.statusLabel.text + " " + _("An overview of the case needs the package matplotlib."))

    def _toScene(self) -> None:
        chosen = qt.QFileDialog.getSaveFileName(None, _("Save the scene"), "case.mrb", "MRB (*.mrb)")
        if not chosen:
            return
        path = Path(chosen if chosen.lower().endswith(".mrb") else chosen + ".mrb")
        self._write(path.parent, lambda: export.exportScene(slicer.mrmlScene, path))

    def _toSeg(self) -> None:
        folder = self._askFolder(_("Folder for the DICOM files"))
        if folder is not None:
            self._write(folder, lambda: export.exportDicomSeg(self.volume, folder))

    def _askFolder(self, title: str) -> Path | None:
        folder = qt.QFileDialog.getExistingDirectory(None, title)
        return Path(folder) if folder else None

    def _write(self, folder: Path, write: Callable[[], list[Path]]) -> None:
        try:
            with busy():
                written = write()
        except CovidMultitaskError as error:
            self._say(str(error))
        else:
            names = ", ".join(path.name for path in written)
            self._say(_("Written to {folder}: {names}.").format(folder=folder, names=names))

    def _toNodes(self) -> None:
        nodes = readResults(self.volume)
        if nodes is None:
            return
        made = [exportLabelmap(node, self.volume) for node in nodes.segmentations.values()]
        if nodes.lesions is not None:
            made.append(writeLesionTable(self.volume))
        self._say(_("Made in the scene: {names}.").format(names=", ".join(node.GetName() for node in made)))

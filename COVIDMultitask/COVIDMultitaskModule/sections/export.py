"""Export: files and nodes of the chosen scan's results."""

from __future__ import annotations

from pathlib import Path

import qt

from COVIDMultitaskLib.errors import CovidMultitaskError

from ..compat import tr as _
from ..export import FORMATS, exportCase
from ..scene_writer import exportLabelmap, readResults


class ExportSection:
    """Writes the results of the chosen scan to a folder, or as label maps into the scene.

    :param say: shows one sentence to the user.
    """

    def __init__(self, ui, say) -> None:
        self.ui = ui
        self.volume = None
        self._say = say
        for name in FORMATS:
            ui.formatSelector.addItem(name)
        ui.exportFolderButton.connect("clicked()", self._toFolder)
        ui.exportNodesButton.connect("clicked()", self._toNodes)

    def show(self, volumeNode) -> None:
        """Offer what there is of a volume."""
        self.volume = volumeNode
        hasResults = volumeNode is not None and readResults(volumeNode) is not None
        self.ui.exportFolderButton.enabled = hasResults
        self.ui.exportNodesButton.enabled = hasResults

    def _toFolder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the results"))
        if not folder:
            return
        try:
            written = exportCase(self.volume, Path(folder), FORMATS[self.ui.formatSelector.currentText])
        except CovidMultitaskError as error:
            self._say(str(error))
        else:
            self._say(_("{n} files written to {folder}.").format(n=len(written), folder=folder))

    def _toNodes(self) -> None:
        nodes = readResults(self.volume)
        if nodes is None:
            return
        made = [exportLabelmap(node, self.volume) for node in (nodes.lobes, nodes.lesions) if node is not None]
        self._say(_("Label maps made: {names}.").format(names=", ".join(node.GetName() for node in made)))

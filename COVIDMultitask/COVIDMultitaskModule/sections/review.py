"""Review and correct: masks are edited in the Segment Editor, the findings follow."""

from __future__ import annotations

from collections.abc import Callable

import qt

from COVIDMultitaskLib.errors import CovidMultitaskError

from .. import compat
from ..compat import tr as _
from ..correction import Corrections, warmUp
from ..parameter import isInScene
from ..scene_writer import LABELS, ResultNodes, readRecord, readResults

DEBOUNCE_MS = 300


class ReviewSection:
    """Opens the Segment Editor and measures again some moments after each change.

    :param onMeasured: called when the findings in the scene have changed.
    """

    def __init__(self, ui, onMeasured: Callable[[], None]) -> None:
        self.ui = ui
        self._onMeasured = onMeasured
        self._corrections: Corrections | None = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DEBOUNCE_MS)
        self._timer.connect("timeout()", self.measure)
        self._later = qt.QTimer()
        self._later.setSingleShot(True)
        self._later.setInterval(DEBOUNCE_MS)
        self._later.connect("timeout()", self._catchUp)
        ui.editLesionsButton.connect("clicked()", self._editLesions)
        ui.editLobesButton.connect("clicked()", self._editLobes)
        ui.restoreButton.connect("clicked()", self._restore)
        ui.undoRestoreButton.connect("clicked()", self._undo)
        ui.reviewerEdit.connect("editingFinished()", self._named)

    def watch(self, volumeNode) -> None:
        """Watch the masks of a volume (or ``None``) from now on; what was watched already keeps its undo."""
        if self._corrections is not None and self._corrections.isWatching(volumeNode):
            self.update()
            return
        if self._corrections is not None and self._corrections.isPending:
            self.measure()
        self.release()
        if volumeNode is not None and readResults(volumeNode) is not None:
            self._corrections = Corrections(volumeNode, self._timer.start)
            self._later.start()
        self.update()

    def release(self) -> None:
        """Watch nothing."""
        self._timer.stop()
        self._later.stop()
        if self._corrections is not None:
            self._corrections.release()
            self._corrections = None

    def update(self) -> None:
        """Let the buttons show what is possible."""
        corrections = self._corrections
        nodes = readResults(corrections.volumeNode) if corrections is not None else None
        view = readRecord(corrections.volumeNode) if corrections is not None else None
        self.ui.editLesionsButton.enabled = nodes is not None and nodes.lesions is not None
        self.ui.editLobesButton.enabled = nodes is not None and nodes.anatomy is not None
        isLungs = nodes is not None and nodes.anatomy == "lungs"
        self.ui.editLobesButton.text = _("Edit &both lungs") if isLungs else _("Edit lo&bes")
        self.ui.restoreButton.enabled = view is not None and view.correction is not None
        self.ui.undoRestoreButton.enabled = corrections is not None and corrections.canUndo
        if view is None:
            self.ui.reviewLabel.text = ""
        elif view.correction is None:
            self.ui.reviewLabel.text = _("The masks are the model's own.")
        else:
            self.ui.reviewLabel.text = _("Corrected masks: the findings show both, the model's and the corrected.")

    def measure(self) -> None:
        """Measure the masks as they are now."""
        corrections = self._corrections
        if corrections is None or not isInScene(corrections.volumeNode):
            return
        try:
            corrections.measure(self.ui.reviewerEdit.text)
        except CovidMultitaskError as error:
            self.ui.reviewLabel.text = str(error)
            return
        self.update()
        self._onMeasured()

    def _catchUp(self) -> None:
        """Measure what was changed while nobody watched."""
        corrections = self._corrections
        if corrections is None or not isInScene(corrections.volumeNode):
            return
        if corrections.catchUp(self.ui.reviewerEdit.text):
            self.update()
            self._onMeasured()

    def _named(self) -> None:
        """The reader may give the name after the correction."""
        view = readRecord(self._corrections.volumeNode) if self._corrections is not None else None
        if view is not None and view.correction is not None and view.correction.by != self.ui.reviewerEdit.text.strip():
            self.measure()

    def _editLesions(self) -> None:
        self._edit(lambda nodes: "lesions")

    def _editLobes(self) -> None:
        self._edit(lambda nodes: nodes.anatomy)

    def _edit(self, kindOf: Callable[[ResultNodes], str | None]) -> None:
        """Open the Segment Editor on the kind of segmentation that is chosen among the results, if it is there."""
        if self._corrections is None:
            return
        volume = self._corrections.volumeNode
        nodes = readResults(volume)
        kind = None if nodes is None else kindOf(nodes)
        if nodes is not None and kind in nodes.segmentations:
            warmUp()
            compat.openSegmentEditor(nodes.segmentations[kind], volume, LABELS[kind][0].key)

    def _restore(self) -> None:
        if self._corrections is not None:
            self._corrections.restore()
            self.measure()

    def _undo(self) -> None:
        if self._corrections is not None:
            self._corrections.undoRestore()
            self.measure()

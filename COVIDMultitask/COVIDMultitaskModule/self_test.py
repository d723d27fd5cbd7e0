"""The self-test: what ``COVIDMultitaskTest.runTest`` does inside Slicer, step by step, without network.

A step gets the test case, for its assertions, starts from an empty scene and returns in words what it checked. Those
of the panel press its buttons; they need the module's widget.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import TestCase

import numpy as np
import slicer
import vtk

from .compat import goTo, missingPackages, processEvents, segmentEditor, widgetOf
from .correction import Corrections
from .display import evidenceShown, setEvidenceShown, sliceComposites
from .engines import listEngines
from .evidence import evidenceMaps
from .exchange import Results
from .export import exportCase, exportScene
from .scene_writer import exportLabelmap, readMask, readRecord, readResults, writeResults

SPACING_MM = (6.0, 4.0, 4.0)
"""Of the phantom (z, y, x): coarse, so that a CPU is through with it in seconds."""
PATIENCE_S = 300.0
"""How long a step may take on a busy computer; on a quiet one each is through in seconds."""


def resultsLieOnTheScan(test: TestCase) -> str:
    """Labels written for a tilted scan under a transform come back on the same voxels."""
    scan, lobes = _tiltedScan()
    nodes: Any = writeResults(scan, Results(lobes, None, {}))
    labelmap = exportLabelmap(nodes.lobes, scan)
    test.assertTrue(np.array_equal(slicer.util.arrayFromVolume(labelmap), lobes))
    test.assertEqual(nodes.lobes.GetTransformNodeID(), scan.GetTransformNodeID())
    return f"{np.count_nonzero(lobes)} labelled voxels of a tilted scan under a transform came back in their places"


def correctionIsMeasured(test: TestCase) -> str:
    """A mask that is changed gives other findings; the model's mask comes back."""
    scan, lobes = _tiltedScan()
    lesions = np.zeros_like(lobes)
    lesions[3, 6:9, 4:8] = 1
    nodes = writeResults(scan, Results(lobes, lesions, {}))
    changes: list[int] = []
    corrections = Corrections(scan, lambda: changes.append(1))
    _setSegment(nodes.lesions, "ground_glass", lobes > 0, scan)
    test.assertTrue(changes)
    corrections.measure("self-test")
    test.assertAlmostEqual(_record(scan).current["worst_lung_percent"], 100.0)
    corrections.restore()
    corrections.measure()
    corrections.release()
    test.assertTrue(np.array_equal(_mask(scan, "lesions"), lesions))
    test.assertIsNone(_record(scan).correction)
    return "a corrected mask gave 100 % affected lung; the model's mask and its findings came back"


def evidenceIsLaidOverTheScan(test: TestCase) -> str:
    """A map of evidence lies on the scan's grid and under its transform; it is shown and taken away."""
    scan, lobes = _tiltedScan()
    uncertainty = (50 * (lobes > 0)).astype(np.uint8)
    writeResults(scan, Results(lobes, None, {}, {"uncertainty": uncertainty}))
    shown = evidenceMaps(scan)["uncertainty"]
    test.assertTrue(np.array_equal(slicer.util.arrayFromVolume(shown), uncertainty))
    test.assertEqual(shown.GetTransformNodeID(), scan.GetTransformNodeID())
    setEvidenceShown(scan, shown, 0.5)
    if not sliceComposites(slicer.mrmlScene):
        return "a map of evidence lies on its scan; there are no slice views to show it in"
    test.assertEqual(evidenceShown(scan), ("uncertainty", 0.5))
    setEvidenceShown(scan, None, 0.5)
    test.assertIsNone(evidenceShown(scan))
    return "a map of evidence lies on its scan, was shown in the slice views and taken away"


def panelKnowsWhatIsMissing(test: TestCase) -> str:
    """Apply is disabled and says why; a chosen scan is described."""
    widget = _widget()
    if widget is None:
        return "skipped, there is no application around it"
    ui = widget.ui
    test.assertFalse(ui.applyButton.enabled)
    test.assertTrue(ui.applyButton.toolTip)
    scan, _lobes = _tiltedScan()
    ui.inputSelector.setCurrentNode(scan)
    test.assertIn("24", ui.scanLabel.text)
    test.assertEqual(widget.panel.scan.volume, scan)
    for section in ("scan", "engine", "findings", "display", "review", "export", "log"):
        button = getattr(ui, f"{section}Button")
        wasCollapsed = button.collapsed
        for isCollapsed in (not wasCollapsed, wasCollapsed):
            button.collapsed = isCollapsed
            processEvents()
    return "Apply said what is missing; a chosen scan was described; every section opens and closes"


def phantomIsReadFromScanToExport(test: TestCase) -> str:
    """The phantom, made and analysed with the weights that ship: cancelled, corrected, exported, saved, opened."""
    widget = _widget()
    if missingPackages() or not listEngines():
        return "skipped, missing: " + (", ".join(missingPackages()) or "weights")
    if widget is None:
        return "skipped, there is no application around it"
    check = _PanelCheck(test, widget)
    said = [
        check.load(),
        check.cancel(),
        check.analyse(),
        check.visit(),
        check.correct(),
        check.loseTheWorker(),
        check.export(),
        check.closeTheScene(),
    ]
    widget.logic.close()
    return "; ".join(said)


STEPS = (
    resultsLieOnTheScan,
    correctionIsMeasured,
    evidenceIsLaidOverTheScan,
    panelKnowsWhatIsMissing,
    phantomIsReadFromScanToExport,
)


class _PanelCheck:
    """Uses the panel as a reader does.

    :param widget: the module's.
    """

    def __init__(self, test: TestCase, widget: Any) -> None:
        self._test = test
        self._widget = widget
        self._ui = widget.ui
        self._scan: Any = None

    def load(self) -> str:
        """A phantom of known disease, chosen in the panel."""
        self._wait(lambda: not self._widget.logic.client.isBusy)  # it may still be asked for its devices
        self._scan = self._widget.logic.makeSample(SPACING_MM)
        self._ui.inputSelector.setCurrentNode(self._scan)
        return "a phantom was made"

    def cancel(self) -> str:
        """Cancel ends an analysis within a second or so, and nothing of it appears."""
        self._start()
        started = time.monotonic()
        self._ui.applyButton.click()
        self._test.assertEqual(self._ui.applyButton.text, "Apply")
        self._wait(lambda: not self._widget.logic.client.isBusy)
        seconds = time.monotonic() - started
        self._test.assertLess(seconds, 3.0)
        self._test.assertIsNone(readResults(self._scan))
        return f"an analysis was cancelled in {seconds:.1f} s and left nothing"

    def analyse(self) -> str:
        """Twice, with the models loaded from the first time; the findings are shown."""
        seconds = [self._run() for _turn in range(2)]
        record = _record(self._scan)
        lungs_ml = record.current["total"]["volume_ml"]
        self._test.assertTrue(1500 < lungs_ml < 9000, f"{lungs_ml} ml of lung")
        self._test.assertTrue(record.diagnosis and record.origin)
        self._test.assertIn("COVID-19", self._ui.findingsLabel.text)
        self._test.assertEqual(self._ui.placesList.count, len(record.places) + len(record.parts))
        self._test.assertTrue(_mask(self._scan, "lobes").any())
        return (
            f"{lungs_ml:.0f} ml of lung and {len(record.places)} lesions found, "
            f"first in {seconds[0]:.0f} s, then in {seconds[1]:.0f} s"
        )

    def visit(self) -> str:
        """A click on a lesion moves the crosshair there."""
        if not self._ui.placesList.count:
            return "no lesion to go to"
        self._ui.placesList.currentRow = 0
        processEvents()
        position = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode").GetCrosshairRAS()
        for found, wanted in zip(position, _record(self._scan).places[0].ras, strict=True):
            self._test.assertAlmostEqual(found, wanted, places=2)
        return "the views went to the largest lesion"

    def correct(self) -> str:
        """An edit is measured soon; the model's mask, and the corrected one, come back."""
        lesions: Any = readResults(self._scan).lesions  # type: ignore[union-attr]
        self._ui.reviewerEdit.text = "self-test"
        self._ui.editLesionsButton.click()
        editor = segmentEditor()
        if editor is not None:
            self._test.assertEqual(editor.segmentationNode(), lesions)
        _setSegment(lesions, "ground_glass", np.zeros(_mask(self._scan, "lobes").shape, bool), self._scan)
        started = time.monotonic()
        self._wait(lambda: _record(self._scan).correction is not None)
        seconds = time.monotonic() - started
        _widget()
        self._test.assertEqual(_record(self._scan).correction.by, "self-test")
        self._test.assertIn("Corrected", self._ui.findingsLabel.text)
        self._ui.restoreButton.click()
        self._test.assertIsNone(_record(self._scan).correction)
        self._ui.undoRestoreButton.click()
        self._test.assertIsNotNone(_record(self._scan).correction)
        return f"an edit was measured in {seconds:.1f} s, taken back and done again"

    def loseTheWorker(self) -> str:
        """A worker that is killed from outside is explained; the results that were there stay."""
        self._ui.keepCheck.checked = True  # else it asks whether to replace the corrected masks
        self._start()
        os.kill(self._widget.logic.client.processId, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._wait(lambda: not self._widget.panel.isRunning)
        self._ui.keepCheck.checked = False
        self._test.assertIn("Apply again", self._ui.statusLabel.text)
        self._test.assertIsNotNone(readResults(self._scan))
        return "a worker that was killed was explained"

    def export(self) -> str:
        """Files appear where they should; the panel shows the findings of a saved scene."""
        record, name = _record(self._scan), self._scan.GetName()
        with tempfile.TemporaryDirectory() as folder:
            written = {path.name for path in exportCase(self._scan, Path(folder) / "case")}
            self._test.assertLessEqual({"findings.json", "findings.csv", "lobes.nrrd", "lesions.nrrd"}, written)
            (saved,) = exportScene(slicer.mrmlScene, Path(folder) / "case.mrb")
            slicer.mrmlScene.Clear()
            self._test.assertTrue(slicer.mrmlScene.ReadFromMRB(str(saved), True))
        self._scan = slicer.mrmlScene.GetFirstNodeByName(name)
        again = _record(self._scan)
        self._test.assertEqual((again.origin, again.rows), (record.origin, record.rows))
        self._ui.inputSelector.setCurrentNode(self._scan)
        self._test.assertIn("Corrected", self._ui.findingsLabel.text)
        return "exported, saved, and opened again with its findings and their engine"

    def closeTheScene(self) -> str:
        """Closing the scene during an analysis ends it."""
        self._ui.keepCheck.checked = True
        self._start()
        slicer.mrmlScene.Clear()
        self._test.assertFalse(self._widget.panel.isRunning)
        self._wait(lambda: not self._widget.logic.client.isBusy)
        self._test.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
        self._ui.keepCheck.checked = False
        return "the scene was closed during an analysis"

    def _start(self) -> None:
        """Press Apply, and wait until the worker has begun."""
        self._test.assertTrue(self._ui.applyButton.enabled, self._ui.applyButton.toolTip)
        self._ui.applyButton.click()
        self._wait(lambda: self._widget.panel.run is None or self._widget.panel.run.bar.durations)
        self._test.assertTrue(self._widget.panel.isRunning, self._ui.statusLabel.text)
        self._test.assertEqual(self._ui.applyButton.text, "Cancel")

    def _run(self) -> float:
        """Analyse the scan; the seconds it took."""
        started = time.monotonic()
        self._start()
        self._wait(lambda: not self._widget.panel.isRunning)
        self._test.assertIsNotNone(readResults(self._scan), self._ui.statusLabel.text)
        return time.monotonic() - started

    def _wait(self, condition: Callable[[], Any]) -> None:
        limit = time.monotonic() + PATIENCE_S
        while not condition():
            self._test.assertLess(time.monotonic(), limit, f"it did not happen in time: {self._ui.statusLabel.text}")
            processEvents()
            time.sleep(0.01)


def _widget() -> Any:
    """The module's widget, shown where there is a window; ``None``: there is no application."""
    goTo("COVIDMultitask")
    return widgetOf("covidmultitask")


def _record(scan) -> Any:
    return readRecord(scan)


def _mask(scan, kind: str) -> Any:
    return readMask(scan, kind)


def _setSegment(segmentationNode, identifier: str, mask: np.ndarray, scan) -> None:
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentationNode, identifier, scan)


def _tiltedScan():
    """A scan under a transform, and lobes on its grid."""
    ijkToRas = slicer.util.vtkMatrixFromArray(
        np.array([[-0.7, 0.1, 0.0, 50.0], [0.1, 0.7, 0.2, -30.0], [0.0, -0.1, 2.5, 10.0], [0.0, 0.0, 0.0, 1.0]])
    )
    scan = slicer.util.addVolumeFromArray(np.zeros((8, 20, 24), np.int16), ijkToRas, "tilted scan")
    shift = vtk.vtkTransform()
    shift.RotateX(15)
    shift.Translate(40, -20, 30)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(shift.GetMatrix())
    scan.SetAndObserveTransformNodeID(transform.GetID())
    lobes = np.zeros((8, 20, 24), np.uint8)
    lobes[2:6, 4:16, 3:11], lobes[2:6, 4:16, 13:21] = 4, 1
    return scan, lobes

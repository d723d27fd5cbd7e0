"""COVIDMultitask: chest CT in; lung lobes, COVID-19 lesions, severity and diagnosis out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if importlib.util.find_spec("COVIDMultitaskLib") is None:  # a source checkout: the library is the module's sibling
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from COVIDMultitaskModule.compat import afterStartup, registerSampleData
from COVIDMultitaskModule.compat import tr as _


class COVIDMultitask(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("COVID Multitask")
        parent.categories = ["Segmentation", "Quantification"]
        parent.dependencies = []
        parent.contributors = ["The COVIDMultitask authors"]
        parent.helpText = _(
            "Finds the five lung lobes and COVID-19 lesions (ground-glass opacity, consolidation) in a chest CT, "
            "measures them per lobe, and estimates severity and diagnosis. For research only, not for diagnosis. "
            "Nothing leaves this computer."
        )
        parent.acknowledgementText = _("Built on 3D Slicer, MONAI and PyTorch.")
        afterStartup(registerSample)


def registerSample() -> None:
    """Offer the phantom in Slicer's Sample Data module, where there is one."""
    from COVIDMultitaskModule.sample import NAME, loadSample

    thumbnail = Path(__file__).resolve().parent / "Resources" / "Icons" / "ChestPhantom.png"
    registerSampleData(NAME, str(thumbnail), lambda: loadSample(COVIDMultitaskLogic()))


class COVIDMultitaskWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel; its behaviour is in ``COVIDMultitaskModule.panel``."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = COVIDMultitaskLogic()
        self.panel: Any = None
        self._parameterNode: Any = None
        self._connection: Any = None

    def setup(self) -> None:
        """Build the panel when the module is first opened."""
        from COVIDMultitaskModule.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/COVIDMultitask.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.panel = Panel(self.ui, self.logic)
        widget.setMRMLScene(slicer.mrmlScene)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.connectParameterNode()

    def cleanup(self) -> None:
        """Slicer closes or reloads the module: no process may stay behind."""
        if self.panel is not None:
            self.panel.close()
        self.logic.close()
        self.disconnectParameterNode()
        self.removeObservers()

    def enter(self) -> None:
        """The module is opened."""
        self.connectParameterNode()

    def exit(self) -> None:
        """Another module is opened; a running analysis goes on."""
        self.disconnectParameterNode()

    def onSceneStartClose(self, caller, event) -> None:
        """The scan goes away: so does its analysis."""
        self.panel.release()
        self.disconnectParameterNode()

    def onSceneEndClose(self, caller, event) -> None:
        """An empty scene is there."""
        if self.parent.isEntered:
            self.connectParameterNode()

    def onSceneEndImport(self, caller, event) -> None:
        """A scene was loaded, perhaps with findings in it."""
        self.connectParameterNode()

    def connectParameterNode(self) -> None:
        """Let the panel show what the scene's parameter node holds, and the other way round."""
        from COVIDMultitaskModule.display import volumeToBeginWith

        self.disconnectParameterNode()
        self._parameterNode = self.logic.getParameterNode()
        if self._parameterNode.inputVolume is None:  # else connecting would choose none, although one is offered
            self._parameterNode.inputVolume = volumeToBeginWith()
        # not connectGui: before Slicer 5.6 it told no tag by which to disconnect
        self._connection = self._parameterNode.connectParametersToGui({"inputVolume": self.ui.inputSelector})
        self.panel.refresh()

    def disconnectParameterNode(self) -> None:
        """Leave the parameter node alone."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._connection)
            self._parameterNode = None


class COVIDMultitaskLogic(ScriptedLoadableModuleLogic):
    """Analyses a volume in a child process and puts the results into the scene.

    >>> nodes = COVIDMultitaskLogic().analyze(volumeNode)
    >>> labelmapNode = COVIDMultitaskLogic().exportLabelmap(nodes.lobes, volumeNode)
    """

    def getParameterNode(self):
        """The scene's parameters, typed."""
        from COVIDMultitaskModule.parameter_node import wrap

        return wrap(super().getParameterNode())

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._client: Any = None

    @property
    def client(self):
        """Asks the worker, which is started when it is first needed and keeps its models loaded."""
        if self._client is None:
            from COVIDMultitaskModule import analysis, worker

            self._client = worker.WorkerClient(analysis.workerCommand, analysis.libraryEnvironment)
        return self._client

    def close(self) -> None:
        """End the worker, and with it a running analysis."""
        if self._client is not None:
            self._client.close()

    def startAnalysis(self, volumeNode, onProgress=lambda message: None, choice=None, plan=None):
        """Start the analysis of a volume and return at once.

        :param onProgress: called with each ``ProgressMessage`` while the analysis is polled.
        :param choice: ``EngineChoice``; the default is the engine that ships.
        :param plan: the stages with their probable shares of the time, for the progress bar.
        :return: an ``Analysis`` to poll until it is over, or to cancel.
        :raises CovidMultitaskError: when it cannot be started, with the reason.
        """
        from COVIDMultitaskModule.analysis import Analysis
        from COVIDMultitaskModule.parameter import SHIPPED, AnalysisParameter
        from COVIDMultitaskModule.protocol import PLAN

        from COVIDMultitaskLib.errors import InputError

        problem = AnalysisParameter(volumeNode).problem
        if problem:
            raise InputError(problem)
        analysis = Analysis(volumeNode, self.client, choice or SHIPPED, onProgress, plan or PLAN)
        analysis.start()
        return analysis

    def startSample(self, onProgress=lambda message: None, spacing=(3.0, 1.5, 1.5)):
        """Start the making of a sample scan, a phantom, and return at once; nothing is downloaded.

        :param spacing: mm along (z, y, x).
        :return: a ``SampleScan`` to poll until it is over; its ``load`` gives the volume node.
        :raises CovidMultitaskError: when it cannot be started, with the reason.
        """
        from COVIDMultitaskModule.sample import SampleScan

        sample = SampleScan(self.client, onProgress, spacing)
        sample.start()
        return sample

    def makeSample(self, spacing=(3.0, 1.5, 1.5)):
        """Make a sample scan and wait for it; Slicer stays alive meanwhile.

        :return: the volume node.
        :raises CovidMultitaskError: when it cannot be made, with the reason.
        """
        sample = self.startSample(spacing=spacing)
        self._wait(sample)
        return sample.load()

    def writeResults(self, analysis, keepEarlier=False):
        """Put the results of a finished analysis into the scene.

        :param keepEarlier: make new nodes and leave those of the volume's earlier analysis beside them.
        :return: ``ResultNodes`` (``lobes``, ``lesions``, ``table``): those of the volume's earlier analysis if it
            has any.
        """
        from COVIDMultitaskModule.result_nodes import setAside
        from COVIDMultitaskModule.scene_writer import writeResults

        if keepEarlier:
            setAside(analysis.volumeNode)
        return writeResults(analysis.volumeNode, analysis.results)

    def analyze(self, volumeNode, onProgress=lambda message: None, choice=None):
        """Analyse a volume and wait for the results; Slicer stays alive meanwhile.

        Parameters as of ``startAnalysis``.

        :return: ``ResultNodes``.
        :raises CovidMultitaskError: when the analysis fails, with the reason.
        """
        analysis = self.startAnalysis(volumeNode, onProgress, choice)
        self._wait(analysis)
        return self.writeResults(analysis)

    def _wait(self, run) -> None:
        """Poll a run until it is over.

        :raises CovidMultitaskError: when it fails, with the reason.
        """
        import time

        from COVIDMultitaskModule.analysis import State
        from COVIDMultitaskModule.compat import processEvents

        from COVIDMultitaskLib.errors import CovidMultitaskError

        try:
            while run.poll() is State.RUNNING:
                processEvents()
                time.sleep(0.05)
        finally:
            run.cancel()
        if run.state is not State.DONE:
            raise CovidMultitaskError(run.error)

    def exportLabelmap(self, segmentationNode, volumeNode):
        """A result as a new label map node on the volume's grid, with the library's label values."""
        from COVIDMultitaskModule.scene_writer import exportLabelmap

        return exportLabelmap(segmentationNode, volumeNode)


class COVIDMultitaskTest(ScriptedLoadableModuleTest):
    """Self-test inside Slicer, without network; prints what it checked. The other tests are under ``Testing``."""

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all of them."""
        for test in (
            self.test_resultsLieOnTheScan,
            self.test_correctionIsMeasured,
            self.test_evidenceIsLaidOverTheScan,
            self.test_panelKnowsWhatIsMissing,
            self.test_sampleScanIsAnalysed,
        ):
            self.setUp()
            print(f"{test.__name__}: {test()}", flush=True)

    def test_resultsLieOnTheScan(self) -> str:
        """Labels written for a tilted scan under a transform come back on the same voxels."""
        import numpy as np

        scan, lobes = self._tiltedScan()
        nodes = self._write(scan, lobes, None)
        labelmap = COVIDMultitaskLogic().exportLabelmap(nodes.lobes, scan)
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(labelmap), lobes))
        self.assertEqual(nodes.lobes.GetTransformNodeID(), scan.GetTransformNodeID())
        return f"{np.count_nonzero(lobes)} labelled voxels of a tilted scan under a transform came back in their places"

    def test_correctionIsMeasured(self) -> str:
        """A mask that is changed gives other findings; the model's mask comes back."""
        import numpy as np
        from COVIDMultitaskModule.correction import Corrections
        from COVIDMultitaskModule.scene_writer import readMask, readRecord

        scan, lobes = self._tiltedScan()
        lesions = np.zeros_like(lobes)
        lesions[3, 6:9, 4:8] = 1
        nodes = self._write(scan, lobes, lesions)
        changes: list[int] = []
        corrections = Corrections(scan, lambda: changes.append(1))
        larger = (lobes > 0).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(larger, nodes.lesions, "ground_glass", scan)
        self.assertTrue(changes)
        corrections.measure("self-test")
        record: Any = readRecord(scan)
        self.assertAlmostEqual(record.current["worst_lung_percent"], 100.0)
        corrections.restore()
        corrections.measure()
        corrections.release()
        restored: Any = readMask(scan, "lesions")
        self.assertTrue(np.array_equal(restored, lesions))
        record = readRecord(scan)
        self.assertIsNone(record.correction)
        return "a corrected mask gave 100 % affected lung; the model's mask and its findings came back"

    def test_evidenceIsLaidOverTheScan(self) -> str:
        """A map of evidence lies on the scan's grid and under its transform; it is shown and taken away."""
        import numpy as np
        from COVIDMultitaskModule.display import evidenceShown, setEvidenceShown, sliceComposites
        from COVIDMultitaskModule.evidence import evidenceMaps
        from COVIDMultitaskModule.exchange import Results
        from COVIDMultitaskModule.scene_writer import writeResults

        scan, lobes = self._tiltedScan()
        uncertainty = (50 * (lobes > 0)).astype(np.uint8)
        writeResults(scan, Results(lobes, None, {}, {"uncertainty": uncertainty}))
        shown = evidenceMaps(scan)["uncertainty"]
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(shown), uncertainty))
        self.assertEqual(shown.GetTransformNodeID(), scan.GetTransformNodeID())
        setEvidenceShown(scan, shown, 0.5)
        if not sliceComposites(slicer.mrmlScene):
            return "a map of evidence lies on its scan; there are no slice views to show it in"
        self.assertEqual(evidenceShown(scan), ("uncertainty", 0.5))
        setEvidenceShown(scan, None, 0.5)
        self.assertIsNone(evidenceShown(scan))
        return "a map of evidence lies on its scan, was shown in the slice views and taken away"

    def test_panelKnowsWhatIsMissing(self) -> str:
        """In the application: Apply is disabled and says why, then enabled for a scan."""
        module = getattr(slicer.modules, "covidmultitask", None)
        if module is None:
            return "skipped, there is no application around it"
        slicer.util.selectModule("COVIDMultitask")
        ui = module.widgetRepresentation().self().ui
        self.assertFalse(ui.applyButton.enabled)
        self.assertTrue(ui.applyButton.toolTip)
        scan, _lobes = self._tiltedScan()
        ui.inputSelector.setCurrentNode(scan)
        self.assertIn("24", ui.scanLabel.text)
        return "Apply said what is missing; a chosen scan was described"

    def test_sampleScanIsAnalysed(self) -> str:
        """The phantom, made and analysed by the worker with the weights that ship, twice; exported, saved, opened."""
        import time

        from COVIDMultitaskModule.compat import missingPackages
        from COVIDMultitaskModule.engines import listEngines
        from COVIDMultitaskModule.scene_writer import readMask, readRecord

        if missingPackages() or not listEngines():
            return "skipped, missing: " + (", ".join(missingPackages()) or "weights")
        logic = COVIDMultitaskLogic()
        seconds = []
        try:
            scan = logic.makeSample(spacing=(6.0, 4.0, 4.0))
            for _turn in ("cold", "warm"):
                started = time.monotonic()
                nodes: Any = logic.analyze(scan)
                seconds.append(time.monotonic() - started)
        finally:
            logic.close()
        self.assertEqual(nodes.table.GetNumberOfRows(), 6)
        record: Any = readRecord(scan)
        lungs_ml = record.current["total"]["volume_ml"]
        self.assertGreater(lungs_ml, 1500)
        self.assertLess(lungs_ml, 9000)
        self.assertTrue(record.diagnosis and record.origin)
        lobes: Any = readMask(scan, "lobes")
        self.assertTrue(lobes.any())
        self._exportAndReopen(scan, record)
        return (
            f"{lungs_ml:.0f} ml of lung and {len(record.places)} lesions found in the phantom, "
            f"first in {seconds[0]:.0f} s, then in {seconds[1]:.0f} s; exported, saved, and opened again"
        )

    def _exportAndReopen(self, scan, record) -> None:
        """Files appear where they should; a saved scene holds the findings."""
        import tempfile

        from COVIDMultitaskModule.export import exportCase, exportScene
        from COVIDMultitaskModule.scene_writer import readRecord

        with tempfile.TemporaryDirectory() as folder:
            written = {path.name for path in exportCase(scan, Path(folder) / "case")}
            self.assertLessEqual({"findings.json", "findings.csv", "lobes.nrrd", "lesions.nrrd"}, written)
            (saved,) = exportScene(slicer.mrmlScene, Path(folder) / "case.mrb")
            name = scan.GetName()
            slicer.mrmlScene.Clear()
            self.assertTrue(slicer.mrmlScene.ReadFromMRB(str(saved), True))
        again: Any = readRecord(slicer.mrmlScene.GetFirstNodeByName(name))
        self.assertEqual(again.origin, record.origin)
        self.assertEqual(again.rows, record.rows)

    def _tiltedScan(self):
        """A scan under a transform, and lobes on its grid."""
        import numpy as np
        import vtk

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

    def _write(self, scan, lobes, lesions):
        from COVIDMultitaskModule.exchange import Results
        from COVIDMultitaskModule.scene_writer import writeResults

        return writeResults(scan, Results(lobes, lesions, {}))

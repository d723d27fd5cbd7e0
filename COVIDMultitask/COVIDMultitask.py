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

HOMEPAGE = "https://github.com/SlicerCOVIDMultitask/SlicerCOVIDMultitask#readme"


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
        parent.helpText += f'<p><a href="{HOMEPAGE}">{_("How to use it, and what to do when something goes wrong")}</a>'
        parent.acknowledgementText = _("Built on 3D Slicer, MONAI and PyTorch.")
        afterStartup(self.registerSample)

    def registerSample(self) -> None:
        """Offer the phantom in Slicer's Sample Data module, where there is one."""

        def load():
            from COVIDMultitaskModule.sample import loadSample

            return loadSample(COVIDMultitaskLogic())

        thumbnail = Path(__file__).resolve().parent / "Resources" / "Icons" / "ChestPhantom.png"
        registerSampleData(str(thumbnail), load)


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

        from COVIDMultitaskModule.compat import processEvents
        from COVIDMultitaskModule.run import State

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
        """Run all steps of ``COVIDMultitaskModule.self_test``."""
        from COVIDMultitaskModule.self_test import STEPS

        for step in STEPS:
            self.setUp()
            print(f"{step.__name__}: {step(self)}", flush=True)

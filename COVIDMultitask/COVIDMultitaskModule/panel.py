"""What the user sees: volume in, Apply or Cancel, progress, findings.

:class:`AnalysisPanel` drives the widgets of ``Resources/UI/COVIDMultitask.ui`` and knows
neither processes nor the scene: it asks the logic it is given.
"""

from __future__ import annotations

import qt

from COVIDMultitaskLib.errors import CovidMultitaskError

from .analysis import Analysis, State
from .compat import missingPackages
from .compat import tr as _
from .findings import FindingsView
from .findings_html import findingsHtml, researchHtml
from .parameter import AnalysisParameter
from .protocol import ProgressMessage

POLL_INTERVAL_MS = 100


class AnalysisPanel:
    """The panel's behaviour.

    :param ui: holds the widgets of the ``.ui`` file by their names.
    :param logic: starts an analysis and writes its results into the scene.
    """

    def __init__(self, ui, logic) -> None:
        self.ui = ui
        self.logic = logic
        self.analysis: Analysis | None = None
        self._missingPackages = missingPackages()
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", self.poll)
        ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.updateApply)
        ui.applyButton.connect("clicked()", self.applyOrCancel)
        self._showIdle()

    @property
    def isRunning(self) -> bool:
        """Whether an analysis is under way."""
        return self.analysis is not None

    @property
    def parameter(self) -> AnalysisParameter:
        """What the user chose."""
        return AnalysisParameter(self.ui.inputSelector.currentNode(), self._missingPackages)

    def updateApply(self, *_arguments) -> None:
        """Apply can be pressed when the choices are valid; else its tooltip says what is missing."""
        if self.isRunning:
            return
        problem = self.parameter.problem
        self.ui.applyButton.enabled = problem is None
        self.ui.applyButton.toolTip = problem or _("Find lobes and lesions in the chosen CT.")

    def applyOrCancel(self) -> None:
        """Apply, or Cancel while an analysis runs."""
        if self.isRunning:
            self.cancel()
        else:
            self.apply()

    def apply(self) -> None:
        """Start the analysis of the chosen volume."""
        try:
            self.analysis = self.logic.startAnalysis(self.parameter.volume, self._showProgress)
        except CovidMultitaskError as error:
            self._showIdle(str(error))
            return
        self.ui.inputSelector.enabled = False
        self.ui.applyButton.text = _("Cancel")
        self.ui.applyButton.toolTip = _("Stop the analysis; nothing is changed.")
        self.ui.progressBar.visible = True
        self.ui.progressBar.value = 0
        self.ui.statusLabel.text = _("Starting")
        self._timer.start()

    def cancel(self) -> None:
        """Stop a running analysis, if any; its results never appear."""
        if self.analysis is not None:
            self._timer.stop()
            self.analysis.cancel()
            self.analysis = None
            self._showIdle(_("Cancelled: nothing was changed."))

    def poll(self) -> None:
        """Take in what the child process said."""
        analysis = self.analysis
        if analysis is None or analysis.poll() is State.RUNNING:
            return
        self._timer.stop()
        self.analysis = None
        self.ui.logText.plainText = "\n".join(self.logic.client.log)
        self._showIdle(analysis.error)
        if analysis.state is State.DONE:
            self._showResults(analysis)

    def _showProgress(self, message: ProgressMessage) -> None:
        if self.analysis is not None:
            self.ui.progressBar.value = round(100 * self.analysis.bar.overall)
        self.ui.statusLabel.text = _(message.title)

    def _showIdle(self, status: str = "") -> None:
        self.ui.progressBar.visible = False
        self.ui.inputSelector.enabled = True
        self.ui.applyButton.text = _("Apply")
        self.ui.statusLabel.text = status
        self.updateApply()

    def _showResults(self, analysis: Analysis) -> None:
        nodes = self.logic.writeResults(analysis)
        view = FindingsView(analysis.results.findings if analysis.results else {})
        self.ui.findingsLabel.text = findingsHtml(view)
        self.ui.findingsTable.setMRMLTableNode(nodes.table)
        self.ui.researchLabel.text = researchHtml(view)
        self.ui.statusLabel.text = _("Done.")

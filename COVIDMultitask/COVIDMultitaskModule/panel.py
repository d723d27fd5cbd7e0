"""The panel: its sections, and the run of an analysis between them.

:class:`Panel` drives the widgets of ``Resources/UI/COVIDMultitask.ui``. What it works with comes as
arguments, so that tests can hand it their own.
"""

from __future__ import annotations

import qt
import slicer

from COVIDMultitaskLib.errors import CovidMultitaskError

from .analysis import Analysis
from .compat import tr as _
from .display import showScan
from .frames import Frames
from .parameter import AnalysisParameter, isInScene
from .protocol import ProgressMessage, remainingText
from .rows import arrangeRows
from .run import State
from .scene_writer import readRecord, readResults
from .sections.display import DisplaySection
from .sections.engine import EngineSection
from .sections.export import ExportSection
from .sections.findings import FindingsSection
from .sections.review import ReviewSection
from .sections.scan import ScanSection
from .worker import Job

POLL_INTERVAL_MS = 100
APPLY_KEYS = "Alt+A"
"""For Apply and for Cancel."""


class Panel:
    """The panel's behaviour.

    :param ui: holds the widgets of the ``.ui`` file by their names.
    :param logic: starts analyses and sample scans, writes results into the scene.
    """

    def __init__(self, ui, logic) -> None:
        self.ui = ui
        self.logic = logic
        self.run: Analysis | None = None
        self._question: Job | None = None
        self._todo: list = []
        self._total = 1
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", self.poll)
        self.scan = ScanSection(ui, self._volumeChosen, self._volumeModified, self.makeSample)
        self.engine = EngineSection(ui, self.updateApply, self._ask)
        self.findings = FindingsSection(ui)
        self.display = DisplaySection(ui)
        self.review = ReviewSection(ui, self._showFindings)
        self.export = ExportSection(ui, self._say)
        ui.applyButton.connect("clicked()", self.applyOrCancel)
        for button in (ui.findingsButton, ui.displayButton):
            button.connect("contentsCollapsed(bool)", self._unfolded)
        self._showIdle()
        self.refresh()

    @property
    def isRunning(self) -> bool:
        """Whether an analysis (or the making of a sample) is under way."""
        return self.run is not None

    @property
    def parameter(self) -> AnalysisParameter:
        """What the user chose."""
        return AnalysisParameter(self.scan.volume, self.engine.missingPackages, self.engine.problem)

    @property
    def isDark(self) -> bool:
        """Whether Slicer's window is dark."""
        return self.ui.statusLabel.palette.color(qt.QPalette.Window).lightness() < 128

    def refresh(self) -> None:
        """Show the chosen volume and what the scene holds for it."""
        volume = self.scan.volume
        arrangeRows(self.ui)
        self.scan.watch(volume)
        self.scan.show(self.isDark)
        self._showFindings()
        self.ui.keepCheck.visible = volume is not None and readResults(volume) is not None
        self.display.show(volume)
        self.export.show(volume)
        self.review.watch(volume)
        self.updateApply()

    def _unfolded(self, isCollapsed: bool) -> None:
        """A collapsed section shows all again that it had hidden, also what has nothing to show since."""
        if not isCollapsed:
            self.refresh()

    def release(self) -> None:
        """Hold on to nothing in the scene: it is about to be closed."""
        self.cancel()
        self.scan.watch(None)
        self.review.release()

    def close(self) -> None:
        """The widgets go away: no timer may touch them any more."""
        self.release()
        self._timer.stop()

    def _volumeChosen(self, _volume) -> None:
        self.refresh()

    def _volumeModified(self) -> None:
        self.scan.show(self.isDark)
        self.updateApply()

    def _showFindings(self) -> None:
        self.findings.show(self.scan.volume, self.isDark)

    def _say(self, sentence: str) -> None:
        self.ui.statusLabel.text = sentence
        self.ui.statusLabel.visible = bool(sentence)

    def updateApply(self) -> None:
        """Apply can be pressed when the choices are valid; else its tooltip says what is missing."""
        if self.isRunning:
            return
        problem = self.parameter.problem
        self.ui.applyButton.enabled = problem is None
        self.ui.applyButton.toolTip = problem or _("Find lobes and lesions in the chosen CT.")

    def _nameApply(self, text: str) -> None:
        self.ui.applyButton.text = text
        self.ui.applyButton.shortcut = qt.QKeySequence(APPLY_KEYS)  # a new text takes it away

    def applyOrCancel(self) -> None:
        """Apply, or Cancel while an analysis runs."""
        if self.isRunning:
            self.cancel()
        else:
            self.apply()

    def apply(self) -> None:
        """Start the analysis of the chosen volume, or of the frames of its sequence."""
        volumes = self._volumesToAnalyse()
        if self._mayReplace(volumes):
            self._todo, self._total = volumes, len(volumes)
            self._applyNext()

    def _mayReplace(self, volumes: list) -> bool:
        """Whether corrected masks, if there are any and they are not kept, may be replaced."""
        views = [readRecord(volume) for volume in volumes]
        areCorrected = any(view is not None and view.correction is not None for view in views)
        question = _(
            "The masks were corrected; a new analysis replaces them. Go on? "
            "(To keep them, cancel and choose Keep the earlier results.)"
        )
        return not areCorrected or self.ui.keepCheck.checked or slicer.util.confirmOkCancelDisplay(question)

    def _volumesToAnalyse(self) -> list:
        """The chosen volume; of a sequence, as the user wants, all frames or the one that is shown."""
        frames = Frames.of(self.scan.volume)
        if frames is None:
            return [self.scan.volume]
        question = _("This scan is a sequence of {n} frames. Analyse all of them? (No: only the one that is shown.)")
        if slicer.util.confirmYesNoDisplay(question.format(n=len(frames))):
            return [frames.volume(number) for number in range(len(frames))]
        return [frames.volume(frames.shown)]

    def _applyNext(self) -> None:
        volume = self._todo.pop(0)
        self.scan.choose(volume)
        choice, plan = self.engine.choice, self.engine.plan
        self._start(lambda: self.logic.startAnalysis(volume, self._showProgress, choice, plan))

    @property
    def _frame(self) -> str:
        """Which frame is analysed, before what is said of it; empty for a single volume."""
        if self._total < 2:
            return ""
        return _("Frame {k} of {n}: ").format(k=self._total - len(self._todo), n=self._total)

    def _ask(self, request: str, onAnswer) -> bool:
        """Ask the worker something beside the analyses; whether it was free to be asked."""
        if self.logic.client.isBusy:
            return False
        try:
            self._question = self.logic.client.submit(request, onOver=onAnswer)
        except OSError:
            return False
        self._timer.start()
        return True

    def makeSample(self) -> None:
        """Start the making of a phantom."""
        self._todo, self._total = [], 1
        self._start(lambda: self.logic.startSample(self._showProgress))

    def _start(self, start) -> None:
        if self._question is not None:
            self._question.cancel()  # the analysis goes first
        try:
            self.run = start()
        except CovidMultitaskError as error:
            self._todo.clear()
            self._showIdle(self._frame + str(error))
            return
        self.scan.setEnabled(False)
        self.ui.applyButton.enabled = True
        self._nameApply(_("Cancel"))
        self.ui.applyButton.toolTip = _("Stop; nothing is changed.")
        self.ui.progressBar.visible = True
        self.ui.progressBar.value = 0
        self._say(self._frame + _("Starting"))
        self._timer.start()

    def cancel(self) -> None:
        """Stop what runs, if anything; its results never appear."""
        if self.run is not None:
            self._todo.clear()
            self.run.cancel()
            self.run = None
            self._showIdle(_("Cancelled: nothing was changed."))

    def poll(self) -> None:
        """Take in what the worker said; goes on after a cancellation until the worker has let go."""
        run = self.run
        if run is None:
            self.logic.client.poll()
        elif not isInScene(run.volumeNode) and run.volumeNode is not None:
            self.cancel()
            self._say(_("The scan was removed while it was analysed: nothing was changed."))
        elif run.poll() is not State.RUNNING and self.run is run:
            self.run = None
            self._end(run)
        if self.run is None and not self.logic.client.isBusy:
            self._timer.stop()
        self._showLog()

    def _showLog(self) -> None:
        text = "\n".join(self.logic.client.log)
        if text != self.ui.logText.plainText:
            self.ui.logText.plainText = text

    def _end(self, run) -> None:
        self._showIdle(self._frame + run.error if run.error else "")
        if run.state is not State.DONE:
            self._todo.clear()
            return
        if run.volumeNode is None:
            self._takeSample(run)
        else:
            self._takeResults(run)

    def _takeResults(self, analysis: Analysis) -> None:
        self.review.release()
        isFirst = readResults(analysis.volumeNode) is None
        self.logic.writeResults(analysis, keepEarlier=not isFirst and self.ui.keepCheck.checked)
        self.engine.remember(analysis.bar.durations, analysis.megavoxels)
        if isFirst:
            self.display.present(analysis.volumeNode)
        self._say(self._frame + _("Done in {seconds} s.").format(seconds=round(analysis.bar.elapsed_s)))
        self.refresh()
        self.ui.findingsButton.collapsed = False
        if self._todo:
            self._applyNext()

    def _takeSample(self, sample) -> None:
        node = sample.load()
        showScan(node)
        self.scan.choose(node)
        self._say(_("The sample scan is a simulated chest; its disease is known."))

    def _showProgress(self, message: ProgressMessage) -> None:
        run = self.run
        if run is None:
            return
        self.ui.progressBar.value = round(100 * run.bar.overall)
        self._say(self._frame + ", ".join(filter(None, [_(message.title), _(remainingText(run.bar.remaining_s))])))

    def _showIdle(self, status: str = "") -> None:
        self.ui.progressBar.visible = False
        self.scan.setEnabled(True)
        self._nameApply(_("Apply"))
        self._say(status)
        self.updateApply()

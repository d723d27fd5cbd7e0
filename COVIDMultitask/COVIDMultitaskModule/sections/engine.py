"""Engine: which weights answer, and where they compute."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path

import qt
import slicer

from COVIDMultitaskLib.bundle_archive import add_bundle, remove_bundle
from COVIDMultitaskLib.engines.registry import DEFAULT_ENGINE
from COVIDMultitaskLib.errors import CovidMultitaskError

from .. import compat
from ..compat import tr as _
from ..devices import UNASKED, Device, devicesOf
from ..engines import EngineEntry, listEngines
from ..parameter import EngineChoice
from ..protocol import DoneMessage, ErrorMessage
from ..run_times import RunTimes

SETTINGS = "COVIDMultitask/"
"""What belongs to the machine, not to the case, is kept in the application's settings."""


_NO = "no"


class EngineSection:
    """Lists the engines and remembers the choice.

    :param onChange: called when what can be analysed may have changed.
    :param ask: sends the worker a request and has its answer brought to a listener; false: it is busy.
    """

    def __init__(self, ui, onChange: Callable[[], None], ask: Callable[[str, Callable], bool]) -> None:
        self.ui = ui
        self._onChange = onChange
        self._ask = ask
        self._settings = qt.QSettings()
        self.times = RunTimes(self._settings)
        self._entries: list[EngineEntry] = []
        self._devices: Sequence[Device] = ()
        self._wereDevicesAsked = False
        ui.bundlesFolder.currentPath = self._setting("BundlesFolder") or str(compat.userDataFolder() / "Bundles")
        ui.fillCheck.checked = self._setting("Fill") != _NO
        self.reload()
        self._listDevices(UNASKED)
        ui.engineSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.deviceSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.fillCheck.connect("toggled(bool)", self._fillToggled)
        ui.bundlesFolder.connect("currentPathChanged(QString)", self._folderChanged)
        ui.engineButton.connect("contentsCollapsed(bool)", self._opened)
        ui.addBundleButton.connect("clicked()", self._add)
        ui.removeBundleButton.connect("clicked()", self._remove)
        ui.citeButton.connect("clicked()", self._cite)
        ui.installButton.connect("clicked()", self._install)
        self.checkPackages()

    @property
    def entry(self) -> EngineEntry | None:
        """The chosen engine."""
        index = self.ui.engineSelector.currentIndex
        return self._entries[index] if 0 <= index < len(self._entries) else None

    @property
    def choice(self) -> EngineChoice:
        """What the worker is asked for."""
        device = self._devices[max(self.ui.deviceSelector.currentIndex, 0)]
        return EngineChoice(self.entry.bundle if self.entry else "", device.key, self._helper)

    @property
    def _helper(self) -> str:
        """The engine that supplies what the chosen one does not give; empty: none."""
        isWanted = self.entry is not None and self.entry.supplied and self.ui.fillCheck.checked
        return DEFAULT_ENGINE if isWanted else ""

    @property
    def plan(self) -> Sequence[tuple[str, float]]:
        """The stages of a run to come, as long as they were the last time."""
        return self.times.plan(*self._timed)

    @property
    def problem(self) -> str | None:
        """Why the chosen engine cannot answer; ``None``: it can."""
        if self.entry is None:
            return _("No weights are installed: add some from a zip file under Engine.")
        return self.entry.problem or None

    @property
    def _timed(self) -> tuple[str, str]:
        """The choice by which run times are remembered."""
        names = (self.entry.title if self.entry else "", self._helper)
        return " + ".join(name for name in names if name), self.choice.device

    def remember(self, durations, megavoxels: float) -> None:
        """Remember how long a run of the chosen engine took; seconds by stage."""
        self.times.remember(*self._timed, durations, megavoxels)
        self._describe()

    def checkPackages(self) -> None:
        """Look which Python packages are missing; explain and offer to install them."""
        self.missingPackages = compat.missingPackages()
        self._showMissing()

    def _showMissing(self) -> None:
        self.ui.installButton.visible = bool(self.missingPackages)
        self.ui.installLabel.visible = bool(self.missingPackages)
        names = ", ".join(self.missingPackages)
        self.ui.installLabel.text = _(
            "The analysis needs {names}, which this Slicer does not have yet. The button asks first, then installs "
            "PyTorch through Slicer's PyTorch extension and the rest beside it; Slicer's own packages stay as they are."
        ).format(names=names)

    def reload(self) -> None:
        """Look for engines again."""
        wanted = self._setting("Bundle")
        self._entries = listEngines(self.ui.bundlesFolder.currentPath)
        titles = [entry.title if not entry.problem else f"{entry.title} (!)" for entry in self._entries]
        self._fill(self.ui.engineSelector, titles, [entry.bundle for entry in self._entries], wanted)
        self._describe()

    def _setting(self, name: str) -> str:
        return str(self._settings.value(SETTINGS + name, "") or "")

    def _fill(self, selector, titles: Sequence[str], values: list[str], wanted: str) -> None:
        """List titles, whole in their tooltips also in a narrow panel; choose the wanted value or the first."""
        selector.blockSignals(True)
        selector.clear()
        for index, title in enumerate(titles):
            selector.addItem(title)
            selector.setItemData(index, title, qt.Qt.ToolTipRole)
        selector.currentIndex = values.index(wanted) if wanted in values else 0 if values else -1
        selector.blockSignals(False)

    def _chosen(self) -> None:
        if self.entry is not None:
            self._settings.setValue(SETTINGS + "Bundle", self.entry.bundle)
        self._settings.setValue(SETTINGS + "Device", self.choice.device)
        self._describe()
        self._onChange()

    def _fillToggled(self, isWanted: bool) -> None:
        self._settings.setValue(SETTINGS + "Fill", "" if isWanted else _NO)
        self._describe()
        self._onChange()

    # -- devices

    def _opened(self, isCollapsed: bool) -> None:
        """Ask for the devices when they are first looked at: it starts a worker, which the analysis needs too."""
        if isCollapsed:
            return
        self._showMissing()
        if not self._wereDevicesAsked and not self.missingPackages:
            self._wereDevicesAsked = self._ask("devices", self._devicesTold)

    def _devicesTold(self, outcome: DoneMessage | ErrorMessage) -> None:
        if isinstance(outcome, DoneMessage):
            self._listDevices(devicesOf(outcome.record.get("devices") or ()))
        else:
            self._wereDevicesAsked = False

    def _listDevices(self, devices: Sequence[Device]) -> None:
        """Show the devices; the one that was chosen stays so, even if it is not among them."""
        wanted = self._setting("Device")
        if wanted and wanted not in [device.key for device in devices]:
            devices = [*devices, Device(wanted, _("{device} (not seen now)").format(device=wanted))]
        self._devices = devices
        titles, keys = [device.title for device in devices], [device.key for device in devices]
        self._fill(self.ui.deviceSelector, titles, keys, wanted)
        self._describe()

    # -- bundles of the user's own

    def _folderChanged(self, path: str) -> None:
        self._settings.setValue(SETTINGS + "BundlesFolder", path)
        self.reload()
        self._onChange()

    def _add(self) -> None:
        name = qt.QFileDialog.getOpenFileName(None, _("Zip file of a weight bundle"), "", "*.zip")
        name = name[0] if isinstance(name, (tuple, list)) else name
        if not name:
            return
        try:
            added = add_bundle(name, self.ui.bundlesFolder.currentPath)
        except CovidMultitaskError as error:
            slicer.util.errorDisplay(str(error))
            return
        self._settings.setValue(SETTINGS + "Bundle", str(added.path))
        self._reloaded()

    def _remove(self) -> None:
        entry = self.entry
        question = _("Remove {name} from this computer?")
        if entry is None or not slicer.util.confirmOkCancelDisplay(question.format(name=entry.title)):
            return
        try:
            remove_bundle(Path(entry.bundle), self.ui.bundlesFolder.currentPath)
        except CovidMultitaskError as error:
            slicer.util.errorDisplay(str(error))
        self._reloaded()

    def _reloaded(self) -> None:
        self.reload()
        self._onChange()

    def _cite(self) -> None:
        if self.entry is not None:
            qt.QApplication.clipboard().setText(self.entry.citation)
            slicer.util.showStatusMessage(_("Copied: what to cite."), 3000)

    def _describe(self) -> None:
        entry = self.entry
        facts = entry.facts if entry else [(_("None"), self.problem or "")]
        if entry is not None and not entry.problem and self._devices:
            facts = [*facts, (_("Last run"), self.times.text(*self._timed) or _("not measured on this computer yet"))]
        self.ui.engineLabel.text = "<br>".join(f"<b>{html.escape(t)}:</b> {html.escape(x)}" for t, x in facts)
        self.ui.fillCheck.text = entry.offer if entry is not None else ""
        self.ui.fillCheck.visible = bool(self.ui.fillCheck.text)
        self.ui.removeBundleButton.enabled = entry is not None and entry.isAdded
        self.ui.citeButton.enabled = entry is not None and bool(entry.citation)
        self.ui.citeButton.toolTip = entry.citation if entry is not None else ""

    def _install(self) -> None:
        try:
            compat.installMissing()
        except CovidMultitaskError as error:
            self.checkPackages()
            self.ui.installLabel.text = str(error)
        else:
            self.checkPackages()
        self._onChange()

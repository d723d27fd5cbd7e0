"""Engine: which weights answer, and where they compute."""

from __future__ import annotations

import html
from collections.abc import Callable

import qt

from COVIDMultitaskLib.errors import CovidMultitaskError

from .. import compat
from ..compat import tr as _
from ..engines import DEVICES, EngineEntry, listEngines
from ..parameter import EngineChoice

SETTINGS = "COVIDMultitask/"
"""What belongs to the machine, not to the case, is kept in the application's settings."""


class EngineSection:
    """Lists the engines and remembers the choice.

    :param onChange: called when what can be analysed may have changed.
    """

    def __init__(self, ui, onChange: Callable[[], None]) -> None:
        self.ui = ui
        self._onChange = onChange
        self._settings = qt.QSettings()
        self._entries: list[EngineEntry] = []
        for device, title in DEVICES.items():
            ui.deviceSelector.addItem(_(title), device)
        ui.bundlesFolder.currentPath = self._setting("BundlesFolder")
        self.reload()
        self._select(ui.deviceSelector, list(DEVICES), self._setting("Device"))
        ui.engineSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.deviceSelector.connect("currentIndexChanged(int)", self._chosen)
        ui.bundlesFolder.connect("currentPathChanged(QString)", self._folderChanged)
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
        device = list(DEVICES)[max(self.ui.deviceSelector.currentIndex, 0)]
        return EngineChoice(self.entry.bundle if self.entry else "", device)

    @property
    def problem(self) -> str | None:
        """Why the chosen engine cannot answer; ``None``: it can."""
        if self.entry is None:
            return _("No weights are installed: choose a folder with weight bundles under Engine.")
        return self.entry.problem or None

    def checkPackages(self) -> None:
        """Look which Python packages are missing; offer to install them."""
        self.missingPackages = compat.missingPackages()
        self.ui.installButton.visible = bool(self.missingPackages)

    def reload(self) -> None:
        """Look for engines again."""
        self._entries = listEngines(self.ui.bundlesFolder.currentPath)
        self.ui.engineSelector.clear()
        for entry in self._entries:
            self.ui.engineSelector.addItem(entry.title if not entry.problem else f"{entry.title} (!)")
        self._select(self.ui.engineSelector, [entry.bundle for entry in self._entries], self._setting("Bundle"))
        self._describe()

    def _setting(self, name: str) -> str:
        return str(self._settings.value(SETTINGS + name, "") or "")

    def _select(self, selector, values: list[str], wanted: str) -> None:
        selector.currentIndex = values.index(wanted) if wanted in values else 0 if values else -1

    def _chosen(self) -> None:
        if self.entry is not None:
            self._settings.setValue(SETTINGS + "Bundle", self.entry.bundle)
        self._settings.setValue(SETTINGS + "Device", self.choice.device)
        self._describe()
        self._onChange()

    def _folderChanged(self, path: str) -> None:
        self._settings.setValue(SETTINGS + "BundlesFolder", path)
        self.reload()
        self._onChange()

    def _describe(self) -> None:
        facts = self.entry.facts if self.entry else [(_("None"), self.problem or "")]
        self.ui.engineLabel.text = "<br>".join(f"<b>{html.escape(t)}:</b> {html.escape(x)}" for t, x in facts)

    def _install(self) -> None:
        try:
            compat.installMissing()
        except CovidMultitaskError as error:
            self.ui.engineLabel.text = html.escape(str(error))
        self.checkPackages()
        self._onChange()

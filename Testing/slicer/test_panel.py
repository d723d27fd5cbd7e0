"""States of the panel, with the real logic and process behind it and plain objects for widgets."""

from __future__ import annotations

import importlib
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest
from slicer_host.chest import ijkToRas, toyChest


class Timer:
    def __init__(self) -> None:
        self.isActive = False

    def setInterval(self, interval: int) -> None:
        pass

    def connect(self, signal: str, slot) -> None:
        self.slot = slot

    def start(self) -> None:
        self.isActive = True

    def stop(self) -> None:
        self.isActive = False


class Selector(SimpleNamespace):
    node = None

    def connect(self, signal: str, slot) -> None:
        self.slot = slot

    def currentNode(self):
        return self.node

    def choose(self, node) -> None:
        self.node = node
        self.slot(node)


class Button(SimpleNamespace):
    def connect(self, signal: str, slot) -> None:
        self.click = slot


@pytest.fixture
def panelModule(monkeypatch):
    qt = ModuleType("qt")
    qt.QTimer = Timer
    monkeypatch.setitem(sys.modules, "qt", qt)
    monkeypatch.delitem(sys.modules, "COVIDMultitaskModule.panel", raising=False)
    yield importlib.import_module("COVIDMultitaskModule.panel")
    sys.modules.pop("COVIDMultitaskModule.panel", None)


@pytest.fixture
def panel(panelModule, moduleFile, host, monkeypatch):
    monkeypatch.setattr(panelModule, "missingPackages", list)
    shown = []
    ui = SimpleNamespace(
        inputSelector=Selector(),
        applyButton=Button(),
        progressBar=SimpleNamespace(),
        statusLabel=SimpleNamespace(),
        findingsLabel=SimpleNamespace(text=""),
        findingsTable=SimpleNamespace(setMRMLTableNode=shown.append, shown=shown),
        researchLabel=SimpleNamespace(),
        logText=SimpleNamespace(),
    )
    return panelModule.AnalysisPanel(ui, moduleFile.COVIDMultitaskLogic())


@pytest.fixture
def scan(host):
    return host.addVolume(toyChest().ct, ijkToRas())


def runToEnd(panel) -> None:
    started = time.monotonic()
    while panel._timer.isActive:
        assert time.monotonic() - started < 15
        panel._timer.slot()
        time.sleep(0.01)


def test_apply_says_what_is_missing_until_a_scan_is_chosen(panel, scan):
    assert not panel.ui.applyButton.enabled and panel.ui.applyButton.toolTip == "Choose a chest CT."
    panel.ui.inputSelector.choose(scan)
    assert panel.ui.applyButton.enabled
    panel.ui.inputSelector.choose(None)
    assert not panel.ui.applyButton.enabled


def test_apply_shows_progress_then_findings(panel, scan, worker):
    worker("good")
    panel.ui.inputSelector.choose(scan)
    panel.ui.applyButton.click()
    assert panel.ui.applyButton.text == "Cancel" and panel.ui.progressBar.visible
    assert not panel.ui.inputSelector.enabled
    runToEnd(panel)
    assert panel.ui.statusLabel.text == "Done." and panel.ui.applyButton.text == "Apply"
    assert panel.ui.applyButton.enabled and not panel.ui.progressBar.visible
    assert "COVID-19" in panel.ui.findingsLabel.text and "Slices are 8 mm thick." in panel.ui.findingsLabel.text
    assert panel.ui.findingsTable.shown[0].GetNumberOfRows() == 6
    assert "research" in panel.ui.researchLabel.text and "toy" in panel.ui.researchLabel.text


def test_cancel_gives_apply_back_and_changes_nothing(panel, scan, worker, host):
    worker("hang")
    panel.ui.inputSelector.choose(scan)
    panel.ui.applyButton.click()
    nodes = host.scene.GetNumberOfNodes()
    started = time.monotonic()
    panel.ui.applyButton.click()
    assert time.monotonic() - started < 1.0
    assert panel.ui.applyButton.text == "Apply" and panel.ui.applyButton.enabled
    assert not panel._timer.isActive and not panel.isRunning
    assert host.scene.GetNumberOfNodes() == nodes


def test_a_failed_run_says_why_and_can_be_started_again(panel, scan, worker):
    worker("crash")
    panel.ui.inputSelector.choose(scan)
    panel.ui.applyButton.click()
    runToEnd(panel)
    assert "exit code 7" in panel.ui.statusLabel.text
    assert "RuntimeError: boom" in panel.ui.logText.plainText
    assert panel.ui.applyButton.enabled and panel.ui.findingsTable.shown == []

"""The whole widget with the real worker process and the weights that ship, on a small phantom.

What the panel promises while it works: Cancel within a second at every stage, nothing of a cancelled run
ever appears, no process stays behind, the second scan starts at once, a worker that died is replaced.
These tests take more time than all others of the module: each new worker has to load PyTorch.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 is not installed")
pytest.importorskip("torch", reason="torch is not installed")

from qt_host.application import Application

from COVIDMultitaskLib.phantom import make_phantom
from COVIDMultitaskLib.progress import STAGES
from COVIDMultitaskLib.resources import resource

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
    pytest.mark.skipif(not list(resource("Bundles").glob("*/models/*.safetensors")), reason="no weights are here"),
]

AT_ONCE_S = 1.0


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(spacing_mm=(7.0, 4.0, 4.0))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The only temporary folder that scans and results pass through."""
    from COVIDMultitaskModule import exchange

    folder = tmp_path / "exchange"
    folder.mkdir()
    monkeypatch.setattr(exchange, "_roots", lambda: [folder])
    return folder


@pytest.fixture
def app(host, tmp_path, temporary, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more only wait for each other while other tests run, too
    application = Application(host, tmp_path)
    yield application
    application.close()
    application.check()


@pytest.fixture
def widget(app, moduleFile):
    opened = app.openModule(moduleFile)
    opened.panel._timer.setInterval(10)  # short stages are seen, too
    return opened


@pytest.fixture
def addScan(host, phantom):
    def add(name: str = "phantom"):
        toRas = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.volume.geometry.affine @ np.eye(4)[[2, 1, 0, 3]]
        return host.addVolume(phantom.volume.array, toRas, name)

    return add


def apply(app, widget) -> None:
    app.wait(lambda: not widget.logic.client.isBusy)
    app.click(widget.ui.applyButton)


def waitForStage(app, widget, stage: str) -> None:
    app.wait(lambda: widget.ui.statusLabel.text.startswith(STAGES[stage]) or not widget.panel.isRunning, 300)
    assert widget.panel.isRunning, f"{stage} was never seen: {widget.ui.statusLabel.text}"


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _parent, itsGroup = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(itsGroup) == group and state != "Z":
            found.append(int(folder.name))
    return found


@pytest.fixture
def family(monkeypatch):
    """Every worker has a child of its own, which ignores polite requests."""
    from COVIDMultitaskModule import analysis

    command = f"trap '' TERM; sleep 600 & exec {sys.executable} -m COVIDMultitaskLib.worker"
    monkeypatch.setattr(analysis, "workerCommand", lambda: ["/bin/sh", "-c", command])


def test_cancel_works_within_a_second_at_every_stage_and_a_warm_worker_starts_at_once(
    app, widget, host, addScan, temporary
):
    addScan()
    nodes = host.scene.GetNumberOfNodes()
    workers, waits_s = [], []
    for stage in [*STAGES, next(iter(STAGES))]:
        started = time.monotonic()
        apply(app, widget)
        waitForStage(app, widget, stage)
        waits_s.append(time.monotonic() - started)
        workers.append(widget.logic.client.processId)
        started = time.monotonic()
        app.click(widget.ui.applyButton)
        assert widget.ui.applyButton.text == "Apply" and widget.ui.statusLabel.text.startswith("Cancelled")
        assert time.monotonic() - started < 0.1, "the window is not held up"
        app.wait(lambda: not widget.logic.client.isBusy)
        assert time.monotonic() - started < AT_ONCE_S, stage
        assert list(temporary.iterdir()) == [] and host.scene.GetNumberOfNodes() == nodes, stage
    assert workers[-1] != workers[-2] or waits_s[-1] < waits_s[0] / 2, "models stay loaded"
    time.sleep(0.3)  # whatever the last run may still say
    widget.panel.poll()
    assert host.scene.GetNumberOfNodes() == nodes


def test_losing_the_scan_or_quitting_during_a_run_leaves_nothing_behind(app, widget, host, addScan, temporary, family):
    def lose(how) -> None:
        apply(app, widget)
        waitForStage(app, widget, "read")
        group = widget.logic.client.processId
        assert len(members(group)) == 2
        how()
        app.wait(lambda: not widget.panel.isRunning and not widget.logic.client.isBusy)
        assert host.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
        assert list(temporary.iterdir()) == []
        widget.logic.close()
        assert members(group) == []

    scan = addScan()
    lose(lambda: host.scene.RemoveNode(scan))
    assert "removed" in widget.ui.statusLabel.text
    addScan()
    lose(host.clear)
    addScan()
    lose(widget.cleanup)


def test_slicers_own_self_test_passes_here_too(app, widget, moduleFile, temporary, capsys):
    moduleFile.COVIDMultitaskTest().runTest()
    assert list(temporary.iterdir()) == []
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert len(said) == 5 and not any("skipped" in words for words in said.values()), said
    for part in ("cancelled", "lesions found", "went to the largest", "edit was measured", "killed", "opened again"):
        assert part in said["phantomIsReadFromScanToExport"], part

"""Slicer's real scene for the tests of the module; skipped with a reason where slicer-core is not installed."""

from __future__ import annotations

import json
import os
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


def _importSlicer() -> None:
    """Import slicer-core's package ``slicer`` while no folder that holds this one is on the path.

    It takes every folder named "slicer" on ``sys.path`` for a part of itself and imports all that is in it.
    """
    if find_library("EGL"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # no look for an X server first
    path = list(sys.path)
    sys.path[:] = [entry for entry in path if Path(entry or ".").resolve() != HERE.parent]
    try:
        import slicer
        import slicer.util  # noqa: F401
    finally:
        sys.path[:] = path


try:
    _importSlicer()
except ImportError as error:  # Python 3.13 and others that slicer-core has no wheel for
    collect_ignore_glob = ["test_*.py"]
    print(f"Testing/slicer is skipped: {error}")
else:
    sys.path[:0] = [str(HERE), str(REPOSITORY / "COVIDMultitask")]
    from slicer_host import stand_ins

    stand_ins.install()


@pytest.fixture(scope="session")
def _host():
    from slicer_host.scene import SlicerHost

    return SlicerHost()


@pytest.fixture
def host(_host):
    """An empty scene with its logics."""
    _host.clear()
    yield _host
    _host.clear()


@pytest.fixture
def resultsFolder(host, tmp_path):
    """The toy chest's results as the child process leaves them."""
    from COVIDMultitaskModule.exchange import writeScan
    from slicer_host.chest import findings, ijkToRas, toyChest

    folder = tmp_path / "results"
    folder.mkdir()
    for name, array in (("lobes", toyChest().lobes), ("lesions", toyChest().lesions)):
        node = host.addVolume(array, ijkToRas(), name)
        writeScan(node, folder / f"{name}.nrrd")
        host.scene.RemoveNode(node)
    (folder / "findings.json").write_text(json.dumps(findings()))
    return folder


@pytest.fixture
def worker(resultsFolder, monkeypatch):
    """Let every analysis start the fake worker; call it with the wanted behaviour."""
    from COVIDMultitaskModule import analysis
    from slicer_host import fake_worker

    command = [sys.executable, "-S", fake_worker.__file__, "good", str(resultsFolder)]
    monkeypatch.setattr(analysis, "workerCommand", lambda: command)

    def behave(behaviour: str) -> None:
        command[3] = behaviour

    return behave


@pytest.fixture
def moduleFile():
    """The module's own Python file, imported."""
    import COVIDMultitask

    return COVIDMultitask

"""A whole run over the real scene with a child process that behaves, or does not."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
from COVIDMultitaskModule import exchange
from COVIDMultitaskModule.analysis import Analysis, libraryEnvironment, workerCommand
from COVIDMultitaskModule.exchange import ExchangeFolder, readResults, writeScan
from COVIDMultitaskModule.run import State
from COVIDMultitaskModule.worker import WorkerClient
from slicer_host import fake_worker
from slicer_host.chest import SHAPE, findings, ijkToRas, toyChest
from slicer_host.scene import linearTransform

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError, OutputError
from COVIDMultitaskLib.volume import geometry_of_sitk

GRID = ijkToRas(rotation_deg=(12, -8, 20), shear=0.25)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The only temporary folder there is."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(exchange, "_roots", lambda: [folder])
    return folder


@pytest.fixture
def scan(host, temporary):
    node = host.addVolume(toyChest().ct, GRID)
    node.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    return node


@pytest.fixture
def results(resultsFolder):
    """A folder as the child process leaves it."""
    return resultsFolder


@pytest.fixture
def client(resultsFolder):
    """``client(behaviour)``: a client whose worker behaves like that."""
    made = []

    def make(behaviour: str) -> WorkerClient:
        command = [sys.executable, "-S", fake_worker.__file__, behaviour, str(resultsFolder)]
        made.append(WorkerClient(lambda: command, cancelGrace_s=0.3))
        return made[-1]

    yield make
    for each in made:
        each.close()


def run(analysis: Analysis, limit_s: float = 15.0) -> State:
    analysis.start()
    started = time.monotonic()
    while analysis.poll() is State.RUNNING:
        assert time.monotonic() - started < limit_s
        time.sleep(0.01)
    return analysis.state


def test_a_good_run_gives_what_the_child_found_and_leaves_nothing_behind(scan, results, temporary, client):
    stages = []
    analysis = Analysis(scan, client("good"), onProgress=lambda message: stages.append(message.stage))
    assert run(analysis) is State.DONE
    np.testing.assert_array_equal(analysis.results.lobes, toyChest().lobes)
    np.testing.assert_array_equal(analysis.results.lesions, toyChest().lesions)
    assert analysis.results.findings == findings()
    assert stages[0] == "read" and stages[-1] == "write"
    assert list(temporary.iterdir()) == []


def test_the_scan_is_handed_out_on_its_own_grid_without_its_transform(scan, temporary):
    import SimpleITK as sitk

    folder = ExchangeFolder.create()
    writeScan(scan, folder.scan)
    image = sitk.ReadImage(str(folder.scan))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), toyChest().ct)
    geometry = geometry_of_sitk(image)
    rasToLps = np.diag([-1.0, -1.0, 1.0, 1.0])
    expected = rasToLps @ GRID @ np.eye(4)[[2, 1, 0, 3]]
    np.testing.assert_allclose(geometry.affine, expected, atol=1e-6)
    assert not geometry.is_orthogonal


@pytest.mark.parametrize(("behaviour", "words"), [("refuse", "not a chest CT"), ("crash", "exit code 7")])
def test_a_run_that_fails_says_why_and_leaves_nothing_behind(behaviour, words, scan, results, temporary, client):
    analysis = Analysis(scan, client(behaviour))
    assert run(analysis) is State.FAILED
    assert words in analysis.error and analysis.results is None
    assert list(temporary.iterdir()) == []


def settled(analysis, temporary) -> bool:
    analysis.poll()
    return not any(temporary.iterdir())


def test_cancel_ends_a_hanging_run_within_a_second_and_nothing_appears(scan, temporary, host, client):
    analysis = Analysis(scan, client("hang"))
    analysis.start()
    while not analysis._client.log:
        analysis.poll()
        time.sleep(0.01)
    nodes = host.scene.GetNumberOfNodes()
    started = time.monotonic()
    analysis.cancel()
    assert analysis.state is State.CANCELLED and time.monotonic() - started < 0.1, "the window is not held up"
    while not settled(analysis, temporary):
        assert time.monotonic() - started < 1.0
    assert analysis.state is State.CANCELLED and analysis.results is None
    assert host.scene.GetNumberOfNodes() == nodes


def test_results_that_come_after_the_cancellation_never_appear(scan, temporary, client):
    analysis = Analysis(scan, client("good"))
    analysis.start()
    time.sleep(1.0)  # everything has been said, nothing been heard
    analysis.cancel()
    while not settled(analysis, temporary):
        pass
    assert analysis.state is State.CANCELLED and analysis.results is None


def test_cancel_from_the_progress_listener_is_safe(scan, results, temporary, client):
    analysis = Analysis(scan, client("good"), onProgress=lambda message: analysis.cancel())
    assert run(analysis) is State.CANCELLED
    while not settled(analysis, temporary):
        pass


def test_cancel_after_the_end_changes_nothing(scan, results, client):
    analysis = Analysis(scan, client("good"))
    run(analysis)
    analysis.cancel()
    assert analysis.state is State.DONE


@pytest.mark.parametrize(
    ("disturb", "words"),
    [
        (lambda host, scan: host.scene.RemoveNode(scan), "removed"),
        (lambda host, scan: host.clear(), "removed"),
        (lambda host, scan: scan.SetAndObserveImageData(None), "changed"),
        (lambda host, scan: slicer.util.arrayFromVolumeModified(scan), "changed"),
        (lambda host, scan: slicer.util.updateVolumeFromArray(scan, np.zeros((3, 4, 5), np.int16)), "changed"),
    ],
    ids=["volume removed", "scene closed", "voxels gone", "voxels changed", "other voxels"],
)
def test_results_of_a_scan_that_is_no_longer_the_same_are_not_used(
    disturb, words, scan, results, host, temporary, client
):
    analysis = Analysis(scan, client("good"))
    analysis.start()
    disturb(host, scan)
    while analysis.poll() is State.RUNNING:
        time.sleep(0.01)
    assert analysis.state is State.FAILED and words in analysis.error
    assert list(temporary.iterdir()) == []


def test_a_scan_that_is_only_moved_meanwhile_keeps_its_results(scan, results, host, client):
    analysis = Analysis(scan, client("good"))
    analysis.start()
    scan.HardenTransform()
    while analysis.poll() is State.RUNNING:
        time.sleep(0.01)
    assert analysis.state is State.DONE


def test_results_on_another_grid_are_refused(scan, results, host):
    writeScan(host.addVolume(np.ones((4, 4, 4), np.uint8), np.eye(4)), results / "lobes.nrrd")
    with pytest.raises(InputError, match="another grid"):
        readResults(results, SHAPE)


def test_missing_label_maps_are_answers_not_given(results, host):
    (results / "lesions.nrrd").unlink()
    assert readResults(results, SHAPE).lesions is None


@pytest.mark.parametrize("name", ["findings.json", "lobes.nrrd"])
def test_damaged_results_are_refused(name, results, host, capfd):
    (results / name).write_bytes(b"NRRD0004\nbroken")
    with pytest.raises(InputError, match="press Apply again"):
        readResults(results, SHAPE)


def test_no_room_for_the_scan_is_said(scan, monkeypatch, temporary, capfd, client):
    analysis = Analysis(scan, client("good"))
    for path in temporary.iterdir():
        path.rmdir()
    with pytest.raises(OutputError, match="disk space"):
        analysis.start()
    assert analysis.state is State.FAILED


def test_a_python_that_cannot_be_started_is_said(scan, temporary):
    analysis = Analysis(scan, WorkerClient(lambda: ["/nowhere/PythonSlicer"]))
    with pytest.raises(CovidMultitaskError, match="could not be started"):
        analysis.start()
    assert list(temporary.iterdir()) == []


def test_the_exchange_folder_is_private_and_plain(temporary):
    folder = ExchangeFolder.create()
    assert folder.path.stat().st_mode & 0o077 == 0
    assert folder.path.name.isascii()


def test_a_plain_folder_is_preferred_to_one_with_other_letters(tmp_path, monkeypatch):
    special = tmp_path / "Jürgen"
    special.mkdir()
    monkeypatch.setattr(exchange, "temporaryRoot", lambda: special)
    assert exchange._roots()[0] == Path(tempfile.gettempdir())


def test_no_temporary_folder_at_all_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(exchange, "_roots", lambda: [tmp_path / "not there"])
    with pytest.raises(OutputError, match="temporary folder"):
        ExchangeFolder.create()


def test_the_child_finds_the_same_library(repository):
    assert str(repository) in libraryEnvironment()["PYTHONPATH"].split(":")
    assert workerCommand()[1:] == ["-m", "COVIDMultitaskLib.worker"]

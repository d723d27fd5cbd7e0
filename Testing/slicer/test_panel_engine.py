"""Engine and Scan in the whole widget: weights added and removed, devices, run times, what is missing, sequences."""

from __future__ import annotations

import re
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import slicer

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 is not installed")

from COVIDMultitaskModule import engines
from COVIDMultitaskModule.devices import devicesOf
from COVIDMultitaskModule.run_times import RunTimes
from hypothesis import given
from hypothesis import strategies as st
from qt_host.application import Application
from slicer_host.chest import ijkToRas, toyChest

from COVIDMultitaskLib.resources import resource
from Testing.library.tiny_bundle import write_tiny_bundle


@pytest.fixture
def answers(monkeypatch):
    """What the user answers: to questions, and to file dialogs."""
    given = SimpleNamespace(confirm=True, yes=True, file="", asked=[], errors=[])

    def ask(text: str, answer: str) -> bool:
        given.asked.append(text)
        return getattr(given, answer)

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_: ask(text, "confirm"), raising=False)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, *_: ask(text, "yes"), raising=False)
    return given


@pytest.fixture
def app(host, tmp_path, monkeypatch, answers):
    application = Application(host, tmp_path)
    from COVIDMultitaskModule import compat

    monkeypatch.setattr(compat, "missingPackages", list)
    monkeypatch.setattr(compat, "userDataFolder", lambda: tmp_path / "data")
    monkeypatch.setattr(slicer.util, "errorDisplay", answers.errors.append)
    dialog = SimpleNamespace(getOpenFileName=lambda *_: answers.file)
    from COVIDMultitaskModule.sections import engine

    monkeypatch.setattr(engine.qt, "QFileDialog", dialog, raising=False)
    yield application
    application.close()
    application.check()
    del slicer.app


@pytest.fixture
def widget(app, moduleFile):
    return app.openModule(moduleFile)


def items(selector) -> list[str]:
    return [selector.itemText(n) for n in range(selector.count)]


# -- weights


@pytest.fixture
def archive(tmp_path):
    """The bundle that ships under another version, as a zip file."""
    import shutil

    from COVIDMultitaskLib.bundles import METADATA, write_sums

    copy = shutil.copytree(resource("Bundles", "joint"), tmp_path / "copy")
    metadata = re.sub(r'"version": "[\d.]+"', '"version": "9.9"', (copy / METADATA).read_text(), count=1)
    (copy / METADATA).write_text(metadata)
    write_sums(copy)
    path = tmp_path / "weights.zip"
    with zipfile.ZipFile(path, "w") as content:
        for file in copy.rglob("*"):
            content.write(file, f"w/{file.relative_to(copy)}")
    return path


def test_of_several_engines_the_default_one_is_offered_first(monkeypatch, tmp_path):
    for name, engine in (("a", "amyar"), ("b", "joint"), ("c", "joint")):
        write_tiny_bundle(tmp_path / name, name, own={"engine": engine})
    monkeypatch.setattr(engines, "shipped_bundles", lambda: [tmp_path / name for name in "abc"])
    assert [entry.title.split()[0] for entry in engines.listEngines()] == ["b", "c", "a"]


@pytest.fixture
def severity_alone(monkeypatch, tmp_path):
    """Two engines: the default one, and one that finds no lesions."""
    for name, engine in (("all", "joint"), ("few", "m2unet")):
        write_tiny_bundle(tmp_path / name, name, own={"engine": engine})
    monkeypatch.setattr(engines, "shipped_bundles", lambda: [tmp_path / "all", tmp_path / "few"])


def test_what_an_engine_does_not_give_the_default_one_supplies_if_the_user_wants(app, severity_alone, moduleFile):
    widget = app.openModule(moduleFile)
    ui, engine = widget.ui, widget.panel.engine
    assert ui.engineSelector.currentText.startswith("all") and ui.fillCheck.isHidden()
    assert engine.choice.request["fill_with"] is None, "it gives all answers itself"
    ui.engineSelector.currentIndex = 1
    assert ui.fillCheck.text == "Let joint supply the lesions"
    assert not ui.fillCheck.isHidden()
    assert engine.choice.request["fill_with"] == "joint"
    app.click(ui.fillCheck)
    assert engine.choice.request["fill_with"] is None
    again = app.openModule(moduleFile)
    assert again.ui.engineSelector.currentIndex == 1 and not again.ui.fillCheck.checked, "the choice is remembered"
    app.click(again.ui.fillCheck)
    assert again.panel.engine.choice.request["fill_with"] == "joint"


def test_weights_are_added_from_a_zip_file_used_and_removed(app, widget, archive, answers, tmp_path):
    ui = widget.ui
    before = items(ui.engineSelector)
    assert not ui.removeBundleButton.enabled, "what ships is not the user's"
    answers.file = str(archive)
    app.click(ui.addBundleButton)
    assert ui.engineSelector.currentText == "joint 9.9" and not answers.errors
    folder = tmp_path / "data" / "Bundles" / "joint-9.9"
    assert widget.panel.engine.choice.bundle == str(folder) and ui.removeBundleButton.enabled
    answers.confirm = False
    app.click(ui.removeBundleButton)
    assert folder.is_dir() and "joint 9.9" in answers.asked[-1]
    answers.confirm = True
    app.click(ui.removeBundleButton)
    assert not folder.exists() and items(ui.engineSelector) == before


def test_weights_that_were_tampered_with_are_not_added(app, widget, archive, answers, tmp_path):
    with zipfile.ZipFile(archive, "a") as content, pytest.warns(UserWarning, match="Duplicate"):
        content.writestr("w/LICENSE", "mine now")
    answers.file = str(archive)
    before = items(widget.ui.engineSelector)
    app.click(widget.ui.addBundleButton)
    assert "SHA-256" in answers.errors[0] and items(widget.ui.engineSelector) == before
    assert list((tmp_path / "data" / "Bundles").iterdir()) == []
    answers.file = ""
    app.click(widget.ui.addBundleButton)
    assert len(answers.errors) == 1, "the user may think better of it"


def test_added_weights_are_still_chosen_when_slicer_is_started_again(app, widget, archive, answers, moduleFile):
    answers.file = str(archive)
    app.click(widget.ui.addBundleButton)
    assert app.openModule(moduleFile).ui.engineSelector.currentText == "joint 9.9"


def test_the_citation_is_copied(app, widget):
    app.click(widget.ui.citeButton)
    copied = app.qApplication.clipboard().text()
    assert "COVIDMultitask" in copied and "Weights: joint" in copied
    assert copied == widget.ui.citeButton.toolTip


# -- devices


def test_devices_come_from_the_worker_when_engine_is_opened(app, widget, worker, moduleFile):
    worker("good")
    ui = widget.ui
    assert widget.logic.client.processId is None, "nothing is started before it is needed"
    ui.engineButton.collapsed = False
    app.wait(lambda: "cuda:1: Toy GPU, 6.5 of 8.0 GB free" in items(ui.deviceSelector))
    assert items(ui.deviceSelector)[1] == "CPU"
    ui.deviceSelector.currentIndex = 2
    assert widget.panel.engine.choice.device == "cuda:1"
    again = app.openModule(moduleFile)
    assert again.panel.engine.choice.device == "cuda:1" and "not seen" in again.ui.deviceSelector.currentText


def test_an_analysis_does_not_wait_for_the_devices(app, widget, worker, host):
    host.addVolume(toyChest().ct, ijkToRas(), "CT")
    worker("good")
    widget.ui.engineButton.collapsed = False
    assert widget.logic.client.isBusy
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    assert widget.ui.statusLabel.text.startswith("Done")


@given(st.lists(st.dictionaries(st.sampled_from(["device", "name", "memory_gb", "free_gb"]), st.none() | st.text())))
def test_any_answer_makes_a_list_that_begins_with_automatic(told):
    devices = devicesOf(told)
    assert devices[0].key == "auto" and all(device.key and device.title for device in devices)


def test_the_library_lists_the_cpu_with_its_memory():
    from COVIDMultitaskLib.inference.device import choose_device, list_devices

    cpu, *others = list_devices()
    assert cpu["device"] == "cpu" and 0 < cpu["free_gb"] <= cpu["memory_gb"]
    for device in (cpu, *others):
        assert choose_device(device["device"]).type in device["device"]


# -- run times


def test_the_last_run_is_remembered_for_its_engine_and_device(app, widget, worker, host, moduleFile):
    host.addVolume(toyChest().ct, ijkToRas(), "CT")
    worker("good")
    assert "not measured" in widget.ui.engineLabel.text
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    assert "0 s for 0 million voxels" in widget.ui.engineLabel.text
    assert "0 s for 0 million" in app.openModule(moduleFile).ui.engineLabel.text
    widget.ui.deviceSelector.currentIndex = 1
    assert "not measured" in widget.ui.engineLabel.text


class Settings(dict):
    setValue = dict.__setitem__

    def value(self, key, default):
        return self.get(key, default)


def test_run_times_give_the_plan_of_the_next_run():
    times = RunTimes(Settings())
    before = times.plan("joint", "cpu")
    times.remember("joint", "cpu", {"read": 2.0, "predict": 6.0}, 65.01)
    assert times.plan("joint", "cpu") == (("read", 0.25), ("predict", 0.75))
    assert times.text("joint", "cpu") == "8 s for 65 million voxels"
    assert times.plan("joint", "cuda:0") == before and times.text("other", "cpu") == ""


@given(st.text() | st.sampled_from(['{"a|b": {}}', "[]", "7", '{"a|b": {"stages": {"read": "x"}, "megavoxels": 1}}']))
def test_damaged_run_times_are_forgotten(text):
    times = RunTimes(Settings({"COVIDMultitask/RunTimes": text}))
    assert times.text("a", "b") == "" and times.plan("a", "b")
    times.remember("a", "b", {"read": 1.0}, 1.0)
    assert times.text("a", "b")


# -- what is missing


@pytest.fixture
def bare(app, moduleFile, monkeypatch):
    """The widget in a Slicer that lacks packages; what is installed is recorded."""
    from COVIDMultitaskModule import compat

    missing, installed = ["torch", "monai", "SimpleITK"], []

    def install(what: str) -> None:
        installed.append(what)
        for name in [name for name in missing if name in what]:
            missing.remove(name)

    monkeypatch.setattr(compat, "missingPackages", lambda: list(missing))
    monkeypatch.setattr(slicer.util, "pip_install", install, raising=False)
    opened = app.openModule(moduleFile)
    opened.installed, opened.install = installed, install
    return opened


def extension(monkeypatch, installTorch):
    logic = SimpleNamespace(PyTorchUtilsLogic=lambda: SimpleNamespace(installTorch=installTorch))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", logic)


def test_what_is_missing_is_explained_and_nothing_is_installed_unasked(app, bare, answers):
    ui = bare.ui
    ui.engineButton.collapsed = False
    assert not ui.installLabel.isHidden() and "torch" in ui.installLabel.text and bare.installed == []
    assert bare.logic.client.processId is None, "no worker can tell devices without torch"
    answers.confirm = False
    app.click(ui.installButton)
    assert bare.installed == [] and "torch" in answers.asked[0]


def test_torch_comes_through_its_extension_and_slicers_packages_stay(app, bare, monkeypatch):
    def installTorch(askConfirmation=False):
        assert askConfirmation
        bare.install("extension: torch")
        return object()

    extension(monkeypatch, installTorch)
    app.click(bare.ui.installButton)
    assert bare.installed == ["extension: torch", "--no-deps monai", "--no-deps SimpleITK"], "some builds lack it"
    assert bare.ui.installLabel.isHidden() and "Choose a chest CT" in bare.ui.applyButton.toolTip


@pytest.mark.parametrize("outcome", ["declined", "network"])
def test_a_torch_that_was_not_installed_is_said(app, bare, monkeypatch, outcome):
    def installTorch(askConfirmation=False):
        if outcome == "network":
            raise RuntimeError("pip failed with a long list")
        return None

    extension(monkeypatch, installTorch)
    app.click(bare.ui.installButton)
    assert "was not installed" in bare.ui.installLabel.text and bare.installed == []


@pytest.mark.parametrize(
    ("server", "words"), [(True, "is installed: restart"), (False, "Extensions Manager"), (None, "Extensions Manager")]
)
def test_without_the_extension_it_is_installed_first(app, bare, monkeypatch, server, words):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    asked = []
    if server is not None:
        manager = SimpleNamespace(installExtensionFromServer=lambda name, restart: asked.append(name) or server)
        slicer.app.extensionsManagerModel = lambda: manager
    app.click(bare.ui.installButton)
    assert words in bare.ui.installLabel.text and bare.installed == []
    assert asked == ([] if server is None else ["PyTorch"])


# -- scans


def describe(host, name: str, values: dict[str, str], monkeypatch):
    database = SimpleNamespace(instanceValue=lambda uid, tag: values.get(tag, "") if uid == "1.2.3" else "")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    node = host.addVolume(toyChest().ct, ijkToRas(), name)
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    return node


@pytest.mark.parametrize(
    ("agent", "words"), [("Iohexol", "Contrast medium: Iohexol"), ("NONE", "none given"), ("", "not told by the file")]
)
def test_contrast_is_what_the_header_says(widget, host, monkeypatch, agent, words):
    widget.panel.scan.choose(describe(host, "CT", {"0018,0010": agent}, monkeypatch))
    assert words in widget.ui.scanLabel.text


def test_contrast_of_a_scan_that_is_not_from_dicom_is_not_guessed(widget, host):
    widget.panel.scan.choose(host.addVolume(toyChest().ct, ijkToRas(), "CT"))
    assert "not told by the file" in widget.ui.scanLabel.text


def test_gaps_between_slices_and_uneven_slices_are_said(widget, host, monkeypatch):
    from slicer_host.scene import warpTransform

    node = describe(host, "CT", {"0018,0050": "1.25"}, monkeypatch)
    warp = warpTransform(host.scene)
    warp.SetName("CT acquisition transform")
    node.SetAndObserveTransformNodeID(warp.GetID())
    widget.panel.scan.choose(node)
    assert "6.8 mm between slices of 1.2 mm were not scanned" in widget.ui.scanLabel.text
    assert "not evenly spaced" in widget.ui.scanLabel.text
    thick = describe(host, "thick", {"0018,0050": "8.0"}, monkeypatch)
    widget.panel.scan.choose(thick)
    assert "not scanned" not in widget.ui.scanLabel.text and "evenly" not in widget.ui.scanLabel.text


# -- sequences


@pytest.fixture
def sequence(host, widget):
    """A scan of three frames, of which the second is shown; frame k holds k in its first voxel."""
    frames = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "breathing")
    for k in range(3):
        array = toyChest().ct.copy()
        array[0, 0, 0] = k
        node = host.addVolume(array, ijkToRas(), f"f{k}")
        frames.SetDataNodeAtValue(node, str(k))
        host.scene.RemoveNode(node)
    browser = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(frames.GetID())
    proxy = host.addVolume(toyChest().ct, ijkToRas(), "breathing")
    browser.AddProxyNode(proxy, frames, False)
    browser.SetSelectedItemNumber(1)
    widget.panel.scan.choose(proxy)
    return proxy


def frameVolumes() -> list:
    found = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in found if node.GetAttribute("COVIDMultitask.frame")]


def test_all_frames_are_analysed_each_with_results_of_its_own(app, widget, worker, sequence, answers):
    from COVIDMultitaskModule.scene_writer import readResults

    worker("good")
    said = []
    say = widget.panel._say
    widget.panel._say = lambda text: said.append(text) or say(text)
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    assert "3 frames" in answers.asked[0]
    assert [node.GetName() for node in frameVolumes()] == [f"breathing, frame {k} of 3" for k in (1, 2, 3)]
    assert [int(slicer.util.arrayFromVolume(node)[0, 0, 0]) for node in frameVolumes()] == [0, 1, 2]
    assert all(readResults(node) is not None for node in frameVolumes()) and readResults(sequence) is None
    assert any(text.startswith("Frame 2 of 3: ") for text in said)
    assert widget.ui.statusLabel.text.startswith("Frame 3 of 3: Done")


def test_only_the_frame_that_is_shown_if_the_user_wants(app, widget, worker, sequence, answers):
    worker("good")
    answers.yes = False
    for _turn in range(2):
        widget.panel.scan.choose(sequence)
        app.click(widget.ui.applyButton)
        app.wait(lambda: not widget.panel.isRunning)
    (frame,) = frameVolumes()
    assert frame.GetName() == "breathing, frame 2 of 3" and widget.panel.scan.volume is frame
    assert widget.ui.statusLabel.text.startswith("Done")


def test_cancel_ends_the_whole_sequence_and_keeps_what_was_done(app, widget, worker, sequence):
    from COVIDMultitaskModule.scene_writer import readResults

    worker("good")
    app.click(widget.ui.applyButton)
    app.wait(lambda: widget.ui.statusLabel.text.startswith("Frame 2"))
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.logic.client.isBusy)
    first, *others = frameVolumes()
    assert not widget.panel.isRunning and readResults(first) is not None
    assert readResults(others[-1]) is None


# -- new nodes or the same


@pytest.mark.parametrize("isKept", [False, True])
def test_earlier_results_are_replaced_or_kept_as_the_user_wants(app, widget, worker, host, isKept):
    from COVIDMultitaskModule.scene_writer import readMask, readResults

    worker("good")
    scan = host.addVolume(toyChest().ct, ijkToRas(), "CT")
    assert widget.ui.keepCheck.isHidden(), "there is nothing to keep yet"
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    earlier = readResults(scan)
    assert not widget.ui.keepCheck.isHidden()
    widget.ui.keepCheck.checked = isKept
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    now = readResults(scan)
    assert (now.lobes is earlier.lobes) == (now.table is earlier.table) == (not isKept)
    kept = [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if "earlier" in node.GetName()]
    assert len(kept) == (2 if isKept else 0)
    np.testing.assert_array_equal(readMask(scan, "lobes"), toyChest().lobes)
    for node in kept:
        assert not node.GetDisplayNode().GetVisibility() and node.GetSegmentation().GetNumberOfSegments()

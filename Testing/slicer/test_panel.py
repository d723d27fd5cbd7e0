"""The whole widget in the offscreen Qt host, with the real logic, scene and client, and a fake worker."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import slicer

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 is not installed")

from qt_host.application import Application
from slicer_host import fake_worker
from slicer_host.chest import ijkToRas, toyChest
from slicer_host.scene import linearTransform


@pytest.fixture
def app(host, tmp_path, monkeypatch):
    application = Application(host, tmp_path)
    from COVIDMultitaskModule import compat, engines

    monkeypatch.setattr(compat, "missingPackages", list)
    entry = engines.EngineEntry("/bundles/toy", "toy 0", ("lobes", "lesions"), "Apache-2.0", "nothing")
    monkeypatch.setattr("COVIDMultitaskModule.sections.engine.listEngines", lambda folder="": [entry])
    yield application
    application.close()
    application.check()
    del slicer.app


@pytest.fixture
def widget(app, moduleFile):
    return app.openModule(moduleFile)


@pytest.fixture
def scan(host, widget):
    """A scan under a transform; the only volume, so it is chosen."""
    node = host.addVolume(toyChest().ct, ijkToRas(rotation_deg=(10, 20, 30)), "CT")
    node.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    assert widget.ui.inputSelector.currentNode() is node
    return node


@pytest.fixture
def analysed(app, widget, scan, worker):
    """The scan with results."""
    worker("good")
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    return scan


def label(widget) -> str:
    return widget.ui.findingsLabel.text


def test_apply_says_what_is_missing_until_a_scan_is_chosen(app, widget, host):
    ui = widget.ui
    assert not ui.applyButton.enabled and ui.applyButton.toolTip == "Choose a chest CT."
    node = host.addVolume(toyChest().ct, ijkToRas(), "CT")
    assert ui.applyButton.enabled
    assert "64 × 48 × 24 voxels" in ui.scanLabel.text and "8.0 mm apart" in ui.scanLabel.text
    host.scene.RemoveNode(node)
    assert not ui.applyButton.enabled


def test_apply_needs_the_packages_and_offers_to_install_them(app, moduleFile, host, monkeypatch):
    from COVIDMultitaskModule import compat

    monkeypatch.setattr(compat, "missingPackages", lambda: ["torch"])
    widget = app.openModule(moduleFile)
    host.addVolume(toyChest().ct, ijkToRas(), "CT")
    assert not widget.ui.applyButton.enabled and "torch" in widget.ui.applyButton.toolTip
    widget.ui.engineButton.collapsed = False
    assert not widget.ui.installButton.isHidden()


def test_a_scan_is_described_with_what_to_keep_in_mind(widget, scan, host):
    assert "moved" in widget.ui.scanLabel.text, "it lies under a transform"
    picture = host.addVolume(np.arange(8 * 9 * 10, dtype=np.uint8).reshape(8, 9, 10) % 200, ijkToRas(), "picture")
    widget.panel.scan.choose(picture)
    assert "not Hounsfield units" in widget.ui.scanLabel.text and "cut off" in widget.ui.scanLabel.text


def test_apply_shows_progress_then_findings(app, widget, scan, worker):
    worker("good")
    ui = widget.ui
    app.click(ui.applyButton)
    assert ui.applyButton.text == "Cancel" and not ui.progressBar.isHidden()
    assert not ui.inputSelector.enabled and not ui.sampleButton.enabled
    app.wait(lambda: not widget.panel.isRunning)
    assert ui.statusLabel.text.startswith("Done in") and ui.applyButton.text == "Apply" and ui.applyButton.enabled
    assert ui.progressBar.isHidden() and ui.inputSelector.enabled
    assert "COVID-19" in label(widget) and "Slices are 8 mm thick." in label(widget)
    assert "research" in ui.researchLabel.text and "toy" in ui.researchLabel.text
    assert ui.editLesionsButton.enabled and ui.exportFolderButton.enabled and ui.lobesCheck.enabled


@pytest.mark.parametrize("stage", ["read", "load", "predict", "restore", "write"])
def test_cancel_at_any_stage_is_quick_and_keeps_the_worker(app, widget, scan, worker, host, stage):
    from COVIDMultitaskModule.devices import Device

    # the fake worker stays in the stage that the device names
    widget.panel.engine._listDevices([Device(stage, stage)])
    worker("stage")
    app.click(widget.ui.applyButton)
    app.wait(lambda: widget.panel.run.bar.elapsed_s >= 1.0)
    process, nodes = widget.logic.client.processId, host.scene.GetNumberOfNodes()
    started = time.monotonic()
    app.click(widget.ui.applyButton)
    assert widget.ui.applyButton.text == "Apply" and widget.ui.statusLabel.text.startswith("Cancelled")
    app.wait(lambda: not widget.logic.client.isBusy)
    assert time.monotonic() - started < 1.0
    assert widget.logic.client.processId == process and host.scene.GetNumberOfNodes() == nodes


def test_cancel_of_a_worker_that_hangs_ends_it_within_a_second(app, widget, scan, worker):
    worker("hang")
    app.click(widget.ui.applyButton)
    app.wait(lambda: widget.logic.client.log)
    started = time.monotonic()
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.logic.client.isBusy)
    assert time.monotonic() - started < 1.2 and widget.logic.client.processId is None
    worker("good")
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    assert widget.ui.statusLabel.text.startswith("Done")


def test_a_worker_that_dies_is_explained_and_replaced(app, widget, scan, worker):
    worker("crash")
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    assert "exit code 7" in widget.ui.statusLabel.text
    assert "RuntimeError: boom" in widget.ui.logText.plainText
    worker("good")
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    assert widget.ui.statusLabel.text.startswith("Done")


@pytest.mark.parametrize("loss", ["scene closed", "volume removed", "module closed"])
def test_losing_the_scan_during_a_run_is_safe(app, widget, scan, worker, host, loss):
    worker("hang")
    app.click(widget.ui.applyButton)
    app.wait(lambda: widget.logic.client.log)
    if loss == "scene closed":
        host.clear()
    elif loss == "volume removed":
        host.scene.RemoveNode(scan)
    else:
        widget.cleanup()
        assert widget.logic.client.processId is None
    app.wait(lambda: not widget.panel.isRunning and not widget.logic.client.isBusy)
    assert widget.ui.applyButton.text == "Apply"
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_another_scan_shows_its_own_findings(app, widget, analysed, host):
    other = host.addVolume(toyChest().ct, ijkToRas(), "other")
    widget.panel.scan.choose(other)
    assert "Not analysed yet" in label(widget) and not widget.ui.exportFolderButton.enabled
    widget.panel.scan.choose(analysed)
    assert "COVID-19" in label(widget)


def test_findings_are_shown_again_when_the_module_is_opened_on_a_scene_that_has_them(app, analysed, moduleFile):
    again = app.openModule(moduleFile)
    assert "COVID-19" in label(again) and "toy" in again.ui.researchLabel.text


def test_a_correction_shows_both_findings_and_can_be_taken_back(app, widget, analysed):
    from COVIDMultitaskModule.scene_writer import readRecord, readResults
    from COVIDMultitaskModule.sections.review import DEBOUNCE_MS

    app.click(widget.ui.editLesionsButton)
    widget.ui.reviewerEdit.text = "A. Reader"
    segmentation = readResults(analysed).lesions
    erased = np.zeros(toyChest().lesions.shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(erased, segmentation, "ground_glass", analysed)
    started = time.process_time()  # other tests may run beside this one
    app.wait(lambda: readRecord(analysed).correction is not None)
    assert DEBOUNCE_MS + 1000 * (time.process_time() - started) < 1000
    assert readRecord(analysed).correction.by == "A. Reader"
    assert "Corrected" in label(widget) and widget.ui.restoreButton.enabled
    app.click(widget.ui.restoreButton)
    assert readRecord(analysed).correction is None and "Corrected" not in label(widget)
    app.click(widget.ui.undoRestoreButton)
    assert readRecord(analysed).correction.kinds == ("lesions",)


def erase(scan) -> None:
    from COVIDMultitaskModule.scene_writer import readResults

    erased = np.zeros(toyChest().lesions.shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(erased, readResults(scan).lesions, "ground_glass", scan)


def test_undo_is_there_after_a_visit_to_the_segment_editor(app, widget, analysed):
    from COVIDMultitaskModule.scene_writer import readRecord

    erase(analysed)
    app.wait(lambda: readRecord(analysed).correction is not None)
    app.click(widget.ui.restoreButton)
    widget.exit()
    widget.enter()
    app.click(widget.ui.undoRestoreButton)
    assert readRecord(analysed).correction.kinds == ("lesions",)


def test_a_change_is_measured_before_another_scan_is_shown(app, widget, analysed, host):
    from COVIDMultitaskModule.scene_writer import readRecord

    erase(analysed)
    widget.panel.scan.choose(host.addVolume(toyChest().ct, ijkToRas(), "other"))
    assert readRecord(analysed).correction.kinds == ("lesions",)


def test_a_name_that_is_given_after_the_correction_is_written_too(app, widget, analysed):
    from COVIDMultitaskModule.scene_writer import readRecord

    erase(analysed)
    app.wait(lambda: readRecord(analysed).correction is not None)
    widget.ui.reviewerEdit.text = "B. Reader"
    widget.ui.reviewerEdit._target.editingFinished.emit()
    assert readRecord(analysed).correction.by == "B. Reader"


@pytest.mark.parametrize("isAllowed", [False, True])
def test_corrected_masks_are_replaced_only_if_the_user_says_so(app, widget, analysed, monkeypatch, isAllowed):
    from COVIDMultitaskModule.scene_writer import readRecord

    asked = []
    confirm = lambda text: asked.append(text) or isAllowed  # noqa: E731
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm, raising=False)
    erase(analysed)
    app.wait(lambda: readRecord(analysed).correction is not None)
    app.click(widget.ui.applyButton)
    assert "corrected" in asked[0] and widget.panel.isRunning == isAllowed
    app.wait(lambda: not widget.panel.isRunning)
    assert (readRecord(analysed).correction is None) == isAllowed


@pytest.mark.parametrize("isReady", [True, False])
def test_edit_opens_the_segment_editor_with_scan_and_segment_chosen(app, widget, analysed, monkeypatch, isReady):
    from COVIDMultitaskModule.scene_writer import readResults

    chosen = []
    editor = SimpleNamespace(
        mrmlSegmentEditorNode=lambda: editor if isReady else None,
        setSegmentationNode=chosen.append,
        setSourceVolumeNode=chosen.append,
        setCurrentSegmentID=chosen.append,
    )
    representation = SimpleNamespace(self=lambda: SimpleNamespace(editor=editor))
    module = SimpleNamespace(widgetRepresentation=lambda: representation)
    monkeypatch.setattr(slicer.modules, "segmenteditor", module, raising=False)
    nodes = readResults(analysed)
    for button, node, segment in (
        (widget.ui.editLesionsButton, nodes.lesions, "ground_glass"),
        (widget.ui.editLobesButton, nodes.lobes, "left_upper"),
    ):
        chosen.clear()
        app.click(button)
        assert app.calls[-1] == ("selectModule", "SegmentEditor")
        assert chosen == ([node, analysed, segment] if isReady else [])


def test_display_controls_change_the_nodes(app, widget, analysed):
    from COVIDMultitaskModule.scene_writer import readResults

    ui, nodes = widget.ui, readResults(analysed)
    ui.lobesCheck.checked = False
    ui.outlineCheck.checked = True
    ui.opacitySlider.value = 0.5
    ui.surfaceCheck.checked = True
    app.click(ui.mediastinumButton)
    app.check()
    assert not nodes.lobes.GetDisplayNode().GetVisibility() and nodes.lesions.GetDisplayNode().GetVisibility()
    assert not nodes.lesions.GetDisplayNode().GetVisibility2DFill()
    assert nodes.lesions.GetDisplayNode().GetOpacity() == 0.5
    assert nodes.lesions.GetSegmentation().ContainsRepresentation("Closed surface")
    assert (analysed.GetDisplayNode().GetWindow(), analysed.GetDisplayNode().GetLevel()) == (400.0, 40.0)
    ui.lobesCheck.checked = True
    assert nodes.lobes.GetDisplayNode().GetVisibility()
    app.click(ui.layoutButton)
    assert slicer.app.layoutManager().layout == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalWidescreenView


def test_export_writes_a_folder_and_label_map_nodes(app, widget, analysed, host, tmp_path, monkeypatch):
    dialog = SimpleNamespace(getExistingDirectory=lambda *_: str(tmp_path / "out"))
    monkeypatch.setattr("COVIDMultitaskModule.sections.export.qt", SimpleNamespace(QFileDialog=dialog))
    (tmp_path / "out").mkdir()
    app.click(widget.ui.exportFolderButton)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"findings.json", "findings.csv", "lobes.nrrd", "lesions.nrrd"}
    assert "findings.csv, findings.json, lesions.nrrd, lobes.nrrd" in widget.ui.statusLabel.text
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLLabelMapVolumeNode") == 0
    app.click(widget.ui.exportNodesButton)
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLLabelMapVolumeNode") == 2


def test_the_fake_worker_knows_the_stages_of_the_bar():
    from COVIDMultitaskModule.protocol import PLAN

    assert [stage for stage, _ in PLAN] == list(fake_worker.STAGES)


SECTIONS = ("scan", "engine", "findings", "display", "review", "export", "log")


@pytest.mark.parametrize(
    ("width", "isDark", "points"),
    [(350, False, 9), (350, True, 9), (350, False, 13.5), (480, True, 18)],
    ids=["narrow", "dark", "font 150 %", "font 200 %"],
)
def test_the_panel_with_everything_open_fits_and_is_drawn(app, widget, analysed, tmp_path, width, isDark, points):
    from PIL import Image

    for section in SECTIONS:
        getattr(widget.ui, section + "Button").collapsed = False
    path = app.picture(widget, tmp_path / "panel.png", width, isDark, points)
    picture = np.array(Image.open(path).convert("L"))
    assert picture.shape[1] == width and picture.shape[0] > 600
    assert (picture.mean() < 90) == isDark and picture.std() > 15
    assert app.cutOff(widget) == []


def test_long_names_and_paths_do_not_widen_the_panel(app, moduleFile, host, tmp_path):
    host.addVolume(toyChest().ct, ijkToRas(), "5: Thorax 1.0 mm, sharp kernel, inspiration, as named by a scanner " * 2)
    widget = app.openModule(moduleFile)
    widget.ui.bundlesFolder.currentPath = "/home/somebody/.local/share/" + "a folder with a long name/" * 4
    for section in SECTIONS:
        getattr(widget.ui, section + "Button").collapsed = False
    app.picture(widget, tmp_path / "panel.png")
    assert widget.ui.bundlesFolder._target.chosen["filters"] == "ctkPathLineEdit::Dirs", "else files are asked for"

"""The whole widget with results in the scene: evidence, the overlay, a saved scene, sample data."""

from __future__ import annotations

import dataclasses
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import slicer

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 is not installed")

from qt_host.application import Application
from slicer_host.chest import findings, ijkToRas, toyChest
from slicer_host.scene import linearTransform, toWorld
from slicer_host.slice_view import SliceView

PARTS = {"slices": [{"point_lps_mm": [5.0, -6.0, z], "contribution": share} for z, share in ((8.0, 0.2), (-16.0, 0.7))]}


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


def addScan(host, name="CT"):
    node = host.addVolume(toyChest().ct, ijkToRas(rotation_deg=(10, 20, 30)), name)
    node.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    return node


def results():
    """The toy chest's results with evidence of both kinds: uncertain in the lesions, most in the consolidation."""
    from COVIDMultitaskModule.exchange import Results

    chest = toyChest()
    record = findings()
    for component, value in zip(record["lesions"]["components"], (1, 2), strict=True):
        where = np.argwhere(chest.lesions == value)
        component["start_zyx"], component["stop_zyx"] = where.min(axis=0).tolist(), (where.max(axis=0) + 1).tolist()
    uncertainty = np.select([chest.lesions == 1, chest.lesions == 2], [40, 90], 0).astype(np.uint8)
    return Results(chest.lobes, chest.lesions, record, {"uncertainty": uncertainty}, PARTS)


@pytest.fixture
def scan(host):
    from COVIDMultitaskModule.scene_writer import writeResults

    node = addScan(host)
    writeResults(node, results())
    return node


@pytest.fixture
def widget(app, scan, moduleFile):
    return app.openModule(moduleFile)


def items(listWidget) -> list[str]:
    return [listWidget.item(row)._target.text() if hasattr(listWidget.item(row), "_target") else
            listWidget.item(row).text() for row in range(listWidget.count)]  # fmt: skip


def crosshair(host) -> np.ndarray:
    return np.array(host.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode").GetCrosshairRAS())


def test_lesions_and_parts_are_listed_and_a_choice_leads_there(app, widget, scan, host):
    listed = items(widget.ui.placesList)
    assert len(listed) == 4 and "uncertainty 40 %" in listed[0] and "uncertainty 90 %" in listed[1]
    assert listed[2:] == ["Slice, contribution 0.70", "Slice, contribution 0.20"]
    widget.ui.placesList.currentRow = 2
    app.check()
    np.testing.assert_allclose(crosshair(host), toWorld(scan, np.array([[-5.0, 6.0, -16.0]]))[0], atol=1e-3)


def test_the_panel_shows_all_that_an_engine_of_covid_19_alone_tells(app, widget, scan):
    from COVIDMultitaskModule.scene_writer import writeResults

    joint, amyar = findings()["engine"], {"engine": "amyar", "bundle": "amyar-small", "version": "0.1.0"}
    record = {**findings(), "engine": amyar, "sources": {"lungs": joint, "lobes": joint}}
    record |= {"diagnosis": None, "covid_probability": 0.83, "unlikeness": {"score": 0.5, "threshold": 3.0}}
    slices = [{"point_lps_mm": [5.0, -6.0, z], "probability": share} for z, share in ((8.0, 0.2), (-16.0, 0.7))]
    parts = {"slice_probabilities": slices}
    writeResults(scan, dataclasses.replace(results(), findings=record, parts=parts))
    widget.panel.scan.choose(None)
    widget.panel.scan.choose(scan)
    app.check()
    told = widget.ui.findingsLabel.text
    assert "83 %" in told and "This engine does not tell other diagnoses apart." in told
    assert "not assessed" not in told and "How unlike the training data: 0.5" in told
    assert items(widget.ui.placesList)[2] == "Slice, probability of COVID-19 0.70"
    assert "(amyar, amyar-small, 0.1.0; lungs and lobes by joint, toy, 0)" in widget.ui.researchLabel.text


def test_without_lobes_the_lungs_are_shown_hidden_and_edited(app, widget, scan, host):
    from COVIDMultitaskModule.scene_writer import readResults, writeResults

    assert (widget.ui.lobesCheck.text, widget.ui.editLobesButton.text) == ("L&obes", "Edit lo&bes")
    writeResults(scan, dataclasses.replace(results(), lobes=None, lungs=toyChest().lungs))
    widget.panel.scan.choose(None)
    widget.panel.scan.choose(scan)
    app.check()
    assert (widget.ui.lobesCheck.text, widget.ui.editLobesButton.text) == ("B&oth lungs", "Edit &both lungs")
    assert widget.ui.lobesCheck.enabled and widget.ui.lobesCheck.checked and widget.ui.editLobesButton.enabled
    widget.ui.lobesCheck.click()
    app.check()
    assert not readResults(scan).lungs.GetDisplayNode().GetVisibility()
    assert readResults(scan).lesions.GetDisplayNode().GetVisibility()


def test_uncertainty_is_said_quietly(widget):
    lesions = toyChest().lesions
    mean = np.where(lesions == 1, 40, 90)[lesions > 0].mean()
    assert f"Uncertainty: {mean:.0f} % on average in the lesions" in widget.ui.findingsLabel.text


def test_evidence_is_off_until_asked_for_and_goes_again(app, widget, scan, host):
    ui = widget.ui
    view = SliceView(host, scan, "Axial", 200)
    plain = view.render()
    assert not ui.evidenceRow.isHidden() and ui.evidenceSelector.currentText == "Off"
    ui.evidenceSelector.currentIndex = 1
    app.check()
    assert ui.evidenceSelector.currentText == "Uncertainty"
    view.jumpTo(toWorld(scan, np.array([[-70.0, -35.0, -36.0]]) * (-1, 1, 1))[0])
    over = view.render()
    ui.evidenceSlider.value = 0.0
    app.check()
    without = view.render()
    assert (over != without).any(axis=2).sum() > 50, "the map is seen over the lesion"
    assert (over != without).any(axis=2).mean() < 0.2, "and nowhere else"
    ui.evidenceSelector.currentIndex = 0
    app.check()
    assert view.logic.GetSliceCompositeNode().GetForegroundVolumeID() is None and plain.shape == over.shape


def test_an_unfolded_section_shows_only_what_there_is_something_to_show_in(app, widget, scan, host, tmp_path):
    ui, other = widget.ui, host.addVolume(toyChest().ct, ijkToRas(), "not analysed")
    app.picture(widget, tmp_path / "panel.png")
    assert ui.evidenceRow.visible and ui.placesList.visible
    sections = (ui.displayButton, ui.findingsButton, ui.engineButton)
    for section in sections:
        section.collapsed = True
    widget.panel.scan.choose(other)
    for section in sections:
        section.collapsed = False
    app.check()
    assert ui.lobesCheck.visible and ui.findingsLabel.visible and ui.engineSelector.visible
    assert not (ui.evidenceRow.visible or ui.placesList.visible or ui.installButton.visible)


def test_a_foreground_of_the_users_own_is_not_taken_away(app, widget, scan, host):
    pet = host.addVolume(toyChest().ct, ijkToRas(), "PET")
    view = SliceView(host, scan, "Axial", 100)
    view.logic.GetSliceCompositeNode().SetForegroundVolumeID(pet.GetID())
    widget.panel.scan.choose(pet)
    widget.panel.scan.choose(scan)
    widget.ui.evidenceSlider.value = 0.3
    app.check()
    assert view.logic.GetSliceCompositeNode().GetForegroundVolumeID() == pet.GetID()


def test_a_scan_corrected_while_another_was_shown_is_measured_when_it_is_chosen_again(app, widget, scan, host):
    from COVIDMultitaskModule.scene_writer import readRecord, readResults

    widget.panel.scan.choose(host.addVolume(toyChest().ct, ijkToRas(), "another"))
    nothing = np.zeros_like(toyChest().lesions)
    slicer.util.updateSegmentBinaryLabelmapFromArray(nothing, readResults(scan).lesions, "consolidation", scan)
    app.check()
    assert readRecord(scan).correction is None
    widget.panel.scan.choose(scan)
    app.wait(lambda: readRecord(scan).correction is not None)
    assert "corrected" in widget.ui.reviewLabel.text.lower()


def test_a_map_is_no_scan(app, widget, host):
    from COVIDMultitaskModule.evidence import evidenceMaps

    node = evidenceMaps(widget.panel.scan.volume)["uncertainty"]
    widget.panel.scan.choose(node)
    assert not widget.ui.applyButton.enabled and "choose the chest CT itself" in widget.ui.applyButton.toolTip


def test_a_saved_scene_shows_everything_again(app, widget, scan, host, tmp_path):
    ui = widget.ui
    view = SliceView(host, scan, "Axial", 100)
    ui.evidenceSelector.currentIndex = 1
    ui.evidenceSlider.value = 0.75
    ui.lobesCheck.checked = False
    ui.outlineCheck.checked = True
    ui.opacitySlider.value = 0.4
    app.check()
    before = (ui.findingsLabel.text, ui.researchLabel.text, items(ui.placesList))
    host.saveScene(tmp_path / "case.mrb")
    del view
    host.clear()
    app.check()
    assert ui.findingsLabel.text == "Choose a chest CT and press Apply." and not items(ui.placesList)
    host.loadScene(tmp_path / "case.mrb")
    app.check()
    assert ui.inputSelector.currentNode().GetName() == "CT"
    assert (ui.findingsLabel.text, ui.researchLabel.text, items(ui.placesList)) == before
    assert "toy" in ui.researchLabel.text
    assert (ui.lobesCheck.checked, ui.lesionsCheck.checked, ui.outlineCheck.checked) == (False, True, True)
    assert ui.opacitySlider.value == pytest.approx(0.4) and ui.evidenceSlider.value == pytest.approx(0.75)
    assert ui.evidenceSelector.currentText == "Uncertainty"
    assert ui.editLesionsButton.enabled and ui.exportSceneButton.enabled


def test_the_first_results_are_shown_and_later_ones_leave_the_views_alone(app, host, moduleFile, worker):
    widget = app.openModule(moduleFile)
    scan = addScan(host)
    view = SliceView(host, scan, "Axial", 100)
    view.logic.GetSliceCompositeNode().SetBackgroundVolumeID(None)
    worker("good")
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    assert ("setSliceViewerLayers", scan, True) in app.calls
    assert (scan.GetDisplayNode().GetWindow(), scan.GetDisplayNode().GetLevel()) == (1500.0, -600.0)
    np.testing.assert_allclose(crosshair(host), toWorld(scan, np.array([[70.0, -35.0, -36.0]]))[0], atol=1e-3)
    app.calls.clear()
    scan.GetDisplayNode().SetWindowLevel(400, 40)
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.panel.isRunning)
    assert widget.ui.statusLabel.text.startswith("Done")
    assert not app.calls and scan.GetDisplayNode().GetWindow() == 400.0


def test_the_layout_button_gives_the_users_layout_back(app, widget):
    manager = slicer.app.layoutManager()
    manager.layout = 6
    app.click(widget.ui.layoutButton)
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalWidescreenView
    app.click(widget.ui.layoutButton)
    assert manager.layout == 6


def test_a_scan_that_is_there_is_chosen_when_the_module_is_opened(app, host, moduleFile):
    addScan(host, "first")
    second = addScan(host, "second")
    SliceView(host, second, "Axial", 100)
    widget = app.openModule(moduleFile)
    assert widget.ui.inputSelector.currentNode() is second


class SampleDataLogic:
    """As far as a module registers with it."""

    sources: list = []  # noqa: RUF012

    @classmethod
    def sampleDataSourcesByCategory(cls, category):
        return cls.sources

    @classmethod
    def registerCustomSampleDataSource(cls, category, **source):
        cls.sources.append(SimpleNamespace(**source))


def test_the_sample_data_module_offers_the_phantom(app, host, moduleFile, monkeypatch):
    module = types.ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    wanted = []
    monkeypatch.setattr(app.slicerApp, "connect", lambda signal, slot: wanted.append((signal, slot)))
    for _ in range(2):  # loaded, and loaded again
        moduleFile.COVIDMultitask(SimpleNamespace())
    for signal, slot in wanted:
        assert signal == "startupCompleted()"
        slot()
    (source,) = SampleDataLogic.sources
    assert source.sampleName == "Chest phantom"
    monkeypatch.setattr(moduleFile.COVIDMultitaskLogic, "makeSample", lambda self: addScan(host, "phantom"))
    assert [node.GetName() for node in source.customDownloader(source)] == ["phantom"]


def test_a_sample_that_cannot_be_made_is_a_message(app, moduleFile, monkeypatch):
    from COVIDMultitaskModule.sample import loadSample

    from COVIDMultitaskLib.errors import OutputError

    def fail(self):
        raise OutputError("The disk is full; free some space.")

    monkeypatch.setattr(moduleFile.COVIDMultitaskLogic, "makeSample", fail)
    assert loadSample(moduleFile.COVIDMultitaskLogic()) is None
    assert ("errorDisplay", "The disk is full; free some space.") in app.calls

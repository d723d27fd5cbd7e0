"""The coded terms, as Slicer's own terminology logic reads them."""

from __future__ import annotations

import json

import pytest
import slicer
from COVIDMultitaskModule import terminology
from COVIDMultitaskModule.terminology import CONTEXT_NAME, loadContext, terminologyContext, terminologyEntry

from COVIDMultitaskLib.labels import GROUND_GLASS, LESIONS, LOBES, LUNG_LABELS

ALL = LOBES + LUNG_LABELS + LESIONS


@pytest.fixture
def logic(host, repository, monkeypatch):
    monkeypatch.setattr(
        terminology, "contextFile", lambda: repository / "Resources" / "Terminology" / "COVIDMultitask.term.json"
    )
    return slicer.modules.terminologies.logic()


def parsed(logic, text: str):
    entry = slicer.vtkSlicerTerminologyEntry()
    assert logic.DeserializeTerminologyEntry(text, entry)
    return entry


def test_shipped_list_is_that_of_the_labels(repository):
    path = repository / "Resources" / "Terminology" / "COVIDMultitask.term.json"
    assert json.loads(path.read_text()) == terminologyContext(), (
        "labels.py changed: see COVIDMultitaskModule.terminology"
    )


def test_codes_of_lesions_are_dicoms():
    concepts = pytest.importorskip("pydicom.sr.codedict").codes
    code = next(label for label in LESIONS if label.value == GROUND_GLASS).type_code
    assert (concepts.DCM.GroundGlassOpacity.value, concepts.DCM.GroundGlassOpacity.meaning) == (
        code.value,
        code.meaning,
    )


@pytest.mark.parametrize("label", ALL, ids=lambda label: label.key)
def test_each_tag_has_seven_parts_and_survives_slicer(label, logic):
    text = terminologyEntry(label)
    assert len(text.split("~")) == 7 and all(
        part.count("^") == 2 for part in text.split("~")[1:4] + text.split("~")[5:]
    )
    entry = parsed(logic, text)
    assert entry.GetTypeObject().GetCodeValue() == label.type_code.value
    assert entry.GetCategoryObject().GetCodeValue() == label.category.value
    assert (entry.GetTypeModifierObject().GetCodeValue() or None) == (label.modifier.value if label.modifier else None)


def test_tags_differ():
    assert len({terminologyEntry(label) for label in ALL}) == len(ALL)


def test_lesions_lie_in_the_lung(logic):
    entry = parsed(logic, terminologyEntry(LESIONS[0]))
    assert entry.GetRegionObject().GetCodeMeaning() == "Lung"


def test_slicer_loads_the_list_with_its_colours(logic):
    assert loadContext(logic) and loadContext(logic)
    assert logic.IsTerminologyContextLoaded(CONTEXT_NAME)
    for label in ALL:
        entry = parsed(logic, terminologyEntry(label))
        assert logic.UpdateEntryFromLoadedTerminologies(entry, [], []), label.key
        coloured = entry.GetTypeModifierObject() if label.modifier else entry.GetTypeObject()
        assert tuple(coloured.GetRecommendedDisplayRGBValue()) == label.color


def test_a_missing_list_stops_nothing(logic, tmp_path, monkeypatch):
    class Logic:
        def GetLoadedTerminologyNames(self, names):
            assert names.GetNumberOfValues() == 0

        def LoadTerminologyFromFile(self, path):
            raise RuntimeError("no such file")

    assert loadContext(Logic()) is False
    assert loadContext(None) is False

"""The coded terms of the segments, for Slicer's terminologies and, through them, for DICOM SEG.

Slicer's own lists have no ground-glass opacity and no consolidation, so the extension ships a
list of its own, ``Resources/Terminology/COVIDMultitask.term.json``, generated from
``COVIDMultitaskLib.labels``. After a change there, write it anew::

    python -c "import terminology; terminology.writeContext()"

in this folder with the repository's root on ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import vtk

from COVIDMultitaskLib.labels import LESIONS, LOBES, LUNG, LUNG_LABELS, Code, Label
from COVIDMultitaskLib.resources import resource

CONTEXT_NAME = "Segmentation category and type - COVIDMultitask"
REGION_CONTEXT_NAME = "Anatomic codes - DICOM master list"
_SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/segment-context-schema.json#"
_NO_CODE = "^^"


def terminologyEntry(label: Label) -> str:
    """A segment's tag: context, category, type, modifier, region context, region and its modifier.

    >>> from COVIDMultitaskLib.labels import LOBES
    >>> terminologyEntry(LOBES[0]).split("~")[2:4]
    ['SCT^45653009^Upper lobe of lung', 'SCT^7771000^Left']
    """
    region = LUNG if label in LESIONS else None
    parts = (_code(label.category), _code(label.type_code), _code(label.modifier))
    return "~".join((CONTEXT_NAME, *parts, REGION_CONTEXT_NAME, _code(region), _NO_CODE))


def _code(code: Code | None) -> str:
    return f"{code.scheme}^{code.value}^{code.meaning}" if code else _NO_CODE


def terminologyContext(labels: Sequence[Label] = LOBES + LUNG_LABELS + LESIONS) -> dict:
    """The content of the shipped list, in the layout of dcmqi's segment contexts."""
    categories: dict[Code, list[Label]] = {}
    for label in labels:
        categories.setdefault(label.category, []).append(label)
    return {
        "SegmentationCategoryTypeContextName": CONTEXT_NAME,
        "@schema": _SCHEMA,
        "SegmentationCodes": {"Category": [_category(*item) for item in categories.items()]},
    }


def _category(category: Code, labels: Sequence[Label]) -> dict:
    types: dict[Code, list[Label]] = {}
    for label in labels:
        types.setdefault(label.type_code, []).append(label)
    return {**_record(category), "showAnatomy": True, "Type": [_type(*item) for item in types.items()]}


def _type(code: Code, labels: Sequence[Label]) -> dict:
    modified = [label for label in labels if label.modifier]
    if not modified:
        return {**_record(code), **_display(labels[0])}
    modifiers = [{**_record(label.modifier), **_display(label)} for label in modified if label.modifier]
    return {**_record(code), "Modifier": modifiers}


def _record(code: Code) -> dict:
    return {"CodeMeaning": code.meaning, "CodingSchemeDesignator": code.scheme, "CodeValue": code.value}


def _display(label: Label) -> dict:
    return {"3dSlicerLabel": label.name.lower(), "recommendedDisplayRGBValue": list(label.color)}


def contextFile() -> Path:
    """Where the shipped list is."""
    return resource("Terminology", "COVIDMultitask.term.json")


def writeContext(path: Path | None = None) -> None:
    """Write the list from the labels."""
    text = json.dumps(terminologyContext(), indent=2) + "\n"
    (path or contextFile()).write_text(text, encoding="utf-8")


def loadContext(logic) -> bool:
    """Make the list known to Slicer's terminology logic, once; whether it is known now.

    Without it the segments' tags are as valid, they are only not offered for choosing. So
    nothing that goes wrong here may stop anything else.
    """
    if logic is None:
        return False
    try:
        if not _isLoaded(logic):
            logic.LoadTerminologyFromFile(str(contextFile()))
        return _isLoaded(logic)
    except Exception as error:
        logging.info("COVIDMultitask: the terminology is not loaded: %s", error)
        return False


def _isLoaded(logic) -> bool:
    """Whether the list is known; older versions of Slicer cannot be asked for one name."""
    names = vtk.vtkStringArray()
    logic.GetLoadedTerminologyNames(names)
    return CONTEXT_NAME in [names.GetValue(index) for index in range(names.GetNumberOfValues())]

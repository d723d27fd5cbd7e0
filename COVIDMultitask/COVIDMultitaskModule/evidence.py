"""What an answer rests on, in the scene: maps as volumes for the overlay, contributions of parts as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import vtk

from .compat import tr as _
from .exchange import Results
from .result_nodes import MAP, findResult, removeNode, resultNode, resultsOf

COLORS = "vtkMRMLColorTableNodeGreen"
"""One of Slicer's own colour tables, from black to green: unlike the colours of lobes and lesions."""
SHOWN_FROM = 20.0
"""Per cent; below, the overlay is transparent."""


def writeEvidence(volumeNode, results: Results) -> None:
    """Put the evidence of an analysis into the scene; what an earlier one left and this one has not goes away."""
    for kind, stale in resultsOf(volumeNode, "vtkMRMLScalarVolumeNode").items():
        if kind.removeprefix(MAP) not in results.evidence:
            removeNode(stale)
    for name, values in results.evidence.items():
        _writeMap(volumeNode, name, values)
    _writeRecord(volumeNode, results)


def _writeRecord(volumeNode, results: Results) -> None:
    maps = {name: _summary(values, results) for name, values in results.evidence.items()}
    if maps or results.parts:
        node = resultNode(volumeNode, "evidence", "{scan} evidence record", isHidden=True)
        node.SetText(json.dumps({"parts": results.parts, "maps": maps}, allow_nan=False))
    elif (stale := findResult(volumeNode, "evidence")) is not None:
        volumeNode.GetScene().RemoveNode(stale)


def readEvidence(volumeNode) -> dict[str, Any]:
    """The record of ``writeEvidence``: "parts" and "maps"; empty without any."""
    node = findResult(volumeNode, "evidence")
    try:
        record = json.loads(node.GetText()) if node is not None else {}
    except (TypeError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def evidenceMaps(volumeNode) -> dict[str, Any]:
    """The volumes of evidence, in per cent, by name."""
    found = resultsOf(volumeNode, "vtkMRMLScalarVolumeNode")
    return {kind.removeprefix(MAP): found[kind] for kind in sorted(found) if kind.startswith(MAP)}


def _writeMap(volumeNode, name: str, values: np.ndarray) -> None:
    words = name.replace("_", " ")
    node = resultNode(volumeNode, MAP + name, _("{{scan}} {evidence} (%)").format(evidence=words))
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    node.SetIJKToRASMatrix(ijkToRas)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    slicer.util.updateVolumeFromArray(node, values)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        _setLook(node.GetDisplayNode())


def _setLook(display) -> None:
    display.SetAndObserveColorNodeID(COLORS)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, 100.0)
    display.AutoThresholdOff()
    display.SetThreshold(SHOWN_FROM, 100.0)
    display.ApplyThresholdOn()


def _summary(values: np.ndarray, results: Results) -> dict[str, Any]:
    """Means in per cent: over the lungs, over the lesions, and over each listed lesion with its place."""
    lungs, lesions = results.lobes if results.lobes is not None else results.lungs, results.lesions
    record: dict[str, Any] = {"lungs": _mean(values, lungs), "lesions": _mean(values, lesions), "places": []}
    if lesions is None:
        return record
    for component in _components(results.findings):
        box = tuple(slice(a, b) for a, b in zip(component["start_zyx"], component["stop_zyx"], strict=True))
        record["places"].append([*component["point_lps_mm"], _mean(values[box], lesions[box])])
    return record


def _components(findings: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    components = (findings.get("lesions") or {}).get("components") or []
    return [component for component in components if "start_zyx" in component]


def _mean(values: np.ndarray, mask: np.ndarray | None) -> float | None:
    if mask is None or not mask.any():
        return None
    return round(float(values[mask > 0].mean()), 1)

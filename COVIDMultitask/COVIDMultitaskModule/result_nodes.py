"""The nodes that hold a scan's results: found again by attribute and reference, also in a loaded scene."""

from __future__ import annotations

from typing import Any

import slicer

from .compat import tr as _

SCAN_ROLE = "COVIDMultitask.scan"
"""Node reference of a result to the scan it belongs to; kept in saved scenes."""
KIND_ATTRIBUTE = "COVIDMultitask.result"

MODEL = " (model)"
"""Added to "lobes", "lungs" and "lesions": the model's own masks, kept out of sight while those are corrected."""
MAP = "map:"
"""Before the name of an evidence map."""

_CLASSES = {"findings": "vtkMRMLTableNode", "lesion list": "vtkMRMLTableNode", "record": "vtkMRMLTextNode",
            "evidence": "vtkMRMLTextNode"}  # fmt: skip


def _classOf(kind: str) -> str:
    if kind.startswith(MAP):
        return "vtkMRMLScalarVolumeNode"
    return _CLASSES.get(kind, "vtkMRMLSegmentationNode")


def resultsOf(volumeNode, className: str) -> dict[str, Any]:
    """All results of a class for a volume, by kind."""
    scene = volumeNode.GetScene()
    if scene is None:
        return {}
    nodes = [scene.GetNthNodeByClass(n, className) for n in range(scene.GetNumberOfNodesByClass(className))]
    return {
        node.GetAttribute(KIND_ATTRIBUTE): node
        for node in reversed(nodes)
        if node.GetAttribute(KIND_ATTRIBUTE) and node.GetNodeReferenceID(SCAN_ROLE) == volumeNode.GetID()
    }


def findResult(volumeNode, kind: str):
    """The earlier result of a kind for a volume, or ``None``."""
    return resultsOf(volumeNode, _classOf(kind)).get(kind)


def isResult(node) -> bool:
    """Whether a node is the result of an analysis."""
    return bool(node.GetAttribute(KIND_ATTRIBUTE))


def resultNode(volumeNode, kind: str, name: str, isHidden: bool = False):
    """The node of a kind for a volume, made if there is none; one that is not hidden lies beside the scan.

    :param name: of a new node; ``{scan}`` and ``{kind}`` are filled in.
    """
    node = findResult(volumeNode, kind)
    if node is None:
        node = volumeNode.GetScene().CreateNodeByClass(_classOf(kind))
        node.UnRegister(None)
        wanted = name.format(scan=volumeNode.GetName(), kind=kind.removesuffix(MODEL))
        node.SetName(volumeNode.GetScene().GenerateUniqueName(wanted))
        node.SetHideFromEditors(isHidden)
        node.SetAttribute(KIND_ATTRIBUTE, kind)
        node.SetNodeReferenceID(SCAN_ROLE, volumeNode.GetID())
        volumeNode.GetScene().AddNode(node)
        if not isHidden:
            placeBeside(node, volumeNode)
    return node


def removeNode(node) -> None:
    """Take a volume or segmentation out of the scene: its item in the subject hierarchy first, what shows it last."""
    scene, display = node.GetScene(), node.GetDisplayNode()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if item:
        hierarchy.RemoveItem(item, False, False)
    for gone in (node, display):
        if gone is not None:
            scene.RemoveNode(gone)


def setAside(volumeNode) -> None:
    """Let the next analysis of a volume make new nodes: what the user saw of the last stays, as nodes of his own."""
    for className in ("vtkMRMLSegmentationNode", "vtkMRMLTableNode", "vtkMRMLTextNode", "vtkMRMLScalarVolumeNode"):
        for kind, node in resultsOf(volumeNode, className).items():
            if node.GetHideFromEditors() or kind.startswith(MAP):
                _remove(node)
                continue
            node.RemoveAttribute(KIND_ATTRIBUTE)
            node.SetName(volumeNode.GetScene().GenerateUniqueName(_("{name} (earlier)").format(name=node.GetName())))
            if node.IsA("vtkMRMLDisplayableNode") and node.GetDisplayNode() is not None:
                node.GetDisplayNode().SetVisibility(False)


def _remove(node) -> None:
    if node.IsA("vtkMRMLDisplayableNode"):
        removeNode(node)
    else:
        node.GetScene().RemoveNode(node)


def placeBeside(node, volumeNode) -> None:
    """In the subject hierarchy, under the same study (or folder) as the scan."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    if hierarchy is None:
        return
    scanItem = hierarchy.GetItemByDataNode(volumeNode)
    parent = hierarchy.GetItemParent(scanItem) if scanItem else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)

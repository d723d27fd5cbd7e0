"""Slicer's real scene without its application: nodes, logics and ``slicer.modules`` of slicer-core.

What the application does at start is done here by hand, once per process, since a second
colour logic makes slices come out wrong. Between tests the scene is cleared.
"""

from __future__ import annotations

import tempfile
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import slicer
import vtk

LOGICS = {
    "colors": "vtkSlicerColorLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    "transforms": "vtkSlicerTransformLogic",
    "sequences": "vtkSlicerSequencesLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}


class SlicerHost:
    """The scene with the logics around it."""

    def __init__(self) -> None:
        self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        self.scene = slicer.vtkMRMLScene()
        self.logics = {name: getattr(slicer, className)() for name, className in LOGICS.items()}
        self._connect()
        self._makeCache()
        slicer.mrmlScene = self.scene
        slicer.modules = types.SimpleNamespace(
            **{name: types.SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in self.logics.items()}
        )

    def _connect(self) -> None:
        wereShown = vtk.vtkObject.GetGlobalWarningDisplay()
        vtk.vtkObject.GlobalWarningDisplayOff()  # the application's own colour and term files are not in slicer-core
        for name, logic in self.logics.items():
            logic.SetMRMLApplicationLogic(self.applicationLogic)
            self.applicationLogic.SetModuleLogic(name.capitalize(), logic)
            logic.SetMRMLScene(self.scene)
        self.applicationLogic.SetMRMLScene(self.scene)
        vtk.vtkObject.SetGlobalWarningDisplay(wereShown)

    def _makeCache(self) -> None:
        """Reading an MRB needs a folder to unpack into."""
        self._cacheFolder = tempfile.TemporaryDirectory(prefix="COVIDMultitask-cache-")
        cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        cache.SetRemoteCacheDirectory(self._cacheFolder.name)
        manager.SetCacheManager(cache)
        self.scene.SetCacheManager(cache)
        self.scene.SetDataIOManager(manager)

    def clear(self) -> None:
        """A new scene, with the nodes that the application always has."""
        self.scene.Clear(True)
        self._useFiles()
        wereShown = vtk.vtkObject.GetGlobalWarningDisplay()
        vtk.vtkObject.GlobalWarningDisplayOff()
        self.logics["colors"].AddDefaultColorNodes()
        vtk.vtkObject.SetGlobalWarningDisplay(wereShown)
        for className in ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode", "vtkMRMLCrosshairNode"):
            if self.scene.GetFirstNodeByClass(className) is None:
                node = self.scene.CreateNodeByClass(className)
                node.UnRegister(None)
                node.SetSingletonTag("default" if className.endswith("CrosshairNode") else "Singleton")
                self.scene.AddNode(node)

    def _useFiles(self) -> None:
        """Save to and load from files: a scene told to use strings, as by ``saveToString``, stays so."""
        self.scene.SetSaveToXMLString(0)
        self.scene.SetLoadFromXMLString(0)

    def saveToString(self) -> str:
        """The scene's own XML, without the data of its nodes."""
        self.scene.SetSaveToXMLString(1)
        self.scene.Commit()
        self._useFiles()
        return self.scene.GetSceneXMLString()

    def loadFromString(self, xml: str) -> None:
        """Nodes of a scene that ``saveToString`` gave."""
        self.scene.SetLoadFromXMLString(1)
        self.scene.SetSceneXMLString(xml)
        self.scene.Connect()
        self._useFiles()

    def saveScene(self, path: Path) -> None:
        """Save everything as MRB, as "Save scene" does."""
        assert self.scene.WriteToMRB(str(path))

    def loadScene(self, path: Path) -> None:
        """Open an MRB in place of the present scene."""
        assert self.scene.ReadFromMRB(str(path), True)

    @property
    def hierarchy(self):
        """The scene's subject hierarchy."""
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def addStudy(self, *nodes) -> tuple[int, int]:
        """Items of a new patient and of a study that holds ``nodes``: the Qt plugins do this in the application."""
        hierarchy = self.hierarchy
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
        study = hierarchy.CreateStudyItem(patient, "Study")
        for node in nodes:
            hierarchy.CreateItem(study, node)
        return patient, study

    @contextmanager
    def itemsForNewNodes(self):
        """Every new node gets an item at the top of the subject hierarchy, as in the application."""

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def addItem(scene, event, node) -> None:
            if node.IsA("vtkMRMLDisplayableNode") or node.IsA("vtkMRMLTableNode"):
                self.hierarchy.CreateItem(self.hierarchy.GetSceneItemID(), node)

        tag = self.scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, addItem)
        yield
        self.scene.RemoveObserver(tag)

    def addVolume(self, array: np.ndarray, ijkToRas: np.ndarray, name: str = "scan"):
        """A scalar volume node of an array (z, y, x)."""
        return slicer.util.addVolumeFromArray(array, slicer.util.vtkMatrixFromArray(ijkToRas), name)


def worldPositions(volumeNode, mask: np.ndarray) -> np.ndarray:
    """(n, 3) RAS positions in the world of the voxels set in ``mask`` (z, y, x), parent transform included."""
    ijk = np.argwhere(mask)[:, ::-1]
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    local = np.c_[ijk, np.ones(len(ijk))] @ slicer.util.arrayFromVTKMatrix(ijkToRas).T
    return toWorld(volumeNode, local[:, :3])


def toWorld(transformableNode, positions: np.ndarray) -> np.ndarray:
    """Positions (n, 3) of a node's own frame in the world."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(transformableNode.GetParentTransformNode(), None, transform)
    return np.array([transform.TransformPoint(position) for position in positions]).reshape(-1, 3)


def linearTransform(scene):
    """A rotation about two axes with a shift, far from the identity."""
    transform = vtk.vtkTransform()
    transform.Translate(35.0, -60.0, 120.0)
    transform.RotateX(25.0)
    transform.RotateZ(-40.0)
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(transform.GetMatrix())
    return node


def warpTransform(scene, seed: int = 0):
    """A smooth non-linear transform that moves the corners of a 400 mm box by some 15 mm each."""
    random = np.random.default_rng(seed)
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in np.stack(np.meshgrid(*[(-200.0, 200.0)] * 3), axis=-1).reshape(-1, 3):
        source.InsertNextPoint(*corner)
        target.InsertNextPoint(*(corner + random.normal(0.0, 15.0, 3)))
    warp = vtk.vtkThinPlateSplineTransform()
    warp.SetBasisToR()
    warp.SetSourceLandmarks(source)
    warp.SetTargetLandmarks(target)
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "warped")
    node.SetAndObserveTransformToParent(warp)
    return node

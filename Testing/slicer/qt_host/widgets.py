"""Small ctk and qMRML widgets with the properties and signals that the panel uses."""

from __future__ import annotations

import slicer
from PySide6 import QtCore, QtWidgets


class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801
    mrmlSceneChanged = QtCore.Signal(object)

    def setMRMLScene(self, scene) -> None:
        self.mrmlSceneChanged.emit(scene)


def _flag(name: str):
    return QtCore.Property(
        bool, lambda self: self._flags[name], lambda self, value: self._flags.__setitem__(name, value)
    )


class qMRMLNodeComboBox(QtWidgets.QComboBox):  # noqa: N801
    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._flags = {"noneEnabled": False, "addEnabled": True, "removeEnabled": True, "showChildNodeTypes": True}
        self._scene = None
        self._tags: list[int] = []
        self._shown = None
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self.currentIndexChanged.connect(self._tell)

    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        events = (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent)
        self._tags = [scene.AddObserver(event, lambda *_: self._fill()) for event in events]
        self._tags.append(scene.AddObserver(slicer.vtkMRMLScene.EndCloseEvent, lambda *_: self._fill()))
        self._fill()

    def release(self) -> None:
        """Stop observing the scene."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)

    def currentNode(self):
        identifier = self.currentData()
        return self._scene.GetNodeByID(identifier) if self._scene and identifier else None

    def setCurrentNode(self, node) -> None:
        self.setCurrentIndex(self.findData(node.GetID()) if node else -1)

    def _fill(self) -> None:
        before = self.currentData()
        nodes = [node for node in slicer.util.getNodesByClass("vtkMRMLNode") if self._fits(node)]
        self.blockSignals(True)
        self.clear()
        if self._flags["noneEnabled"]:
            self.addItem("None", None)
        for node in nodes:
            self.addItem(node.GetName(), node.GetID())
        index = self.findData(before) if before else -1
        self.setCurrentIndex(index if index >= 0 else (0 if self.count() else -1))
        self.blockSignals(False)
        self._tell()

    def _fits(self, node) -> bool:
        if node.GetHideFromEditors():
            return False
        if self._flags["showChildNodeTypes"]:
            return any(node.IsA(name) for name in self._types)
        return node.GetClassName() in self._types

    def _tell(self, *_arguments) -> None:
        node = self.currentNode()
        if node is not self._shown:
            self._shown = node
            self.currentNodeChanged.emit(node)

    noneEnabled, addEnabled = _flag("noneEnabled"), _flag("addEnabled")
    removeEnabled, showChildNodeTypes = _flag("removeEnabled"), _flag("showChildNodeTypes")
    nodeTypes = QtCore.Property(
        "QStringList", lambda self: self._types, lambda self, value: setattr(self, "_types", list(value))
    )


class ctkCollapsibleButton(QtWidgets.QWidget):  # noqa: N801
    """Hides its children while it is collapsed, each of them, and remembers which of them were shown.

    As the real one it begins with that when it is first shown, and does not notice when a child that it hid is hidden
    by somebody else, too.
    """

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._isCreated = False
        self._isTurning = False
        self._header = QtWidgets.QToolButton(self)
        self._header.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._header.setArrowType(QtCore.Qt.ArrowType.DownArrow)
        self._header.clicked.connect(lambda: self._setCollapsed(not self._collapsed))

    def childEvent(self, event) -> None:
        child = event.child()
        if event.added() and isinstance(child, QtWidgets.QWidget) and child is not getattr(self, "_header", child):
            child.installEventFilter(self)
            self._showChild(child)

    def eventFilter(self, child, event) -> bool:
        kinds = QtCore.QEvent.Type
        if not self._isTurning and event.type() in (kinds.ShowToParent, kinds.HideToParent):
            child.setProperty("visibilityToParent", event.type() == kinds.ShowToParent)
            if self._collapsed:
                self._showChild(child)
        return False

    def _showChild(self, child) -> None:
        if not self._isCreated:
            return
        self._isTurning = True
        child.setVisible(not self._collapsed and child.property("visibilityToParent") is not False)
        self._isTurning = False

    def resizeEvent(self, event) -> None:
        self._header.setGeometry(0, 0, self.width(), self._headerHeight())

    def _headerHeight(self) -> int:
        return self._header.sizeHint().height() + 2

    def showEvent(self, event) -> None:
        self._isCreated = True
        self.setContentsMargins(0, self._headerHeight(), 0, 0)
        self._setCollapsed(self._collapsed)

    def _setCollapsed(self, isCollapsed: bool) -> None:
        hasChanged, self._collapsed = self._collapsed != isCollapsed, isCollapsed
        self._header.setArrowType(QtCore.Qt.ArrowType.RightArrow if isCollapsed else QtCore.Qt.ArrowType.DownArrow)
        self.setMaximumHeight(self._headerHeight() if isCollapsed else 16777215)
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and child is not self._header:
                self._showChild(child)
        if hasChanged:
            self.contentsCollapsed.emit(isCollapsed)

    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _setCollapsed)
    text = QtCore.Property(str, lambda self: self._header.text(), lambda self, value: self._header.setText(value))


def _ofBox(name: str, kind: type = float):
    setter = "set" + name[0].upper() + name[1:]
    return QtCore.Property(
        kind, lambda self: getattr(self._box, name)(), lambda self, value: getattr(self._box, setter)(value)
    )


class ctkSliderWidget(QtWidgets.QWidget):  # noqa: N801
    valueChanged = QtCore.Signal(float)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        self._slider.setMaximum(100)
        self._box.setMaximum(1.0)
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(lambda value: self._slider.setValue(round(100 * value / self._box.maximum())))
        self._box.valueChanged.connect(self.valueChanged.emit)

    value, maximum, minimum = _ofBox("value"), _ofBox("maximum"), _ofBox("minimum")
    singleStep, decimals = _ofBox("singleStep"), _ofBox("decimals", int)


class ctkPathLineEdit(QtWidgets.QWidget):  # noqa: N801
    """As wide as its path, unless told otherwise; ``chosen`` holds the settings that PySide cannot read, as text."""

    currentPathChanged = QtCore.Signal(str)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self.chosen: dict[str, str] = {}
        self._minimumContentsLength = 0
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._edit = QtWidgets.QLineEdit()
        layout.addWidget(self._edit)
        layout.addWidget(QtWidgets.QToolButton(text="..."))
        self._edit.textChanged.connect(self.currentPathChanged.emit)

    def minimumSizeHint(self) -> QtCore.QSize:
        text = "X" * self._minimumContentsLength or self._edit.text()
        return super().minimumSizeHint().expandedTo(QtCore.QSize(self.fontMetrics().horizontalAdvance(text) + 40, 0))

    def _setMinimumContentsLength(self, length: int) -> None:
        self._minimumContentsLength = length

    currentPath = QtCore.Property(str, lambda self: self._edit.text(), lambda self, value: self._edit.setText(value))
    minimumContentsLength = QtCore.Property(int, lambda self: self._minimumContentsLength, _setMinimumContentsLength)


CLASSES = (qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit)

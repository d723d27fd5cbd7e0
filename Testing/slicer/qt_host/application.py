"""Slicer's application as far as the module's widget sees it."""

from __future__ import annotations

import os
import sys
import time
import types
import xml.etree.ElementTree as xml
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_LOGGING_RULES", "qt.qpa.*=false")

import slicer
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from . import python_qt, widgets

DARK = {"Window": "#31363b", "WindowText": "#eff0f1", "Base": "#232629", "AlternateBase": "#31363b", "Text": "#eff0f1",
        "Button": "#31363b", "ButtonText": "#eff0f1", "Highlight": "#3daee9", "HighlightedText": "#ffffff",
        "ToolTipBase": "#31363b", "ToolTipText": "#eff0f1", "PlaceholderText": "#9aa4ad"}  # fmt: skip


class LayoutManager:
    """Remembers the layout; there are no views."""

    threeDViewCount = 0

    def __init__(self) -> None:
        self.layout = 0

    def setLayout(self, layout: int) -> None:
        self.layout = layout

    def sliceViewNames(self) -> list[str]:
        return []


class SlicerApp:
    """Some members of ``slicer.app``."""

    def __init__(self, temporaryPath: Path) -> None:
        self.temporaryPath = str(temporaryPath)
        self._layoutManager = LayoutManager()

    def connect(self, signal: str, slot) -> None:
        """Start-up is over."""
        assert signal == "startupCompleted()"

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def layoutManager(self) -> LayoutManager:
        return self._layoutManager


class Parent:
    """What the application puts a module's widget into."""

    def __init__(self) -> None:
        self.frame = widgets.qMRMLWidget()
        self.layout = QtWidgets.QVBoxLayout(self.frame)
        self.layout.setContentsMargins(4, 4, 4, 4)
        self.isEntered = False


class Application:
    """Opens modules, presses their buttons, takes their pictures.

    :param host: the scene and its logics.
    :param folder: for temporary files and settings.
    """

    def __init__(self, host, folder: Path) -> None:
        self.host = host
        self.calls: list[tuple] = []
        self._widgets: list = []
        self.qApplication = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
        self.qApplication.setStyle("Fusion")
        self.qApplication.setOrganizationName("COVIDMultitaskTests")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.QSettings.setPath(
            QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(folder / "settings")
        )
        (folder / "temporary").mkdir(exist_ok=True)
        self.slicerApp = slicer.app = SlicerApp(folder / "temporary")
        self._installQt()
        self._installUtil()

    def _installQt(self) -> None:
        sys.modules["qt"] = python_qt.QtModule("qt")
        ctk = types.ModuleType("ctk")
        for cls in widgets.CLASSES:
            setattr(ctk, cls.__name__, python_qt.Class(cls))
        sys.modules["ctk"] = ctk

    def _installUtil(self) -> None:
        slicer.util.loadUI = loadUI
        for name in ("selectModule", "setSliceViewerLayers", "errorDisplay", "saveScene", "showStatusMessage"):
            setattr(slicer.util, name, self._recorder(name))

    def _recorder(self, name: str):
        def record(*arguments, **named) -> None:
            self.calls.append((name, *arguments, *named.values()))

        return record

    def openModule(self, moduleFile):
        """The module's widget, set up and entered."""
        parent = Parent()
        widget = moduleFile.COVIDMultitaskWidget(parent)
        widget.layout = python_qt.Proxy(parent.layout)
        widget.resourcePath = lambda name: str(Path(moduleFile.__file__).parent / "Resources" / name)
        widget.setup()
        parent.isEntered = True
        widget.enter()
        self._widgets.append(widget)
        representation = types.SimpleNamespace(self=lambda: widget)
        slicer.modules.covidmultitask = types.SimpleNamespace(widgetRepresentation=lambda: representation)
        self.check()
        return widget

    def close(self) -> None:
        """End all modules, as the application does when it is left."""
        for widget in self._widgets:
            widget.cleanup()
            for selector in widget.parent.frame.findChildren(widgets.qMRMLNodeComboBox):
                selector.release()
            widget.parent.frame.deleteLater()
        self._widgets.clear()
        vars(slicer.modules).pop("covidmultitask", None)
        self.qApplication.processEvents()

    def check(self) -> None:
        """:raises BaseException: what a listener raised."""
        if python_qt.errors:
            raise python_qt.errors.pop(0)

    def click(self, button) -> None:
        """Press a button as a user does: not if it is disabled."""
        assert button.enabled, f"{button.text} is disabled: {button.toolTip}"
        button._target.click()
        self.check()

    def wait(self, condition, limit_s: float = 30.0) -> None:
        """Let events happen until the condition holds."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < limit_s, "it did not happen in time"
            self.qApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 20)
            self.check()
            time.sleep(0.005)

    def picture(self, widget, path: Path, width: int = 350, isDark: bool = False, points: float = 9.0) -> Path:
        """The panel as a PNG, as high as it wants to be."""
        palette = self.qApplication.style().standardPalette()
        for role, color in (DARK if isDark else {}).items():
            palette.setColor(getattr(QtGui.QPalette.ColorRole, role), QtGui.QColor(color))
        self.qApplication.setPalette(palette)
        font = self.qApplication.font()
        font.setPointSizeF(points)
        self.qApplication.setFont(font)
        frame = widget.parent.frame
        frame.setAttribute(QtCore.Qt.WidgetAttribute.WA_DontShowOnScreen)
        frame.setFixedWidth(width)
        frame.show()
        self.qApplication.processEvents()  # the new colours reach every widget
        widget.panel.refresh()
        for _ in range(3):
            self.qApplication.processEvents()
            frame.resize(width, max(frame.layout().totalHeightForWidth(width), frame.sizeHint().height()))
        assert frame.minimumSizeHint().width() <= width, f"the panel needs more than {width} pixels: {_widest(frame)}"
        frame.grab().save(str(path))
        return path

    def cutOff(self, widget) -> list[str]:
        """Names of the shown labels and buttons that have less room than their text needs; after ``picture``."""
        kinds = (QtWidgets.QLabel, QtWidgets.QAbstractButton)
        shown = [child for child in widget.parent.frame.findChildren(QtWidgets.QWidget) if isinstance(child, kinds)]
        shown = [child for child in shown if child.isVisible() and child.objectName()]
        return [
            child.objectName()
            for child in shown
            if child.width() < _needed(child).width() or child.height() < _needed(child).height()
        ]


def _widest(frame: QtWidgets.QWidget) -> list[tuple[int, str]]:
    """The widgets that need most room, by name."""
    named = [child for child in frame.findChildren(QtWidgets.QWidget) if child.isVisible() and child.objectName()]
    return sorted(((child.minimumSizeHint().width(), child.objectName()) for child in named), reverse=True)[:8]


def _needed(widget: QtWidgets.QWidget) -> QtCore.QSize:
    """The room a widget's text needs."""
    if isinstance(widget, QtWidgets.QLabel) and widget.wordWrap():
        return QtCore.QSize(0, widget.heightForWidth(widget.width()))
    return widget.minimumSizeHint()


def loadUI(path: str) -> python_qt.Proxy:
    """The widget of a ``.ui`` file. What has a type unknown to PySide, such as its connections, is done here."""
    loader = QtUiTools.QUiLoader()
    for cls in widgets.CLASSES:
        loader.registerCustomWidget(cls)
    tree = xml.parse(path)
    connections = tree.getroot().find("connections")
    wanted = [tuple(c.findtext(n) for n in ("sender", "signal", "receiver", "slot")) for c in connections or ()]
    if connections is not None:
        connections.clear()
    chosen = _takeChosen(tree)
    buffer = QtCore.QBuffer()
    buffer.setData(xml.tostring(tree.getroot()))
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    widget = loader.load(buffer)
    names = {child.objectName(): child for child in [widget, *widget.findChildren(QtCore.QObject)]}
    for name, values in chosen.items():
        names[name].chosen.update(values)
    for sender, signal, receiver, slot in wanted:
        python_qt.connectSignal(names[sender], signal, getattr(names[receiver], slot.split("(")[0]))
    return python_qt.Proxy(widget)


def _takeChosen(tree: xml.ElementTree) -> dict[str, dict[str, str]]:
    """Properties of ctk widgets whose values are ctk's own enumerations, taken out of the tree: text by widget."""
    chosen: dict[str, dict[str, str]] = {}
    for widget in tree.iter("widget"):
        for one in widget.findall("property"):
            value = one.findtext("enum") or one.findtext("set") or ""
            if value.startswith("ctk"):
                chosen.setdefault(widget.get("name"), {})[one.get("name")] = value
                widget.remove(one)
    return chosen

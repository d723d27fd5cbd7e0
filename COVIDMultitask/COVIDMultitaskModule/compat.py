"""Differences between Slicer versions, and between Slicer and plain Python: all of them are here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SAMPLE_CATEGORY, SAMPLE_NAME = "COVIDMultitask", "Chest phantom"
"""In the Sample Data module; the name is also, in the user's language, that in the scene."""


def tr(text: str) -> str:
    """Text in the user's language, where Slicer can translate (5.4 and later, in the application)."""
    try:
        from slicer.i18n import getContext, translate
    except ImportError:
        return text
    # Slicer's own ``tr`` takes the file that calls it for the context, which would be this one for every text.
    return translate(getContext(sys._getframe(1).f_code.co_filename), text)


def pythonExecutable() -> str:
    """The interpreter that has Slicer's packages: ``PythonSlicer``, or this one outside Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def temporaryRoot() -> Path:
    """Slicer's temporary folder (the user can set it), or the system's."""
    import slicer

    app = getattr(slicer, "app", None)
    return Path(app.temporaryPath if app is not None else tempfile.gettempdir())


def dicomValue(volumeNode, tag: str) -> str:
    """A value of the first DICOM file of a volume, such as "0018,0010"; empty: not told, or not from DICOM."""
    import slicer

    instances = (volumeNode.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)  # absent in builds without the DICOM module
    return str(database.instanceValue(instances[0], tag) or "") if instances and database else ""


def moduleLogic(name: str):
    """Logic of a Slicer module such as ``"terminologies"``; ``None`` in a build without it."""
    import slicer

    module = getattr(slicer.modules, name, None)
    return module.logic() if module is not None else None


def processEvents() -> None:
    """Let Slicer's windows live, where there are any."""
    import slicer

    app = getattr(slicer, "app", None)
    if app is not None:
        app.processEvents()


def userDataFolder() -> Path:
    """The user's own folder for the module's data, outside Slicer's installation: an update does not touch it."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "COVIDMultitask"


def installMissing() -> None:
    """Install what the analysis needs, after asking: PyTorch through its extension, the rest without dependencies.

    :raises CovidMultitaskError: when something cannot be installed, or Slicer must be restarted first.
    """
    import slicer

    missing = missingPackages()
    names = ", ".join(missing)
    question = tr("{names} will be downloaded and installed into Slicer's Python. Continue?").format(names=names)
    if not missing or not slicer.util.confirmOkCancelDisplay(question):
        return
    if "torch" in missing:
        _installTorch()
    for name in missing:  # without dependencies: what Slicer brings along, such as its SimpleITK, is never replaced
        if name != "torch":
            _pipInstall(name)


def _installTorch() -> None:
    """Let the PyTorch extension choose and install the build of torch that fits the computer."""
    try:
        import PyTorchUtils
    except ImportError:
        _installExtension("PyTorch")
        return
    try:
        done = PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True)
    except Exception as error:  # of pip, of the network, of the extension: all mean the same to the user
        raise _notInstalled("PyTorch") from error
    if done is None:
        raise _notInstalled("PyTorch")


def _installExtension(name: str) -> None:
    """:raises CovidMultitaskError: always: what to do next, for an extension works after a restart only."""
    import slicer

    from COVIDMultitaskLib.errors import CovidMultitaskError

    makeManager = getattr(slicer.app, "extensionsManagerModel", None)
    try:
        isInstalled = makeManager is not None and makeManager().installExtensionFromServer(name, False)
    except Exception:  # Slicer without extensions, or without the server
        isInstalled = False
    if isInstalled:
        sentence = tr("The {name} extension is installed: restart Slicer and press this again.")
    else:
        sentence = tr("Install the {name} extension in the Extensions Manager, restart Slicer and press this again.")
    raise CovidMultitaskError(sentence.format(name=name))


def _pipInstall(name: str) -> None:
    import slicer

    try:
        slicer.util.pip_install(f"--no-deps {name}")
    except Exception as error:
        raise _notInstalled(name) from error


def _notInstalled(name: str) -> Exception:
    from COVIDMultitaskLib.errors import CovidMultitaskError

    sentence = tr("{name} was not installed: look into Slicer's log, check the network (a firewall?) and try again.")
    return CovidMultitaskError(sentence.format(name=name))


def widgetOf(name: str):
    """The Python widget of a scripted module by its attribute of ``slicer.modules``; ``None``: it is not there."""
    import slicer

    module = getattr(slicer.modules, name, None)
    return module.widgetRepresentation().self() if module is not None else None


def goTo(moduleName: str) -> bool:
    """Show a module; whether there is a window to show it in."""
    import slicer

    try:
        slicer.util.selectModule(moduleName)
    except RuntimeError:
        return False
    return True


def segmentEditor():
    """Show the Segment Editor; its widget, or ``None`` without a window or in a build without it."""
    widget = widgetOf("segmenteditor") if goTo("SegmentEditor") else None
    if widget is None or widget.editor.mrmlSegmentEditorNode() is None:  # which comes when it is first shown
        return None
    return widget.editor


def openSegmentEditor(segmentationNode, volumeNode, segmentId: str) -> None:
    """Open the Segment Editor with a segmentation, its scan and one of its segments chosen."""
    editor = segmentEditor()
    if editor is None:
        return
    editor.setSegmentationNode(segmentationNode)
    # Before 5.2 the source volume was called master volume.
    choose = getattr(editor, "setSourceVolumeNode", None) or editor.setMasterVolumeNode
    choose(volumeNode)
    editor.setCurrentSegmentID(segmentId)


@contextmanager
def busy() -> Iterator[None]:
    """Show the waiting cursor; ``slicer.util.WaitCursor`` is only in newer versions."""
    import qt

    qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
    try:
        yield
    finally:
        qt.QApplication.restoreOverrideCursor()


def _layoutManager():
    """The application's; ``None`` without a main window, or outside the application."""
    import slicer

    app = getattr(slicer, "app", None)
    return app.layoutManager() if app is not None else None


def threeDViews() -> list:
    """The 3D views that can be seen."""
    manager = _layoutManager()
    if manager is None:
        return []
    views = [manager.threeDWidget(index).threeDView() for index in range(manager.threeDViewCount)]
    return [view for view in views if view.mrmlViewNode().IsMappedInLayout()]


def shownViews() -> dict[str, Any]:
    """The slice and 3D views that can be seen, by name."""
    manager = _layoutManager()
    if manager is None:
        return {}
    slices = {name: manager.sliceWidget(name).sliceView() for name in manager.sliceViewNames()}
    shown = {name: view for name, view in slices.items() if view.mrmlSliceNode().IsMappedInLayout()}
    return {**shown, **{f"3D{number}": view for number, view in enumerate(threeDViews(), start=1)}}


def changeLayout(layout: int) -> int:
    """Choose a layout of the views; the one there was is returned (-1: there are no views)."""
    manager = _layoutManager()
    if manager is None:
        return -1
    before = int(manager.layout)
    manager.setLayout(layout)
    return before


def dicomSegExporter():
    """Writes a segmentation as DICOM SEG: of Slicer 5.12 or of QuantitativeReporting; ``None``: there is none."""
    try:
        from DICOMSegmentationPlugin import DICOMSegmentationExporter
    except ImportError:
        return None
    return DICOMSegmentationExporter


def afterStartup(call: Callable[[], None]) -> None:
    """Call something when the application has loaded all its modules; never, outside of it."""
    import slicer

    app = getattr(slicer, "app", None)
    if app is not None:
        app.connect("startupCompleted()", call)


def registerSampleData(thumbnail: str, load: Callable[[], Any]) -> None:
    """Add an entry to Slicer's Sample Data module, in a build that has it.

    :param load: makes the sample and returns its node; nothing is downloaded.
    """
    try:
        from SampleData import SampleDataLogic
    except ImportError:
        return
    known = SampleDataLogic.sampleDataSourcesByCategory(SAMPLE_CATEGORY)
    known[:] = [source for source in known if source.sampleName != SAMPLE_NAME]  # the module was loaded again
    SampleDataLogic.registerCustomSampleDataSource(
        category=SAMPLE_CATEGORY,
        sampleName=SAMPLE_NAME,
        thumbnailFileName=thumbnail,
        uris="",
        fileNames=f"{SAMPLE_NAME}.nrrd",
        nodeNames=SAMPLE_NAME,
        customDownloader=lambda source: [node for node in (load(),) if node is not None],
    )


def missingPackages() -> list[str]:
    """Python packages the analysis needs and this Slicer lacks (nothing is imported to find out)."""
    return [name for name in ("torch", "monai", "safetensors", "SimpleITK") if importlib.util.find_spec(name) is None]

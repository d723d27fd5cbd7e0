"""Differences between Slicer versions, and between Slicer and plain Python: all of them are here."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path


def tr(text: str) -> str:
    """Text in the user's language, where Slicer can translate (5.4 and later, in the application)."""
    try:
        from slicer.i18n import tr as translate
    except ImportError:
        return text
    return translate(text)


def pythonExecutable() -> str:
    """The interpreter that has Slicer's packages: ``PythonSlicer``, or this one outside Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def temporaryRoot() -> Path:
    """Slicer's temporary folder (the user can set it), or the system's."""
    import slicer

    app = getattr(slicer, "app", None)
    return Path(app.temporaryPath if app is not None else tempfile.gettempdir())


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


def installMissing() -> None:
    """Install what the analysis needs, after asking: PyTorch through its extension, the rest without dependencies.

    :raises CovidMultitaskError: when the PyTorch extension is not there.
    """
    import slicer

    from COVIDMultitaskLib.errors import CovidMultitaskError

    missing = missingPackages()
    names = ", ".join(missing)
    question = tr("{names} will be downloaded and installed into Slicer's Python. Continue?").format(names=names)
    if not missing or not slicer.util.confirmOkCancelDisplay(question):
        return
    if "torch" in missing:
        try:
            import PyTorchUtils
        except ImportError as error:
            raise CovidMultitaskError(
                tr("Install the PyTorch extension in the Extensions Manager, restart Slicer and press this again.")
            ) from error
        PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True)
    for name in missing:
        if name not in ("torch", "SimpleITK"):  # never another SimpleITK than Slicer's own
            slicer.util.pip_install(f"--no-deps {name}")


def openSegmentEditor(segmentationNode, volumeNode, segmentId: str) -> None:
    """Open the Segment Editor with a segmentation, its scan and one of its segments chosen."""
    import slicer

    slicer.util.selectModule("SegmentEditor")
    module = getattr(slicer.modules, "segmenteditor", None)
    if module is None:
        return
    editor = module.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentationNode)
    # Before 5.2 the source volume was called master volume.
    choose = getattr(editor, "setSourceVolumeNode", None) or editor.setMasterVolumeNode
    choose(volumeNode)
    editor.setCurrentSegmentID(segmentId)


def missingPackages() -> list[str]:
    """Python packages the analysis needs and this Slicer lacks (nothing is imported to find out)."""
    return [name for name in ("torch", "monai", "safetensors", "SimpleITK") if importlib.util.find_spec(name) is None]

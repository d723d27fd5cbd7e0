"""Make the pictures under Resources/Screenshots: the panel and the views, with a real run on the phantom.

``make screenshots`` runs this. No Slicer is needed: the panel comes from the Qt host, the views from slicer-core's
own scene and displayable managers; worker, weights and phantom are the real ones.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import conftest  # noqa: F401  (makes Slicer's Python importable)
import numpy as np
import slicer
from PIL import Image
from qt_host.application import Application
from slicer_host.scene import SlicerHost
from slicer_host.slice_view import ORIENTATIONS, SliceView
from slicer_host.three_d_view import ThreeDView

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "Resources" / "Screenshots"
THUMBNAIL = REPOSITORY / "COVIDMultitask" / "Resources" / "Icons" / "ChestPhantom.png"
SIZE = 400
OVERVIEW_WIDTH = 1000


def main() -> None:
    """Run the module on the phantom and take its pictures on the way."""
    host = SlicerHost()
    host.clear()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        application = Application(host, Path(folder))
        import COVIDMultitask

        widget = application.openModule(COVIDMultitask)
        try:
            takePictures(host, application, widget)
        finally:
            application.close()


def takePictures(host, application, widget) -> None:
    """Sample, run, look, correct: as in the tutorial."""
    takePanel(application, widget, "panel-empty")
    pressAndWait(application, widget, widget.ui.sampleButton)
    views = Views(host, widget.panel.scan.volume)
    save(views.slice("Axial", (0.0, 0.0, 0.0)), THUMBNAIL, 128)
    pressAndWait(application, widget, widget.ui.applyButton)
    takePanel(application, widget, "panel")
    takePanel(application, widget, "panel-dark", isDark=True)
    widget.ui.surfaceCheck.checked = True
    save(views.all(place(widget)), FOLDER / "views.png")
    if widget.ui.evidenceSelector.count > 1:
        widget.ui.evidenceSelector.currentIndex = 1
        widget.ui.outlineCheck.checked = True
        save(views.slice("Axial", place(widget)), FOLDER / "evidence.png")
        widget.ui.evidenceSelector.currentIndex = 0
        widget.ui.outlineCheck.checked = False
    saveOverview(widget)
    eraseLargest(application, widget)
    widget.ui.displayButton.collapsed = True
    widget.ui.reviewButton.collapsed = widget.ui.exportButton.collapsed = False
    takePanel(application, widget, "panel-corrected")
    application.check()


def pressAndWait(application, widget, button) -> None:
    """Press a button that starts the worker."""
    application.click(button)
    application.wait(lambda: not widget.panel.isRunning, 300)
    print(widget.ui.statusLabel.text, flush=True)


def takePanel(application, widget, name: str, isDark: bool = False) -> None:
    """The panel as it is, in 256 colours of which the rare ones are not lost."""
    path = application.picture(widget, FOLDER / f"{name}.png", width=380, isDark=isDark)
    picture = Image.open(path).convert("RGB")
    save(picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE), path)


def saveOverview(widget) -> None:
    """The case in one picture."""
    from COVIDMultitaskModule.export import overviewPicture

    picture = Image.open(io.BytesIO(overviewPicture(widget.panel.scan.volume))).convert("RGB")
    save(picture, FOLDER / "overview.png", OVERVIEW_WIDTH)


def place(widget) -> tuple[float, float, float]:
    """Where the largest lesion is."""
    from COVIDMultitaskModule.display import worldPosition
    from COVIDMultitaskModule.scene_writer import readRecord

    scan = widget.panel.scan.volume
    return worldPosition(scan, readRecord(scan).places[0].ras)


def eraseLargest(application, widget) -> None:
    """Correct as a reader would: the largest lesion goes."""
    from COVIDMultitaskModule.scene_writer import readMask, readRecord, readResults

    scan = widget.panel.scan.volume
    component = readRecord(scan).current["lesions"]["components"][0]
    box = tuple(slice(a, b) for a, b in zip(component["start_zyx"], component["stop_zyx"], strict=True))
    mask = readMask(scan, "lesions")
    mask[box] = 0
    widget.ui.reviewerEdit.text = "A. Reader"
    for value, key in ((1, "ground_glass"), (2, "consolidation")):
        kept = (mask == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(kept, readResults(scan).lesions, key, scan)
    application.wait(lambda: readRecord(scan).correction is not None, 60)


class Views:
    """Slice and 3D views of a scan, as in Slicer's four-up layout."""

    def __init__(self, host, scan) -> None:
        self.slices = {orientation: SliceView(host, scan, orientation, SIZE) for orientation in ORIENTATIONS}
        self.threeD = ThreeDView(host, SIZE)

    def slice(self, orientation: str, position) -> np.ndarray:
        """One slice view through a place in the world."""
        self.slices[orientation].jumpTo(position)
        return self.slices[orientation].render()

    def all(self, position) -> np.ndarray:
        """Axial and 3D above, coronal and sagittal below."""
        self.threeD.lookFromTheFront()
        axial, coronal, sagittal = (self.slice(orientation, position) for orientation in ORIENTATIONS)
        return np.vstack([np.hstack([axial, self.threeD.render()]), np.hstack([coronal, sagittal])])


def save(picture: Image.Image | np.ndarray, path: Path, width: int | None = None) -> None:
    """A small PNG, scaled to a width if one is given."""
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    if width is not None:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    picture.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""What a user would see: the overlay falls on the anatomy in rendered slice views."""

from __future__ import annotations

import numpy as np
import pytest
from COVIDMultitaskModule.exchange import Results
from COVIDMultitaskModule.scene_writer import writeResults
from slicer_host.chest import findings, ijkToRas, toyChest
from slicer_host.scene import linearTransform, warpTransform, worldPositions
from slicer_host.slice_view import ORIENTATIONS, SliceView

from COVIDMultitaskLib.labels import LEFT_UPPER, LESIONS, LOBES, RIGHT_LOWER

SCENES = {
    "straight": ({}, None),
    "oblique": ({"rotation_deg": (20, 5, 10)}, None),
    "flipped": ({"flipped": (True, True, True)}, None),
    "sheared under a transform": ({"shear": 0.3}, linearTransform),
    "oblique under a transform": ({"rotation_deg": (20, 5, 10)}, linearTransform),
    "under a warp": ({}, warpTransform),
}


@pytest.fixture(params=SCENES)
def shown(request, host):
    """Scan and chest in the scene, with results."""
    grid, makeTransform = SCENES[request.param]
    chest = toyChest(grid.get("flipped", (False,) * 3))
    scan = host.addVolume(chest.ct, ijkToRas(**grid))
    scan.GetDisplayNode().SetAutoWindowLevel(0)
    scan.GetDisplayNode().SetWindowLevel(1400, -500)
    if makeTransform:
        scan.SetAndObserveTransformNodeID(makeTransform(host.scene).GetID())
    nodes = writeResults(scan, Results(chest.lobes, chest.lesions, findings()))
    return scan, chest, nodes


def colored(picture: np.ndarray, label) -> np.ndarray:
    """Pixels in which a label's hue is laid over grey: the scan itself is grey everywhere."""
    tint = picture - picture.min(axis=2, keepdims=True).astype(float)
    wanted = np.array(label.color, float) - min(label.color)
    strength = np.linalg.norm(tint, axis=2)
    likeness = tint @ wanted / (np.linalg.norm(wanted) * np.maximum(strength, 1e-6))
    return (strength > 60) & (likeness > 0.99)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_lesions_are_painted_where_they_are_in_the_world(orientation, shown, host):
    scan, chest, nodes = shown
    nodes.lobes.GetDisplayNode().SetVisibility(False)
    for label in LESIONS:
        inside = worldPositions(scan, chest.lesions == label.value)
        view = SliceView(host, scan, orientation)
        view.jumpTo(inside[np.argmin(np.linalg.norm(inside - inside.mean(axis=0), axis=1))])
        painted = np.argwhere(colored(view.render(), label))[:, ::-1]
        placed = [view.pixelOf(position) for position in inside]
        expected = np.array([(x, y) for x, y, distance in placed if abs(distance) < 2.0])
        assert len(painted) > 100 and len(expected) > 3
        nearest = np.linalg.norm(expected[:, None] - painted[None], axis=2).min(axis=1)
        assert nearest.max() < 2.0, "voxels of the lesion that are not painted"
        stray = np.linalg.norm(painted[:, None] - np.array(placed)[None, :, :2], axis=2).min(axis=1)
        assert stray.max() < 12.0, "paint where there is no lesion (a voxel is up to 8 mm, some 10 pixels)"


def test_lobes_are_painted_in_their_colours_on_the_dark_lungs(shown, host):
    scan, chest, nodes = shown
    for value in (LEFT_UPPER, RIGHT_LOWER):
        label = next(lobe for lobe in LOBES if lobe.value == value)
        inside = worldPositions(scan, (chest.lobes == value) & (chest.lesions == 0))
        position = inside[np.argmin(np.linalg.norm(inside - inside.mean(axis=0), axis=1))]
        nodes.lobes.GetDisplayNode().SetVisibility(True)
        view = SliceView(host, scan, "Coronal")
        view.jumpTo(position)
        x, y, _ = view.pixelOf(position)
        over = view.render()[y, x].astype(float)
        nodes.lobes.GetDisplayNode().SetVisibility(False)
        under = view.render()[y, x].astype(float)
        assert np.ptp(under) < 3 and 40 < under.mean() < 90, "the scan under the lobe is lung, in grey"
        fill = nodes.lobes.GetDisplayNode().GetOpacity2DFill()
        np.testing.assert_allclose(over, (1 - fill) * under + fill * np.array(label.color), atol=4)


def test_a_lesion_in_the_wrong_place_would_be_seen(host):
    """The check itself: shift the overlay by one transform and the first test's condition fails."""
    chest = toyChest()
    scan = host.addVolume(chest.ct, ijkToRas())
    nodes = writeResults(scan, Results(chest.lobes, chest.lesions, findings()))
    nodes.lesions.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    inside = worldPositions(scan, chest.lesions == LESIONS[0].value)
    view = SliceView(host, scan, "Axial")
    view.jumpTo(inside[len(inside) // 2])
    x, y, _ = view.pixelOf(inside[len(inside) // 2])
    assert not colored(view.render(), LESIONS[0])[y, x]

"""From a volume node to results in the scene with the real command line and the weights that ship."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import slicer
from slicer_host.scene import linearTransform

from COVIDMultitaskLib.errors import CovidMultitaskError
from COVIDMultitaskLib.phantom import Phantom, make_phantom
from COVIDMultitaskLib.resources import resource

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("COVIDMultitaskLib.__main__") is None,
        reason="the command line is not in this checkout",
    ),
    pytest.mark.skipif(
        not list(resource("Bundles").glob("*/models/*.safetensors")), reason="no weights are in Resources/Bundles"
    ),
]


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(spacing_mm=(6.0, 3.0, 3.0), oblique_degrees=(10.0, -5.0, 15.0), flipped=(True, False, True))


def addPhantom(host, phantom: Phantom, array: np.ndarray):
    """The phantom's grid in Slicer's coordinates (RAS; i, j, k), under a transform."""
    toRas = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.volume.geometry.affine @ np.eye(4)[[2, 1, 0, 3]]
    node = host.addVolume(array, toRas, "phantom")
    node.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    return node


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * (a & b).sum() / (a.sum() + b.sum())


def test_the_phantoms_lungs_are_found_where_they_are(host, phantom, moduleFile):
    scan = addPhantom(host, phantom, phantom.volume.array)
    logic = moduleFile.COVIDMultitaskLogic()
    stages = []
    nodes = logic.analyze(scan, lambda message: stages.append(message.stage))
    assert (stages[0], stages[-1]) == ("read", "write")
    found = slicer.util.arrayFromVolume(logic.exportLabelmap(nodes.lobes, scan))
    assert dice(found > 0, phantom.lobes > 0) > 0.9
    for label in range(1, 6):
        assert dice(found == label, phantom.lobes == label) > 0.6
    volumes = slicer.util.arrayFromTableColumn(nodes.table, "volume_ml")
    voxel_ml = phantom.volume.geometry.voxel_ml
    np.testing.assert_allclose(volumes[:5], [(found == value).sum() * voxel_ml for value in range(1, 6)], rtol=1e-3)


def test_a_volume_without_lungs_is_refused_in_one_sentence(host, phantom, moduleFile):
    scan = addPhantom(host, phantom, np.zeros_like(phantom.volume.array))
    with pytest.raises(CovidMultitaskError) as refusal:
        moduleFile.COVIDMultitaskLogic().analyze(scan)
    assert str(refusal.value).endswith(".") and "Traceback" not in str(refusal.value)
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0

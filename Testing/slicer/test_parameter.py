"""What can be analysed, and what is said of what cannot."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from COVIDMultitaskModule.parameter import AnalysisParameter


def scan(host):
    return host.addVolume(np.zeros((4, 5, 6), np.int16), np.eye(4))


def empty(host):
    return host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")


def slice2d(host):
    return host.addVolume(np.zeros((1, 5, 6), np.int16), np.eye(4))


def labelmap(host):
    return slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")


def colour(host):
    return slicer.util.addVolumeFromArray(np.zeros((4, 5, 6, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")


def model(host):
    return host.scene.AddNewNodeByClass("vtkMRMLModelNode")


def test_a_scan_can_be_analysed(host):
    parameter = AnalysisParameter(scan(host))
    assert parameter.isValid and parameter.problem is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda host: None, "Choose a chest CT"),
        (empty, "no voxels"),
        (slice2d, "single slice"),
        (labelmap, "label map"),
        (colour, "colours"),
        (model, "not a volume"),
    ],
)
def test_what_cannot_be_analysed_says_why(make, words, host):
    parameter = AnalysisParameter(make(host))
    assert not parameter.isValid
    assert words in parameter.problem


def test_missing_packages_come_first(host):
    assert "torch" in AnalysisParameter(None, ["torch"]).problem
    assert AnalysisParameter(None, [], "No weights.").problem == "Choose a chest CT."

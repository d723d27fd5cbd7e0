"""The module file: light to import, and a logic that leads from a volume node to results in the scene."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from slicer_host.chest import ijkToRas, toyChest

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError

HEAVY = ("torch", "monai", "SimpleITK", "scipy", "pydicom", "matplotlib", "qt", "ctk")


def test_slicer_lists_the_module(moduleFile):
    parent = SimpleNamespace()
    moduleFile.COVIDMultitask(parent)
    assert parent.title and parent.categories
    assert "research" in parent.helpText


def test_importing_the_module_from_a_checkout_finds_the_library_and_nothing_heavy(repository, tmp_path):
    script = (
        "import os, sys, time\n"
        "sys.path[:] = [p for p in sys.path if not os.path.isdir(os.path.join(p, 'COVIDMultitaskLib'))]\n"
        "sys.path[:0] = sys.argv[1:3]\n"
        "from slicer_host import stand_ins; stand_ins.install()\n"
        "before, started = set(sys.modules), time.process_time()\n"
        "import COVIDMultitask, types\n"
        "COVIDMultitask.COVIDMultitask(types.SimpleNamespace()).registerSample()\n"
        "print(time.process_time() - started)\n"
        "import COVIDMultitaskLib\n"
        f"print(COVIDMultitaskLib.__file__, [name for name in {HEAVY} if name in set(sys.modules) - before])\n"
    )
    paths = [str(repository / "COVIDMultitask"), str(repository / "Testing" / "slicer")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script, *paths],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, found = done.stdout.strip().splitlines()
    assert found == f"{repository / 'COVIDMultitaskLib' / '__init__.py'} []"
    assert float(seconds) < 0.1, "what the module costs whenever Slicer is started"


def test_only_the_module_file_stands_in_the_modules_folder(repository):
    assert [path.name for path in (repository / "COVIDMultitask").glob("*.py")] == ["COVIDMultitask.py"]


@pytest.fixture
def scan(host):
    return host.addVolume(toyChest().ct, ijkToRas(rotation_deg=(10, 20, 30)))


def test_logic_leads_from_a_volume_to_results_in_the_scene(worker, moduleFile, scan):
    worker("good")
    logic = moduleFile.COVIDMultitaskLogic()
    stages = []
    nodes = logic.analyze(scan, lambda message: stages.append(message.stage))
    assert (stages[0], stages[-1]) == ("read", "write")
    labelmap = logic.exportLabelmap(nodes.lobes, scan)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(labelmap), toyChest().lobes)
    assert nodes.table.GetNumberOfRows() == 6


def test_logic_raises_the_childs_sentence(worker, moduleFile, scan, host):
    worker("refuse")
    with pytest.raises(CovidMultitaskError, match="not a chest CT"):
        moduleFile.COVIDMultitaskLogic().analyze(scan)
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_logic_refuses_what_is_no_volume(moduleFile, host):
    with pytest.raises(InputError, match="Choose a chest CT"):
        moduleFile.COVIDMultitaskLogic().startAnalysis(None)


def test_parameter_node_keeps_the_chosen_volume_in_the_scene(moduleFile, scan):
    logic = moduleFile.COVIDMultitaskLogic()
    logic.getParameterNode().inputVolume = scan
    assert logic.getParameterNode().inputVolume is scan


def test_every_widget_the_panel_uses_is_in_its_ui_file(repository):
    folder = repository / "COVIDMultitask"
    ui = xml.parse(folder / "Resources" / "UI" / "COVIDMultitask.ui")
    named = {widget.get("name") for widget in ui.iter("widget")}
    used = set(re.findall(r"\bui\.(\w+)\.", (folder / "COVIDMultitaskModule" / "panel.py").read_text()))
    assert used and used <= named

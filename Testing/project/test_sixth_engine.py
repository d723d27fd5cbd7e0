"""The example of CONTRIBUTING that adds an engine, run as it stands there."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from COVIDMultitaskLib import cli, engines
from COVIDMultitaskLib.bundles import open_bundle
from COVIDMultitaskLib.engines import registry
from COVIDMultitaskLib.labels import GROUND_GLASS
from COVIDMultitaskLib.reading import read_label_map, read_volume
from COVIDMultitaskLib.writing import write_volume
from Testing.conftest import REPOSITORY
from Testing.library.simple_chest import chest_volume
from Testing.library.tiny_bundle import write_tiny_bundle


def files_of_the_example() -> dict[str, str]:
    """Content by path of the blocks of code that stand under a path."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Add an engine")[2].partition("\n## ")[0]
    return {
        path: code for path, code in re.findall(r"^`([^`]+)`:\n\n```\w+\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    }


@pytest.fixture
def sixth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The bundle of the example, whose engine the registry has found; everybody is right lower lobe to the others."""
    for name, content in files_of_the_example().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("make_bundle.py")
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path / "COVIDMultitaskLib" / "engines")])
    before = dict(registry.ENGINES)
    try:
        found = registry.found_engines()
        assert found.items() > before.items() and set(found) - set(before) == {"density"}
        monkeypatch.setattr(registry, "ENGINES", found)
        lungs = open_bundle(write_tiny_bundle(tmp_path / "joint"))
        monkeypatch.setattr(registry, "shipped_bundle", lambda name: lungs)
        yield tmp_path / "density"
    finally:
        sys.modules.pop("COVIDMultitaskLib.engines.density", None)


def test_one_file_and_one_configuration_make_an_engine(sixth: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    write_volume(chest_volume((30, 40, 44), (10.0, 9.0, 9.0)), scan)
    said = CliRunner().invoke(cli.app, ["analyze", str(scan), "--bundle", str(sixth), "-o", "out", "--device", "cpu"])
    assert said.exit_code == 0, said.output
    lesions = read_label_map(tmp_path / "out" / "lesions.nrrd").array
    assert set(np.unique(lesions)) == {0, GROUND_GLASS}
    assert read_volume(scan).array[lesions > 0].min() > -650
    findings = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert findings["engine"]["engine"] == "density" and findings["severity"] is None


def test_it_is_listed(sixth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "shipped_bundles", lambda: [sixth])
    said = CliRunner().invoke(cli.app, ["engines", "--json"])
    rows = {row["engine"]: row for row in json.loads(said.stdout)["engines"]}
    assert rows["density"]["answers"] == ["lesions"] and rows["density"]["trained_on"] == "nothing: set by hand"

"""The tutorial of the training, walked through as it stands: from a CSV to weights in the module's list."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from COVIDMultitaskModule.engines import listEngines

from COVIDMultitaskLib.bundle_archive import add_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
TUTORIAL = REPOSITORY / "training" / "TUTORIAL.md"
NEEDED = ("COVIDMultitaskLib", "Resources", "training")
"""Folders of the repository that the commands use."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> SimpleNamespace:
    """The folder in which every command was run, in the tutorial's order, and what all of them said."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in NEEDED:
        (folder / name).symlink_to(REPOSITORY / name)
    saved = re.search(r"Save this as `([\w.-]+)`:", TUTORIAL.read_text(encoding="utf-8"))
    assert saved is not None
    (folder / saved.group(1)).write_text(blocks("yaml")[0])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    said = ""
    for commands in blocks("sh"):
        done = subprocess.run(
            ["bash", "-e", "-c", commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        said += done.stdout
    return SimpleNamespace(folder=folder, run=folder / "runs" / "my-lesions", said=said)


def test_the_data_are_as_the_tutorial_shows_them(walked):
    written = (walked.folder / "my-data" / "manifest.csv").read_text()
    assert written.startswith(blocks("csv")[0])
    assert "Inconsistent: nothing" in walked.said
    assert (walked.folder / "my-check" / "manifest.png").stat().st_size > 10_000


def test_only_patients_of_the_test_part_are_measured(walked):
    parts = json.loads((walked.folder / "my-split.json").read_text())["parts"]
    figures = json.loads((walked.run / "evaluations" / "lesions.json").read_text())["figures"]
    measured = {f"manifest/{one['case']}" for one in figures}
    assert measured and measured <= set(parts["test"])
    assert not set(parts["test"]) & {*parts["train"], *parts["val"]}


def test_card_and_report_tell_data_and_figures(walked):
    card = (walked.run / "bundle" / "docs" / "README.md").read_text()
    report = (walked.run / "report.html").read_text()
    value = json.loads((walked.run / "evaluations" / "lesions.json").read_text())["means"]["infection"]["dice"]["value"]
    assert (
        f"| infection | Dice | {value:.3f} (" in card
        and f'<td>infection</td><td>Dice</td><td class="number">{value:.3f}' in report
    )
    assert "| manifest | 12 |" in card and "CC0-1.0" in card and "CC0-1.0" in report
    assert "python -m training.evaluate volumes" in card and "python -m training.evaluate volumes" in report
    assert "<img" not in report and "other weights than this run" not in report


def test_the_scan_was_analysed_with_these_weights(walked):
    findings = json.loads((walked.folder / "my-results" / "findings.json").read_text())
    assert "my-lesions" in json.dumps(findings)


def test_the_zip_file_is_added_to_the_modules_list(walked, tmp_path):
    add_bundle(walked.folder / "my-lesions.zip", tmp_path)
    added = [entry for entry in listEngines(str(tmp_path)) if entry.isAdded]
    assert [entry.title for entry in added] == ["my-lesions 0.1.0"]
    assert not added[0].problem and added[0].licence == "CC-BY-NC-4.0"
    assert added[0].trainedOn == "12 real records of manifest"


def test_what_may_go_wrong_is_said_in_these_words():
    sources = [path for name in NEEDED for path in (REPOSITORY / name).rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    rows = TUTORIAL.read_text(encoding="utf-8").partition("## When something goes wrong")[2]
    quoted = re.findall(r'"([^"]+)"', rows)
    assert len(quoted) > 4
    assert not [words for words in quoted if words not in code]


def test_links_of_the_tutorial_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)", TUTORIAL.read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if "://" not in link and not (TUTORIAL.parent / link).exists()]

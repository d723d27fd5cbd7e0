"""The page of simulated scans: pictures of nobody, and figures beside those of real scans."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from training.synthesis.compare import side_by_side, table
from training.synthesis.disease import PATTERNS
from training.synthesis.pictures import page
from training.synthesis.statistics import Looks

LOOKS = Looks((-950.0, -900.0, -870.0, -820.0, -600.0), *(float(n) for n in range(12)))
NAN = float("nan")


@pytest.fixture
def pictures(repository: Path) -> Path:
    return repository / "training" / "synthesis" / "pictures"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures_stand_side_by_side() -> None:
    simulations = [replace(LOOKS, muscle=float(n)) for n in range(101)]
    heading, *rows = side_by_side({"one": LOOKS, "two": replace(LOOKS, ground_glass=NAN)}, simulations)
    told = {name: values for name, *values in rows}
    assert heading == ["figure", "one", "two", "simulated (5 % to 95 %)"]
    assert told["parenchyma_50"] == ["-870", "-870", "-870 (-870 to -870)"]
    assert told["ground_glass"] == ["1.0", "-", "1.0 (1.0 to 1.0)"]
    assert told["muscle"] == ["3.0", "3.0", "50.0 (5.0 to 95.0)"]


def test_what_no_scan_shows_is_a_dash() -> None:
    figures = side_by_side({}, [replace(LOOKS, consolidation=NAN)])
    assert ["consolidation", "- (- to -)"] in figures
    assert "consolidation" in table({}, [LOOKS])


def test_the_page_is_of_one_table_and_all_diagnoses() -> None:
    text = page(side_by_side({"real": LOOKS}, [LOOKS]), 1)
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert {len(line) for line in lines} == {3} and len(lines) == 2 + len(LOOKS.figures())
    assert re.findall(r"\]\((\w+)\.jpg\)", text) == list(PATTERNS)


def test_the_committed_page_names_its_command_and_its_pictures_are_small(pictures: Path) -> None:
    text = (pictures / "README.md").read_text()
    named = set(re.findall(r"\]\(([\w.]+)\)", text))
    there = {path.name for path in pictures.iterdir()} - {"README.md"}
    assert named == there and "python -m training.synthesis.pictures" in text
    assert sum((pictures / name).stat().st_size for name in there) < 1_000_000
    heading = next(line for line in text.splitlines() if line.startswith("| figure"))
    assert len(cells(heading)) > 4, "real scans stand beside the simulated ones"


def test_the_committed_page_is_what_the_command_writes(pictures: Path) -> None:
    text = (pictures / "README.md").read_text()
    rows = [cells(line) for line in text.splitlines() if line.startswith("|")]
    count = re.search(r"^(\d+) simulated scans", text, re.MULTILINE)
    assert count is not None and page([rows[0], *rows[2:]], int(count.group(1))) == text

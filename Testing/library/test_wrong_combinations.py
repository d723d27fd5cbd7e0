"""Engines, weights and inputs that do not go together: one sentence that says what to choose, and nothing written."""

from __future__ import annotations

import json
import shutil
from itertools import permutations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from COVIDMultitaskLib import cli
from COVIDMultitaskLib.bundles import METADATA, open_bundle, write_sums
from COVIDMultitaskLib.engines import registry
from Testing.library.test_reading_picture import chest_picture, write_grey
from Testing.library.tiny_bundle import RANDOM_ENGINES, write_random_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = sorted({"joint", *RANDOM_ENGINES})
READS_PICTURES = "amyar"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> dict[str, Path]:
    """A tiny bundle of each engine."""
    folder = tmp_path_factory.mktemp("bundles")
    return {"joint": tiny_bundle, **{name: write_random_bundle(folder / name, name) for name in RANDOM_ENGINES}}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grey(chest_picture((100, 120)), tmp_path_factory.mktemp("picture") / "slice.png")


@pytest.fixture
def refusal(tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """What ``analyze`` says when it refuses."""
    monkeypatch.setattr(registry, "shipped_bundle", lambda name: open_bundle(bundles[name]))

    def run(*arguments: object) -> str:
        given = [str(argument) for argument in arguments]
        said = CliRunner().invoke(cli.app, ["analyze", *given, "-o", str(tmp_path / "out"), "--device", "cpu"])
        assert said.exit_code == 2 and said.stdout == "", said.output
        assert not (tmp_path / "out").exists()
        sentence = said.stderr.strip()
        assert "\n" not in sentence and sentence.endswith(".") and "Traceback" not in sentence
        return sentence

    return run


@pytest.mark.parametrize("name", [name for name in ENGINES if name != READS_PICTURES])
def test_a_picture_for_an_engine_of_scans(refusal, picture: Path, bundles: dict[str, Path], name: str) -> None:
    expected = (
        f"slice.png is a picture, and the engine {name} needs a whole chest CT; choose the engine amyar, "
        "or give DICOM or NIfTI."
    )
    assert refusal(picture, "--engine", name) == refusal(picture, "--bundle", bundles[name]) == expected


def test_a_picture_whose_lobes_another_engine_is_to_find(refusal, picture: Path) -> None:
    said = refusal(picture, "--engine", READS_PICTURES, "--fill-with", "joint")
    assert said == "slice.png is a picture, in which no other engine finds lobes; choose amyar by itself."


@pytest.mark.parametrize(("asked", "given"), list(permutations(ENGINES, 2)))
def test_weights_of_another_engine(refusal, picture: Path, bundles: dict[str, Path], asked: str, given: str) -> None:
    name = open_bundle(bundles[given]).identity.bundle
    assert refusal(picture, "--engine", asked, "--bundle", bundles[given]) == (
        f"The bundle {name} is for the engine {given}, not for {asked}; choose that engine or another bundle."
    )


def test_a_name_that_no_engine_has(refusal, picture: Path, bundles: dict[str, Path]) -> None:
    expected = "There is no engine 'unet'; choose one of amyar, deepsc-covid, joint, m2unet, triage."
    assert refusal(picture, "--engine", "unet") == expected
    assert refusal(picture, "--engine", "unet", "--bundle", bundles["amyar"]) == expected
    assert refusal(picture, "--engine", "amyar", "--fill-with", "unet") == expected


@pytest.mark.parametrize("helper", ["triage", "amyar", "m2unet", "deepsc-covid"])
def test_an_engine_that_cannot_fill_in(refusal, picture: Path, helper: str) -> None:
    said = refusal(picture, "--engine", "triage", "--fill-with", helper)
    assert helper == "m2unet" or said == (
        f"{helper} cannot supply lobes or lesions that triage lacks; fill with joint or m2unet."
    )


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("rewritten", [False, True], ids=["same layout", "other layout"])
def test_weights_of_a_newer_version(refusal, picture, bundles, tmp_path: Path, name: str, rewritten: bool) -> None:
    """Also when the newer version tells everything else in another place."""
    newer = Path(shutil.copytree(bundles[name], tmp_path / "newer"))
    told = json.loads((newer / METADATA).read_text())
    told["covid_multitask"] = {"format": 2} if rewritten else {**told["covid_multitask"], "format": 2}
    (newer / METADATA).write_text(json.dumps(told))
    write_sums(newer)
    assert refusal(picture, "--bundle", newer) == (
        "The bundle newer was made for another version of this software; update COVIDMultitask."
    )

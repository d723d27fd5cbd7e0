"""The command line as a user and as a program meet it: exit codes, one sentence, whole results or none."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from COVIDMultitaskLib import cli
from COVIDMultitaskLib.engines.registry import ENGINES
from COVIDMultitaskLib.errors import CovidMultitaskError
from COVIDMultitaskLib.pipeline import RESULT_FILES
from COVIDMultitaskLib.progress import STAGES, Progress
from COVIDMultitaskLib.resources import resource
from COVIDMultitaskLib.volume import Geometry, Volume
from COVIDMultitaskLib.writing import write_volume
from Testing.library.dicom_series import Series
from Testing.library.lung_scenes import draw, grid, rotation
from Testing.library.simple_chest import chest_hu, chest_volume
from Testing.library.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.usefixtures("one_thread")


PNG = b"\x89PNG"


@dataclass
class Answer:
    """What a command said and how it ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[dict]:
        """Standard output as JSON lines; fails when one is none."""
        return [json.loads(line) for line in self.stdout.splitlines()]


@pytest.fixture
def command(tiny_bundle: Path) -> Callable[..., Answer]:
    """``command("analyze", scan, "-o", folder)`` in this process, with the tiny network unless told otherwise."""

    def run(name: str, *arguments: object, bundle: object = tiny_bundle) -> Answer:
        given = [str(argument) for argument in arguments]
        if bundle is not None and name in ("analyze", "demo"):
            given += ["--bundle", str(bundle), "--device", "cpu"]
        result = CliRunner().invoke(cli.app, [name, *given])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(autouse=True)
def plain_overview(monkeypatch) -> None:
    """Drawing takes most of the time of so small an analysis; the child processes below do draw."""
    monkeypatch.setattr("COVIDMultitaskLib.reporting.draw_overview", lambda *_: PNG)


@pytest.fixture(scope="session")
def chest(tmp_path_factory) -> Path:
    """A small oblique chest CT."""
    folder = tmp_path_factory.mktemp("scans")
    direction = rotation((8, -5, 12)) @ np.eye(3)[:, ::-1]
    write_volume(chest_volume((30, 40, 44), (10.0, 9.0, 9.0), direction), folder / "chest.nrrd")
    return folder / "chest.nrrd"


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def assert_one_sentence(text: str) -> None:
    """Something a user can read: no traceback, no second line, an end."""
    assert text.strip() == text.rstrip("\n") and "\n" not in text.strip(), text
    assert text.strip().endswith(".") and "Traceback" not in text and "Error:" not in text


def assert_refused(command, tmp_path: Path, exit_code: int, sentence: str, *arguments: object, **options) -> None:
    """The same end for a person and for a program, and nothing on the disk."""
    before = contents(tmp_path)
    plain, machine = command(*arguments, **options), command(*arguments, "--json", **options)
    assert plain.exit_code == machine.exit_code == exit_code, (plain, machine)
    assert plain.stdout == "" and machine.stderr == ""
    assert_one_sentence(plain.stderr)
    assert re.search(sentence, plain.stderr), plain.stderr
    last = machine.events[-1]
    assert last == {"event": "error", "message": plain.stderr.strip(), "exit_code": exit_code}
    assert all(event["event"] == "progress" for event in machine.events[:-1])
    assert contents(tmp_path) == before


# ---- what works -------------------------------------------------------------------------------------------


def test_uncertainty_is_written_when_asked_for(command, chest: Path, tmp_path: Path) -> None:
    assert command("analyze", chest, "-o", tmp_path / "sure").exit_code == 0
    assert command("analyze", chest, "-o", tmp_path / "unsure", "--uncertainty").exit_code == 0
    written = {path.name for path in (tmp_path / "unsure").iterdir()} - {
        path.name for path in (tmp_path / "sure").iterdir()
    }
    assert written == {"evidence_uncertainty.nrrd"}


def test_an_engine_without_uncertainty_says_so(command, chest: Path, tmp_path: Path) -> None:
    refused = command("analyze", chest, "-o", tmp_path / "out", "--engine", "m2unet", "--uncertainty", bundle=None)
    assert refused.exit_code == 2 and "The engine m2unet does not tell its uncertainty" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_an_analysis_writes_all_its_results(command, chest: Path, tmp_path: Path) -> None:
    from COVIDMultitaskLib.reading import read_label_map, read_volume

    done = command("analyze", chest, "-o", tmp_path / "new" / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"Written to {tmp_path / 'new' / 'out'}" in done.stdout.splitlines()[-1]
    assert "Left upper lobe" in done.stdout
    assert contents(tmp_path / "new") == ["out", *(f"out/{name}" for name in sorted(RESULT_FILES))]
    scan = read_volume(chest)
    for name in ("lobes.nrrd", "lesions.nrrd"):
        found = read_label_map(tmp_path / "new" / "out" / name)
        assert found.array.dtype == np.uint8 and found.array.max() <= 5
        assert found.geometry.is_close_to(scan.geometry, 1e-5)
    assert (tmp_path / "new" / "out" / "overview.png").read_bytes() == PNG


def test_findings_are_what_the_schema_says(command, chest: Path, tmp_path: Path) -> None:
    import jsonschema

    assert command("analyze", chest, "-o", tmp_path).exit_code == 0
    written = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))
    schema = json.loads(resource("Schemas", "findings-1.0.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(written)
    assert written["engine"]["bundle"] == "tiny"
    assert "chest.nrrd" not in json.dumps(written) and str(tmp_path) not in json.dumps(written)


def test_machines_read_json_lines(command, chest: Path, tmp_path: Path) -> None:
    done = command("analyze", chest, "-o", tmp_path, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    *steps, last = done.events
    assert last == {"event": "done", "output": str(tmp_path)}
    order = [(list(STAGES).index(step["stage"]), step["fraction"]) for step in steps]
    assert order == sorted(order)
    assert {step["stage"] for step in steps} == set(STAGES)
    assert all(step["event"] == "progress" and step["elapsed_s"] >= 0 for step in steps)


def test_a_dicom_folder_may_hold_several_series(command, tmp_path: Path) -> None:
    for uid, slices in (("1.2.7", 24), ("1.2.8", 20)):
        Series(chest_hu((slices, 40, 48)), uid=uid).write(tmp_path / "dicom" / uid)
    for uid, slices in (("1.2.7", 24), ("1.2.8", 20)):
        assert command("analyze", tmp_path / "dicom", "-o", tmp_path / uid, "--series", uid).exit_code == 0
        told = (tmp_path / uid / "findings.json").read_text(encoding="utf-8")
        assert json.loads(told)["input"]["shape_zyx"] == [slices, 40, 48]
        assert "Doe" not in told and "4711" not in told, "a patient's name or number"
    missing = "analyze", tmp_path / "dicom", "-o", tmp_path / "x", "--series", "9.9"
    assert_refused(command, tmp_path, 2, "no images of the chosen series", *missing)


def test_the_demonstration_shows_the_truth_beside_the_findings(command, tmp_path: Path, monkeypatch) -> None:
    from COVIDMultitaskLib import phantom

    kind = "other_pneumonia"
    scan, lobes, lesions = draw(grid((12.0, 9.0, 9.0)))
    made = phantom.Phantom(scan, lobes, lesions, SimpleNamespace(disease=kind))  # a real one takes seconds
    asked: list[tuple] = []
    monkeypatch.setattr(phantom, "make_phantom", lambda *args, **kwargs: asked.append((args, kwargs)) or made)
    (tmp_path / "findings.json").write_text("earlier")
    done = command("demo", "-o", tmp_path, "--disease", kind, "--seed", 3)
    assert (done.exit_code, done.stderr) == (0, "")
    assert asked == [((3,), {"disease": kind})]
    litres = round(float((lobes > 0).sum()) * scan.geometry.voxel_ml)
    assert f"{litres}" in done.stdout.replace(",", ""), "the true lung volume"
    assert contents(tmp_path) == sorted(RESULT_FILES) and (tmp_path / "findings.json").read_text() != "earlier"


def test_engines_are_listed(command) -> None:
    plain, machine = command("engines"), command("engines", "--json")
    assert plain.exit_code == machine.exit_code == 0
    (record,) = machine.events
    assert {row["engine"] for row in record["engines"]} == set(ENGINES)
    for row in record["engines"]:
        assert row["answers"] == sorted(ENGINES[row["engine"]].answers)
        assert row["engine"] in plain.stdout
        if row["bundle"] is None:
            assert row["licence"] is row["sha256"] is None and "no weights" in plain.stdout
        else:
            assert re.fullmatch("[0-9a-f]{64}", row["sha256"]) and row["licence"] and row["trained_on"]


def test_an_engines_row_tells_all_that_its_bundle_does(command, tmp_path: Path, monkeypatch) -> None:
    told = {"parameters": 3_921_000, "quality": "lobes 0.93", "seconds": 41.6, "trained_on": "two scans"}
    bundle = write_tiny_bundle(tmp_path / "bundle", own=told)
    monkeypatch.setattr("COVIDMultitaskLib.engines.registry.shipped_bundles", lambda: [bundle])
    plain, machine = command("engines"), command("engines", "--json")
    words = " ".join(plain.stdout.replace("│", " ").split())
    for fact in ("3.9 million", "42 s for the", "lobes 0.93", "two scans", "Apache-2.0", "lesions,"):
        assert fact in words, plain.stdout
    (row,) = (row for row in machine.events[0]["engines"] if row["bundle"])
    assert {key: row[key] for key in told} == told


@pytest.mark.parametrize("arguments", [["--help"], ["analyze", "--help"], ["demo", "--help"], ["engines", "--help"]])
def test_help(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0
    for command_name in cli.app.registered_commands if len(arguments) == 1 else []:
        assert command_name.name in result.stdout
    assert len(result.stdout.splitlines()) > 5


# ---- what is wrong with the command ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze"],
        ["analyze", "scan.nrrd"],
        ["analyze", "-o", "out"],
        ["analyze", "a", "b", "-o", "out"],
        ["analyze", "a", "-o", "out", "--color"],
        ["segment"],
        ["demo", "--seed", "many"],
        ["demo", "--seed", "-1"],
    ],
)
def test_usage_errors(arguments: list[str], monkeypatch, capsys) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2 and result.stdout == "" and "Traceback" not in result.stderr
    assert len(result.stderr) > 20
    monkeypatch.setattr(sys, "argv", ["covid-multitask", *arguments, "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    assert left.value.code == 2 and said.err == ""
    record = json.loads(said.out)
    assert record["event"] == "error" and record["exit_code"] == 2 and record["message"]


def test_help_for_a_program_that_asks_for_json(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["covid-multitask", "analyze", "--json", "--help"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0 and "INPUT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--engine", "resnet"],
            "There is no engine 'resnet'; choose one of amyar, deepsc-covid, joint, m2unet, triage.",
        ),
        (["--bundle", "/nowhere"], "is no complete weight bundle"),
        (["--device", "tpu"], "There is no device 'tpu'; choose one of auto, cpu, cuda"),
        (["--device", "cuda"], "No CUDA device is usable here"),
    ],
)
def test_choices_that_are_not_there(command, chest, tmp_path, tiny_bundle, monkeypatch, options, sentence) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if "--bundle" not in options:
        options = [*options, "--bundle", str(tiny_bundle)]
    assert_refused(command, tmp_path, 2, sentence, "analyze", chest, "-o", tmp_path / "out", *options, bundle=None)


def test_an_unknown_disease(command, tmp_path: Path) -> None:
    sentence = "no disease 'plague'; choose one of no_pneumonia, other_pneumonia, covid_19"
    assert_refused(command, tmp_path, 2, sentence, "demo", "-o", tmp_path / "out", "--disease", "plague")


def test_tampered_weights(command, chest: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    weights = bundle / "models" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    sentence = "is not the file that was published"
    assert_refused(command, tmp_path, 2, sentence, "analyze", chest, "-o", tmp_path / "out", bundle=bundle)


# ---- what is wrong with the input --------------------------------------------------------------------------

FINE = (12.0, 9.0, 9.0)


def written(path: Path, array: np.ndarray, spacing: Sequence[float] = FINE) -> Path:
    write_volume(Volume(array, Geometry(array.shape, tuple(spacing), (0.0, 0.0, 0.0))), path)
    return path


def written_by_itk(path: Path, array: np.ndarray) -> Path:
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(path))
    return path


def edited_nrrd(path: Path, pattern: bytes, replacement: bytes) -> Path:
    """With another header line."""
    content, count = re.subn(pattern, replacement, written(path, chest_hu()).read_bytes(), count=1)
    assert count == 1
    path.write_bytes(content)
    return path


def truncated(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def folder_of(path: Path) -> Path:
    path.mkdir()
    return path


def text_file(path: Path) -> Path:
    path.write_text("This is not an image.\n")
    return path


def truncated_dicom(path: Path) -> Path:
    for slice_path in Series(chest_hu()).write(path):
        truncated(slice_path)
    return path


def with_value(path: Path, value: float) -> Path:
    array = chest_hu().astype(np.float32)
    array[3, 4, 5] = value
    return written(path, array)


def abdomen(path: Path) -> Path:
    return written(path, chest_hu(lung=None))


def mr_like(path: Path) -> Path:
    return written(path, np.abs(chest_hu() + 1000))


def picture(path: Path) -> Path:
    return written(path, (np.clip(chest_hu(), -160, 240) + 160).astype(np.uint8))


WRONG: dict[str, tuple[str, Callable[[Path], Path], int, str]] = {
    "missing path": ("scan.nrrd", lambda path: path, 2, "does not exist; check the path"),
    "empty folder": ("dicom", folder_of, 2, "."),
    "text named .nii.gz": ("scan.nii.gz", text_file, 2, "."),
    "truncated NIfTI": ("scan.nii.gz", lambda path: truncated(written(path, chest_hu())), 2, "."),
    "truncated DICOM": ("dicom", truncated_dicom, 2, "."),
    "two dimensions": ("scan.nrrd", lambda path: written_by_itk(path, chest_hu()[5]), 2, "."),
    "four dimensions": ("scan.nrrd", lambda path: written_by_itk(path, np.stack([chest_hu()] * 2)), 2, "."),
    "MR-like": ("scan.nrrd", mr_like, 3, "not Hounsfield units"),
    "8-bit picture": ("scan.nrrd", picture, 3, "not Hounsfield units"),
    "abdomen": ("scan.nrrd", abdomen, 3, "no air-filled lungs"),
    "not a number": ("scan.nrrd", lambda path: with_value(path, np.nan), 2, "NaN or infinite"),
    "infinity": ("scan.nrrd", lambda path: with_value(path, np.inf), 2, "NaN or infinite"),
    "one slice": ("scan.nrrd", lambda path: written(path, chest_hu()[5:6]), 2, "single slice"),
    "5000 slices": ("scan.nii", lambda path: written(path, np.zeros((5000, 8, 8), np.int16)), 2, "5000 slices"),
    "zero spacing": ("scan.nrrd", lambda path: edited_nrrd(path, rb"\(9(\.0)?,0,0\)", b"(0,0,0)"), 2, "."),
    "non-invertible": ("scan.nrrd", lambda path: edited_nrrd(path, rb"\(0,9(\.0)?,0\)", b"(9,0,0)"), 2, "."),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_inputs(command, tmp_path: Path, kind: str) -> None:
    name, make, exit_code, sentence = WRONG[kind]
    scan = make(tmp_path / name)
    assert_refused(command, tmp_path, exit_code, sentence, "analyze", scan, "-o", tmp_path / "out")


@pytest.fixture
def open_bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle where everyone may read it."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_an_input_that_may_not_be_read(command, chest, open_bundle_copy, tmp_path: Path, unprivileged) -> None:
    scan = tmp_path / "scan.nrrd"
    scan.write_bytes(chest.read_bytes())
    scan.chmod(0)
    (tmp_path / "results").mkdir(mode=0o777)
    (tmp_path / "results").chmod(0o777)
    with unprivileged(tmp_path):
        answer = command("analyze", scan, "-o", tmp_path / "results" / "out", bundle=open_bundle_copy)
    assert answer.exit_code == 2 and "may not be read" in answer.stderr
    assert_one_sentence(answer.stderr)


# ---- what is wrong with the output -------------------------------------------------------------------------


def test_earlier_results_stay_unless_told_to_go(command, chest: Path, tmp_path: Path) -> None:
    (tmp_path / "findings.json").write_text("earlier")
    assert_refused(command, tmp_path, 2, "already holds findings.json", "analyze", chest, "-o", tmp_path)
    assert (tmp_path / "findings.json").read_text() == "earlier"
    assert command("analyze", chest, "-o", tmp_path, "--overwrite").exit_code == 0
    assert contents(tmp_path) == sorted(RESULT_FILES)
    assert (tmp_path / "findings.json").read_text() != "earlier"


def test_the_output_is_judged_before_the_work_begins(command, tmp_path: Path) -> None:
    """The scan is not even there, but the first complaint is about the folder."""
    (tmp_path / "out").write_text("a file")
    assert_refused(command, tmp_path, 2, "is a file, not a folder", "analyze", tmp_path / "x", "-o", tmp_path / "out")


def test_an_output_that_may_not_be_written(command, chest, open_bundle_copy, tmp_path: Path, unprivileged) -> None:
    scan = tmp_path / "scan.nrrd"
    scan.write_bytes(chest.read_bytes())
    (tmp_path / "closed").mkdir(mode=0o555)
    with unprivileged(tmp_path):
        answer = command("analyze", scan, "-o", tmp_path / "closed" / "out", bundle=open_bundle_copy)
    assert answer.exit_code == 2 and "no permission to write" in answer.stderr
    assert_one_sentence(answer.stderr)
    assert contents(tmp_path / "closed") == []


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for hardly more than a folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(command, chest: Path, full_disk: Path, tmp_path: Path) -> None:
    assert_refused(command, tmp_path, 2, "is full; free some space", "analyze", chest, "-o", full_disk / "out")


# ---- our fault ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "exit_code", "sentence"),
    [
        (
            ZeroDivisionError("1/0 of Jane Doe"),
            1,
            r"Something went wrong .*\(ZeroDivisionError\); please report it\. COVID_MULTITASK_DEBUG=1 shows",
        ),
        (MemoryError(), 2, "memory does not suffice"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "memory does not suffice"),
        (CovidMultitaskError("The installation is incomplete: install it again."), 1, "installation is incomplete"),
        (KeyboardInterrupt(), 130, "Cancelled: nothing was written"),
    ],
)
def test_whatever_fails_ends_in_a_sentence(command, chest, tmp_path, monkeypatch, error, exit_code, sentence) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.delenv("COVID_MULTITASK_DEBUG", raising=False)
    monkeypatch.setattr("COVIDMultitaskLib.measuring.measure", fail)
    assert_refused(command, tmp_path, exit_code, sentence, "analyze", chest, "-o", tmp_path / "out")
    assert "Jane" not in command("analyze", chest, "-o", tmp_path / "out").stderr


def test_a_failure_amid_writing_leaves_nothing(command, chest: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        assert (next(tmp_path.glob("out/.*")) / "lesions.nrrd").exists()
        raise ZeroDivisionError

    monkeypatch.setattr("COVIDMultitaskLib.reporting.draw_overview", fail)
    assert command("analyze", chest, "-o", tmp_path / "out").exit_code == 1
    assert contents(tmp_path) == []


def test_our_fault_in_detail(command, chest: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("in detail")

    monkeypatch.setenv("COVID_MULTITASK_DEBUG", "1")
    monkeypatch.setattr("COVIDMultitaskLib.measuring.measure", fail)
    answer = command("analyze", chest, "-o", tmp_path / "out", "--json")
    assert answer.exit_code == 1 and "ZeroDivisionError: in detail" in answer.stderr
    assert answer.events[-1]["event"] == "error"


# ---- stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_signal_in_any_stage_leaves_nothing(command, chest: Path, tmp_path: Path, monkeypatch, stage: str) -> None:
    """As if Ctrl+C were pressed just when the stage begins."""
    advance = Progress.advance

    def interrupted(self: Progress, fraction: float) -> None:
        if self._stage == stage and not cli._cancelled.is_set():
            signal.raise_signal(signal.SIGINT)
        advance(self, fraction)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Progress, "advance", interrupted)
    assert_refused(command, tmp_path, 130, "Cancelled: nothing was written", "analyze", chest, "-o", tmp_path / "out")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_signal_does_not_wait_for_the_step(command, chest: Path, tmp_path: Path, monkeypatch) -> None:
    def measure_forever(*_: object) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        pytest.fail("it waits for the step")

    monkeypatch.setattr("COVIDMultitaskLib.measuring.measure", measure_forever)
    assert_refused(command, tmp_path, 130, "Cancelled", "analyze", chest, "-o", tmp_path / "out")


def test_outside_the_main_thread_nothing_listens_to_signals(command) -> None:
    import threading

    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(command("engines", "--json")))
    thread.start()
    thread.join()
    assert answers[0].exit_code == 0


# ---- as a process of its own: few, each costs seconds ------------------------------------------------------


def child(*arguments: object, **environment: str) -> subprocess.Popen:
    """The command as a child process with one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "COVIDMultitaskLib", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_a_process_that_knows_only_ascii(chest: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Names with other letters, a code page without the table's lines, and all goes well."""
    scan = tmp_path / "Größe.nrrd"
    scan.write_bytes(chest.read_bytes())
    with child(
        "analyze", scan, "-o", tmp_path / "Ergebnis ✓", "--bundle", tiny_bundle, PYTHONIOENCODING="ascii", LC_ALL="C"
    ) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, b""), stderr
    stdout.decode("ascii")
    assert b"Written to" in stdout
    assert contents(tmp_path / "Ergebnis ✓") == sorted(RESULT_FILES)
    assert (tmp_path / "Ergebnis ✓" / "overview.png").read_bytes().startswith(PNG)


def test_a_process_that_refuses(tmp_path: Path, tiny_bundle: Path) -> None:
    scan = abdomen(tmp_path / "scan.nrrd")
    with child("analyze", scan, "-o", tmp_path / "out", "--bundle", tiny_bundle) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (3, b"")
    assert_one_sentence(stderr.decode())
    assert contents(tmp_path) == ["scan.nrrd"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize(("number", "stage"), [(signal.SIGINT, "read"), (signal.SIGTERM, "predict")])
def test_a_process_that_is_asked_to_stop(tmp_path: Path, number: int, stage: str, slow_bundle: Path) -> None:
    """In the midst of a pass that would take long; within a second or two it is gone."""
    scan = written(tmp_path / "scan.nrrd", chest_hu((160, 150, 170), (2.0, 2.5, 2.5)), (2.0, 2.5, 2.5))
    with child("analyze", scan, "-o", tmp_path / "out", "--bundle", slow_bundle, "--json") as process:
        heard: list[dict] = []
        for line in process.stdout:
            heard.append(json.loads(line))
            if heard[-1].get("stage") == stage and (stage == "read" or heard[-1]["fraction"] > 0.02):
                break
        asked = time.perf_counter()
        process.send_signal(number)
        rest, stderr = process.communicate(timeout=60)
        seconds = time.perf_counter() - asked
    assert process.returncode == 130, (heard, rest, stderr)
    assert json.loads(rest.splitlines()[-1]) == {
        "event": "error",
        "message": "Cancelled: nothing was written.",
        "exit_code": 130,
    }
    assert contents(tmp_path) == ["scan.nrrd"]
    assert seconds < 5, "much longer than a second or two, even on a busy machine"


@pytest.fixture(scope="module")
def slow_bundle(tmp_path_factory) -> Path:
    """A network whose pass over a scan takes many seconds on one core."""
    return write_tiny_bundle(tmp_path_factory.mktemp("wide") / "bundle", inference={"spacing_mm": 1.2})


def test_a_process_whose_listener_goes_away(chest: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """As in ``covid-multitask ... --json | head -1``: it ends, quietly, and leaves nothing half-written."""
    with child("analyze", chest, "-o", tmp_path / "out", "--bundle", tiny_bundle, "--json") as process:
        process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
        process.wait(timeout=120)
    assert (process.returncode, stderr) == (1, b"")
    assert contents(tmp_path) == []


def test_a_table_that_nobody_reads(command, chest: Path, tmp_path: Path, monkeypatch) -> None:
    """As in ``covid-multitask ... | true``: the results are there, and there is nothing to complain of."""

    def fail(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("COVIDMultitaskLib.reporting.print_findings", fail)
    done = command("analyze", chest, "-o", tmp_path)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "")
    assert contents(tmp_path) == sorted(RESULT_FILES)

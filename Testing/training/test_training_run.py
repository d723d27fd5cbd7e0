"""Training as a researcher meets it: real processes, killed, resumed, shared out, given wrong data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from COVIDMultitaskLib.bundles import EXPERIMENT, FAILURES, SPLIT, open_bundle
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.phantom import make_phantom
from COVIDMultitaskLib.volume import Geometry, Volume
from COVIDMultitaskLib.writing import write_volume
from Testing.training.tiny_experiment import write_experiment
from training.configuration import read_experiment
from training.learning.run import Run

REPOSITORY = Path(__file__).resolve().parents[2]


def command(config: Path, output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "training.train", "--config", str(config), "--output", str(output), *more]


def finished(arguments: list[str], code: int | None = 0, **settings: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **settings}
    done = subprocess.run(arguments, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert code is None or done.returncode == code, done.stdout[-1000:] + done.stderr[-3000:]
    return done


def sentence(done: subprocess.CompletedProcess) -> str:
    """What was said on standard error: one sentence, no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.strip() and "%|" not in line]
    assert len(lines) == 1 and lines[0].endswith("."), done.stderr
    return lines[0]


def kill_after_a_checkpoint(arguments: list[str], run: Run) -> None:
    """Start a training and end it as soon as it has written its first checkpoint."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        arguments, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not run.last_checkpoint.exists():
            assert process.poll() is None, "it ended before"
            time.sleep(0.01)
        process.kill()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


def test_a_killed_run_goes_on_to_the_same_weights(config: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished(command(config, whole, "--no-export"))
    run = Run(killed)
    kills, reached = 0, []
    for wait_s in (0.2, 0.9):
        process = subprocess.Popen(
            command(config, killed, "--no-export"),
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = run.last_checkpoint.stat().st_mtime_ns if run.last_checkpoint.exists() else 0
        while process.poll() is None:
            if run.last_checkpoint.exists() and run.last_checkpoint.stat().st_mtime_ns > before:
                time.sleep(wait_s / 4)
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                reached.append(torch.load(run.last_checkpoint, weights_only=False)["global_step"])
                break
            time.sleep(0.005)
    assert kills, "the runs ended before they could be killed"
    assert 0 < reached[0] < 12, "no checkpoint was written before the end"
    finished(command(config, killed, "--no-export"))
    wanted, found = load_file(whole / "model.safetensors"), load_file(killed / "model.safetensors")
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert run.summary()["steps"] == 12
    assert {row["step"] for row in run.metrics()} == {row["step"] for row in Run(whole).metrics()}
    assert {path.name for path in run.checkpoints.iterdir()} == {"best.safetensors", "last.ckpt"}


def test_scans_that_another_experiment_made_into_the_folder_are_not_learned_from(config: Path, tmp_path: Path) -> None:
    from training.learning.sources import gather
    from training.synthesis.chest import SIMULATOR

    few = read_experiment(config, ["data.synthetic.train=2", "data.synthetic.val=1"])
    data = gather(few, Run(tmp_path / "run"), lambda line: None)
    assert (len(data.pools[0].cases), len(data.held_out[0])) == (2, 1)
    told = data.described["sources"][0]
    assert (told["records"], told["simulator"]) == (2, SIMULATOR)


def test_a_run_folder_belongs_to_one_experiment(config: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.begin(read_experiment(config))
    run.begin(read_experiment(config, ["hardware.workers=1"]))
    done = finished(command(config, run.folder, "--set", "schedule.steps=13"), 2)
    assert "another experiment" in sentence(done)


def test_torchrun_trains_with_two_processes(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", str(29200 + os.getpid() % 500), "-m", "training.train"),
            *("--config", str(config), "--output", str(run), "--no-export"),
            *("--set", "hardware.devices=2", "--set", "schedule.steps=3"),
        ]
    )
    assert Run(run).summary()["steps"] == 3
    assert Run(run).resources()["processes"] == 2


def test_two_processes_have_the_gradients_of_one_with_the_double_batch(config: Path, tmp_path: Path) -> None:
    """Except for the biases before an instance norm, whose gradient is 0 up to rounding."""
    script = str(REPOSITORY / "Testing" / "training" / "one_step.py")
    port = str(29700 + os.getpid() % 200)
    launchers = {
        "one": ([sys.executable], "sampling.scans=2"),
        "two": (
            [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port],
            "sampling.scans=1",
        ),
    }
    for name, (launcher, scans) in launchers.items():
        finished([*launcher, script, str(config), str(tmp_path / name), scans], PYTHONPATH=str(REPOSITORY))
    one, two = (torch.load(tmp_path / name) for name in launchers)
    assert one.keys() == two.keys() and len(one) > 50
    for name, gradient in one.items():
        assert (two[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name


def test_a_loss_that_is_no_number_is_told_with_its_cases(config: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    run = tmp_path / "run"
    finished(command(config, run, "--no-export", "--set", "schedule.steps=3"))
    weights = load_file(run / "model.safetensors")
    weights["lobe_head.bias"][0] = torch.nan
    save_file(weights, start)
    done = finished(command(config, tmp_path / "bad", "--no-export", "--set", f"start={start}"), 2)
    assert "is not a number at step 0 (synthetic/" in sentence(done)


def test_a_full_disk_loses_no_earlier_checkpoint(config: Path, tmp_path: Path) -> None:
    """Files may not grow beyond a limit that a checkpoint passes: what a full disk does, without being root."""
    run = Run(tmp_path / "run")
    arguments = command(config, run.folder, "--no-export", "--set", "schedule.steps=300")
    kill_after_a_checkpoint(arguments, run)
    checkpoint = run.last_checkpoint.read_bytes()
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(checkpoint) // 2},) * 2);"
        "sys.argv = sys.argv[1:]; runpy.run_module('training.train', run_name='__main__')"
    )
    done = finished([sys.executable, "-c", limited, "training.train", *arguments[3:]], 2)
    assert "last.ckpt" in sentence(done) and "could not be written" in sentence(done)
    assert run.last_checkpoint.read_bytes() == checkpoint
    assert not list(run.checkpoints.glob(".*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.synthetic.train": "many"}, "tiny.yaml: data.synthetic.train: input should be a valid integer"),
        ({"losses.weights": {"lobse": 1}}, "names lobse, which joint does not learn"),
        ({"engine": "unet"}, 'There is no engine "unet" to train'),
        ({"network.channels": [4, 4]}, "network of joint cannot be made so: the network has four resolutions"),
        ({"sampling.tasks": {"lobes": 0, "lesions": 0, "severity": 0, "diagnosis": 0}}, "needs a share above 0"),
        ({"start": "nowhere.safetensors"}, "nowhere.safetensors to start from are missing"),
        ({"start": {"stern": "nowhere.safetensors"}}, "nowhere.safetensors to start from are missing"),
        ({"data.synthetic.size": [16, 16, 16]}, "simulated scans of another size; name another folder"),
    ],
)
def test_a_wrong_experiment_is_one_sentence(tmp_path, changes, words, capsys) -> None:
    from training.train import main

    config = write_experiment(tmp_path, changes)
    assert main(["--config", str(config), "--output", str(tmp_path / "run"), "--no-export"]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and said.endswith(".") and "\n" not in said


def test_a_network_starts_with_the_overview_that_was_trained_before(tmp_path: Path) -> None:
    """Trained by itself as a network of twice the spacing; what comes after does not change it."""
    first = write_experiment(tmp_path / "first", {"schedule.steps": 2, "schedule.settle": False})
    finished(command(first, tmp_path / "overview", "--no-export"))
    weights = tmp_path / "overview" / "model.safetensors"
    channels = read_experiment(first).network["channels"]
    changes = {"network.overview": channels, "start": {"overview": str(weights)}, "schedule.steps": 2}
    second = write_experiment(tmp_path / "second", changes)
    finished(command(second, tmp_path / "run", "--no-export"))
    made, overview = load_file(tmp_path / "run" / "model.safetensors"), load_file(weights)
    told = {name.removeprefix("overview."): value for name, value in made.items() if name.startswith("overview.")}
    assert {"stem", "encoder", "decoder", "lobe_head", "lesion_head"} == {name.partition(".")[0] for name in told}
    assert all(torch.equal(value, overview[name]) for name, value in told.items())
    start = {"": str(weights), "overview": str(weights)}
    third = write_experiment(tmp_path / "third", {**changes, "start": start, "schedule.learning_rate": 1e-30})
    finished(command(third, tmp_path / "wider", "--no-export"))
    wider = load_file(tmp_path / "wider" / "model.safetensors")
    stem = wider["stem.conv_0.conv.weight"]
    assert (
        stem.shape[1] == 8 + 9
        and not stem[:, 8:].any()
        and torch.equal(stem[:, :8], overview["stem.conv_0.conv.weight"])
    )
    assert torch.equal(wider["lobe_head.weight"], overview["lobe_head.weight"])
    assert [one.folder.name for one in Run(tmp_path / "wider").stages()] == ["overview", "wider"]
    other = write_experiment(tmp_path / "other", {**changes, "network.overview": [2, 2, 2, 4]})
    failed = finished([*command(other, tmp_path / "no", "--no-export")], 2)
    assert "to start from are missing or of another network" in sentence(failed)


def staged(folder: Path, name: str, start: str | dict | None, simulated: int, hours: float) -> Run:
    """A run that ended, as far as what is told of its training."""
    run = Run(folder / name)
    run.folder.mkdir()
    config = write_experiment(folder / f"{name}-config", {"name": name, "start": start})
    run.begin(read_experiment(config))
    source = {"name": "synthetic", "licence": "CC-BY-4.0", "records": simulated, "simulated": True, "from": "shapes"}
    run.data_file.write_text(json.dumps({"sources": [source], "left_out": []}))
    resources = {"seconds": 3600 * hours, "kilowatt_hours": hours / 10, "processes": 1, "device": "cpu", "threads": 1}
    run.resources_file.write_text(json.dumps({**resources, "energy": "processor estimated"}))
    summary = {"engine": "joint", "steps": 5, "kept": "last", "inference": {}, "task_weights": {"lobes": 1.0}}
    run.write_weights(name.encode(), summary)
    return run


def test_a_card_tells_the_cost_of_all_stages_and_what_all_learned_from(tmp_path: Path) -> None:
    from training.calibration import BundleCalibration
    from training.export import data_of_stages, model_card

    base = staged(tmp_path, "base", None, 900, 2.0)
    overview = staged(tmp_path, "overview", None, 300, 1.0)
    start = {"": str(base.weights_file), "overview": str(overview.weights_file)}
    second = staged(tmp_path, "second", start, 20, 0.5)
    last = staged(tmp_path, "last", str(second.weights_file), 10, 0.25)
    assert [one.folder.name for one in last.stages()] == ["base", "overview", "second", "last"]
    assert data_of_stages(last)["sources"][0]["records"] == 900
    assert data_of_stages(overview)["sources"][0]["records"] == 300
    card = model_card(last, BundleCalibration({}, None, {}, ()), [], "simulated")
    assert "It took 3.8 hours on cpu (1 threads) and 0.375 kWh" in card and "all stages together" in card
    assert "| base | 5 |" in card and "| last | 5 |" in card and "held-out cases (simulated)" in card
    alone = model_card(overview, BundleCalibration({}, None, {}, ()), [], "simulated")
    assert "in stages" not in alone and "It took 1.0 hours" in alone


@pytest.mark.parametrize(("folds", "is_refused"), [(None, True), ([{}, {}], False)])
def test_figures_of_other_weights_do_not_get_into_the_card(tmp_path: Path, folds, is_refused: bool) -> None:
    from training.export import evaluations_of

    run = staged(tmp_path, "run", None, 5, 1.0)
    document = {"weights": {"sha256": "0" * 64}, "command": "x", "failures": {"a.nii": "no chest"}}
    (run.folder / "evaluations").mkdir()
    content = json.dumps({**document, **({"folds": folds} if folds else {})})
    (run.folder / "evaluations" / "lungs.json").write_text(content)
    if is_refused:
        with pytest.raises(InputError, match=r"lungs\.json was measured with other weights"):
            evaluations_of(run)
    else:
        assert evaluations_of(run)[0].failures == {"a.nii": "no chest"}


def manifest(folder: Path, rows: list[dict[str, str]]) -> Path:
    columns = list(rows[0])
    lines = [",".join(columns), *(",".join(row.get(name, "") for name in columns) for row in rows)]
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def own_data(folder: Path, patients: int = 5) -> list[dict[str, str]]:
    """Small scans with lesion masks, as a researcher has them."""
    rows = []
    for number in range(patients):
        chance = np.random.default_rng(number)
        geometry = Geometry((12, 40, 48), (8.0, 6.0, 6.0), (0, 0, 0))
        lesion = np.zeros(geometry.shape, np.uint8)
        lesion[4:8, 12:20, 10 : 14 + number] = 1
        hu = np.where(lesion, -400, -850) + chance.normal(0, 20, geometry.shape)
        write_volume(Volume(hu.astype(np.int16), geometry), folder / f"{number}.nii.gz")
        write_volume(Volume(lesion, geometry), folder / f"{number}_lesion.nii.gz")
        rows.append(
            {
                "image": f"{number}.nii.gz",
                "patient": f"p{number}",
                "lesions": f"{number}_lesion.nii.gz",
                "lesion_kind": "classes",
                "severity": "",
                "diagnosis": "covid_19" if number % 2 else "no_pneumonia",
                "licence": "CC-BY-4.0",
            }
        )
    return rows


OWN = {"data.synthetic": None, "data.sources": [{"dataset": "manifest", "root": "MANIFEST"}]}


def own_experiment(folder: Path, path: Path, **changes) -> Path:
    sources = [{"dataset": "manifest", "root": str(path)}]
    return write_experiment(folder, {**OWN, "data.sources": sources, **changes}, train=0)


def test_masks_of_ones_own_become_a_bundle(tmp_path: Path) -> None:
    """Only lesions and a diagnosis are known; nothing teaches lobes or severity, and nothing claims to."""
    path = manifest(tmp_path, own_data(tmp_path))
    config = own_experiment(tmp_path, path, **{"schedule.steps": 3, "schedule.validate_every": 1})
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.md").write_text("By eye: too much at the bases.")
    (tmp_path / "run/failures.png").write_bytes(b"a picture")
    finished(command(config, tmp_path / "run"))
    run = Run(tmp_path / "run")
    logged = {name for row in run.metrics() for name in row}
    assert {"train/lesions", "train/diagnosis", "val/lesions"} <= logged
    assert not {"train/lobes", "train/severity", "val/lobes"} & logged
    bundle = open_bundle(run.folder / "bundle")
    assert "5 real records of manifest" in bundle.identity.trained_on
    assert (bundle.path / SPLIT).read_bytes() == run.split_file.read_bytes()
    assert (bundle.path / FAILURES).read_bytes() == b"a picture"
    assert "name: tiny" in (bundle.path / EXPERIMENT).read_text()
    card = (bundle.path / "docs/README.md").read_text()
    assert (
        "By eye: too much at the bases." in card
        and "(failures.png)" in card
        and "| manifest | 5 |" in card
        and "kWh" in card
        and "simulated" not in card.split("## Intended use")[0]
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows: rows[2].update(lesions="gone.nii.gz"), "gone.nii.gz"),
        (lambda rows: rows[1].update(diagnosis="flu"), "flu"),
        (lambda rows: rows[3].update(lesions=rows[0]["image"]), "0.nii.gz holds the label"),
        (lambda rows: rows[1].update(image="9.nii.gz"), "9.nii.gz"),
    ],
)
def test_wrong_data_are_told_by_name(tmp_path, spoil, words, capsys) -> None:
    from training.train import main

    rows = own_data(tmp_path)
    spoil(rows)
    config = own_experiment(tmp_path, manifest(tmp_path, rows))
    assert main(["--config", str(config), "--output", str(tmp_path / "run"), "--no-export"]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and said.endswith(".") and "\n" not in said


def test_a_mask_on_another_grid_is_told_by_name(tmp_path: Path, capsys) -> None:
    from training.train import main

    rows = own_data(tmp_path)
    other = Geometry((12, 40, 48), (8.0, 6.0, 6.0), (100, 0, 0))
    write_volume(Volume(np.zeros(other.shape, np.uint8), other), tmp_path / "1_lesion.nii.gz")
    config = own_experiment(tmp_path, manifest(tmp_path, rows))
    assert main(["--config", str(config), "--output", str(tmp_path / "run"), "--no-export"]) == 2
    assert "1_lesion.nii.gz" in capsys.readouterr().err


def test_the_scores_told_are_those_of_the_weights_that_are_kept(tmp_path: Path) -> None:
    from training.learning.trained import held_out_sources, load_learner, scores_of

    config = write_experiment(tmp_path, {"schedule.keep": "best", "schedule.learning_rate": 0.02})
    finished(command(config, tmp_path / "run", "--no-export"))
    run = Run(tmp_path / "run")
    validations = [row for row in run.metrics() if "val/mean" in row]
    best = max(validations, key=lambda row: row["val/mean"])
    told = {one.task: one.mean for one in scores_of(load_learner(run), held_out_sources(run))}
    assert told == pytest.approx({task: best[f"val/{task}"] for task in told}, abs=0.02)
    assert {"lobes", "lesions", "severity", "diagnosis"} <= set(told)


def test_weights_are_no_freer_than_their_data() -> None:
    from training.export import check_licence

    data = {"sources": [{"name": "a", "licence": "CC-BY-4.0"}, {"name": "b", "licence": "LicenseRef-x-noncommercial"}]}
    with pytest.raises(InputError, match=r"b is licensed .* cannot be CC-BY-4\.0"):
        check_licence("CC-BY-4.0", data)
    check_licence("CC-BY-NC-4.0", data)
    check_licence("CC-BY-4.0", {"sources": data["sources"][:1]})


def test_smoke_goes_from_the_data_at_hand_to_a_bundle_that_analyses(tmp_path: Path) -> None:
    """The README's command; with lobe maps where they are at hand, else with phantoms."""
    began = time.monotonic()
    caches = [
        *("--set", f"data.synthetic.folder={tmp_path / 'cases'}"),
        *("--set", f"data.synthetic.anatomies={tmp_path / 'anatomies'}"),
        *("--set", f"data.cache={tmp_path / 'prepared'}"),
    ]
    config = REPOSITORY / "training" / "configs" / "joint.yaml"
    finished([*command(config, tmp_path / "run", "--smoke"), *caches], OMP_NUM_THREADS="2")
    assert time.monotonic() - began < 300
    chest = make_phantom(spacing_mm=(4.0, 2.0, 2.0))
    write_volume(chest.volume, tmp_path / "chest.nrrd")
    analyze = [sys.executable, "-m", "COVIDMultitaskLib", "analyze", str(tmp_path / "chest.nrrd")]
    out = tmp_path / "out"
    done = finished([*analyze, "--bundle", str(tmp_path / "run" / "bundle"), "-o", str(out)], None)
    if done.returncode == 3:  # so little training may find too little lung, and then says so
        assert "Hardly any lung was found" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert "joint-smoke" in (out / "findings.json").read_text()

"""The commands that measure: whole runs on made-up data, and the sentence for each mistake."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from COVIDMultitaskLib.engines.contract import EngineIdentity, Prediction
from COVIDMultitaskLib.errors import NotChestCTError
from COVIDMultitaskLib.phantom import Phantom, make_phantom
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Volume
from COVIDMultitaskLib.writing import write_volume
from Testing.library.tiny_bundle import random_network, write_tiny_bundle
from Testing.training.data_layouts import save, save_picture
from training.data.splits import Split
from training.evaluate.__main__ import main
from training.evaluate.pictures import told_by_look
from training.evaluate.results import read_evaluations
from training.metrics import dice, mean_over_thresholds

IDENTITY = EngineIdentity("made-up", "made-up", "1", "0" * 64, "nothing", "Apache-2.0")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: its exit code, and what it said on both channels, without line ends."""

    def act(*arguments: object) -> tuple[int, str, str]:
        code = main([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, " ".join(said.out.split()), " ".join(said.err.split())

    return act


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny tensors gain nothing by several threads and lose much when the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random weights."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", network=random_network())


@pytest.fixture(scope="module")
def constant_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that finds the whole patient to be lung without lesion."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "constant")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an engine in the place of the one that a command would make."""

    def put(command: str, **attributes: object) -> None:
        given = {"identity": IDENTITY, "answers": frozenset(), "takes": "scan", **attributes}
        monkeypatch.setattr(f"training.evaluate.{command}.make_engine", lambda *_: SimpleNamespace(**given))

    return put


# Slices


def upright_slice(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, front up, and its classes: front ground-glass on the patient's right, dense at the back left."""
    rows, columns = 60 + 3 * number, 84
    grey, classes = np.full((rows, columns), 40, np.uint8), np.zeros((rows, columns), np.uint8)
    grey[-6:] = 220  # chest wall
    classes[4:20, 6:30] = 1
    if number:
        classes[36:50, 50:70] = 2
    grey[classes == 1], grey[classes == 2] = 120, 200
    return grey, classes


def save_slices(root: Path, count: int = 3, stored: Callable[[np.ndarray], np.ndarray] = np.transpose) -> None:
    """Pictures, infection masks and two-class masks; the first shows no consolidation."""
    for number in range(count):
        grey, classes = upright_slice(number)
        save_picture(root / f"Imgs/{number}.png", stored(grey))
        save_picture(root / f"GT/{number}.png", stored((classes > 0) * 255))
        (root / "Classes").mkdir(exist_ok=True)
        picture = Image.fromarray(np.ascontiguousarray(stored(classes)))
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        picture.save(root / f"Classes/{number}.png")


def folders(root: Path, *more: object) -> list[object]:
    return ["slices", "--images", root / "Imgs", "--labels", root / "GT", "--multiclass", root / "Classes", *more]


def by_density(hu: np.ndarray, pixel_mm: Sequence[float], mirrored: bool) -> np.ndarray:
    """Ground-glass is where the picture of :func:`upright_slice` has it; everything must stand upright."""
    assert (hu[-3:] > hu.mean()).all(), "the chest wall must be at the bottom"
    assert (len(pixel_mm), mirrored) in {(3, True), (1, False)}
    classes = np.where(hu > -680, 1, 0)
    classes[30:, 40:] *= 2
    classes[-6:] = 0
    return np.eye(3, dtype=np.float32)[classes].transpose(2, 0, 1)


def test_what_is_found_on_turned_slices_meets_the_reference(engine, run: Run, tmp_path: Path) -> None:
    save_slices(tmp_path)
    engine("slices", predict_slice=by_density)
    code, shown, _ = run(*folders(tmp_path, "--json", tmp_path / "out.json", "--save", tmp_path / "maps"))
    assert code == 0 and "made-up 1 (made-up), trained on nothing" in shown
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["empty_references"] == {"infection": 0, "ground_glass": 0, "consolidation": 1}
    for name in ("infection", "ground_glass", "consolidation"):
        means = written["means"][name]
        assert means["dice"]["value"] == 1.0 and means["mae"]["value"] == 0.0 and means["dice"]["cases"] == 3
    # The slice without consolidation has no sensitivity, and the benchmark's own tool gives it a Dice of 0.
    assert written["means"]["consolidation"]["sensitivity"]["cases"] == 2
    assert written["means"]["consolidation"]["tool_dice"]["value"] < 0.7
    # Cards show the means without it, too, and how many references are empty.
    (told,) = read_evaluations(tmp_path)
    rows = {(row.what, row.measure): row for row in told.rows}
    assert rows["Consolidation", "Dice where the class is there, as the released tool"].interval.value > 0.99
    assert rows["Consolidation", "Dice where the class is there"].interval.cases == 2
    empty = rows["Consolidation", "references without the class"]
    assert empty.figure == "1" and empty.interval.cases == 3
    assert not any(row.what == "Ground-glass opacity" and "the class" in row.measure for row in told.rows)
    for number in range(3):
        reference = np.asarray(Image.open(tmp_path / f"Classes/{number}.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"maps/classes/{number}.png")), reference)
        saved = np.asarray(Image.open(tmp_path / f"maps/infection/{number}.png"))
        np.testing.assert_array_equal(saved, (reference > 0) * 255)


def test_slices_that_stand_upright_and_those_that_lie_face_down(engine, run: Run, tmp_path: Path) -> None:
    engine("slices", predict_slice=by_density)
    save_slices(tmp_path / "upright", stored=np.asarray)
    code, _, _ = run(*folders(tmp_path / "upright", "--upright", "--quick", "--json", tmp_path / "upright.json"))
    assert code == 0 and json.loads((tmp_path / "upright.json").read_text())["means"]["infection"]["dice"]["value"] == 1
    save_slices(tmp_path / "down", 1, stored=lambda array: array[::-1].T)
    for folder in ("Imgs", "GT", "Classes"):
        path = tmp_path / "down" / folder / "0.png"
        path.rename(path.with_name("Data-1_coronacases_org_001_0.png"))
    code, _, _ = run(*folders(tmp_path / "down", "--json", tmp_path / "down.json"))
    assert code == 0 and json.loads((tmp_path / "down.json").read_text())["means"]["infection"]["dice"]["value"] == 1


def test_the_figures_are_those_of_the_saved_maps(bundle: Path, run: Run, tmp_path: Path) -> None:
    save_slices(tmp_path)
    code, _, _ = run(
        *folders(tmp_path, "--quick", "--bundle", bundle, "--save", tmp_path / "maps", "--json", tmp_path / "out.json")
    )
    assert code == 0
    written = json.loads((tmp_path / "out.json").read_text())
    figures = {(one["case"], one["class"]): one for one in written["figures"]}
    assert len(figures) == 9
    for (case, name), one in figures.items():
        reference = np.asarray(Image.open(tmp_path / f"Classes/{case}.png"))
        truth = reference > 0 if name == "infection" else reference == ("ground_glass", "consolidation").index(name) + 1
        saved = np.asarray(Image.open(tmp_path / f"maps/{name}/{case}.png"))
        assert saved.shape == truth.shape and len(np.unique(saved)) > 3
        assert one["tool_dice"] == pytest.approx(mean_over_thresholds(saved, truth).dice)
        assert one["mae"] == pytest.approx(np.abs(saved / 255 - truth).mean(), abs=0.002)
        if name != "infection":
            found = np.asarray(Image.open(tmp_path / f"maps/classes/{case}.png"))
            assert one["dice"] == dice(found == ("ground_glass", "consolidation").index(name) + 1, truth)
    mean = written["means"]["infection"]["dice"]
    assert mean["value"] == pytest.approx(np.mean([figures[str(n), "infection"]["dice"] for n in range(3)]))
    assert mean["low"] <= mean["value"] <= mean["high"]


def test_maps_come_at_the_references_size(engine, run: Run, tmp_path: Path) -> None:
    save_slices(tmp_path)
    for path in (tmp_path / "Imgs").iterdir():
        picture = Image.open(path)
        picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(path)
    engine("slices", predict_slice=lambda hu, *_, **__: np.eye(3)[(hu > -680).astype(int)].transpose(2, 0, 1))
    code, _, _ = run(*folders(tmp_path, "--save", tmp_path / "maps"))
    assert code == 0
    for path in (tmp_path / "GT").iterdir():
        assert Image.open(tmp_path / "maps/infection" / path.name).size == Image.open(path).size


def test_an_engine_that_reads_pictures_is_measured_on_infection_alone(engine, run: Run, tmp_path: Path) -> None:
    save_slices(tmp_path)

    def predict(volume: Volume, progress: object) -> Prediction:
        assert volume.array.shape[0] == 1 and volume.intensity.value == "picture"
        return Prediction(IDENTITY, lesions=((volume.array > 80) & (volume.array != 220)).astype(np.uint8))

    engine("slices", predict=predict, takes="picture", answers=frozenset({"lesions"}))
    code, shown, _ = run(*folders(tmp_path, "--json", tmp_path / "out.json", "--save", tmp_path / "maps"))
    means = json.loads((tmp_path / "out.json").read_text())["means"]
    assert code == 0 and list(means) == ["infection"] and means["infection"]["dice"]["value"] == 1
    assert "does not tell the classes of a picture" in shown
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["infection"]


def test_two_class_masks_that_a_tool_made_grey_or_coloured(engine, run: Run, tmp_path: Path) -> None:
    save_slices(tmp_path)
    for path in (tmp_path / "Classes").iterdir():
        Image.open(path).convert("RGB").save(path)
    engine("slices", predict_slice=by_density)
    command = ["slices", "--images", tmp_path / "Imgs", "--labels", tmp_path / "Classes"]
    assert run(*command, "--multiclass", tmp_path / "Classes", "--json", tmp_path / "out.json")[0] == 0
    means = json.loads((tmp_path / "out.json").read_text())["means"]
    assert [means[name]["dice"]["value"] for name in ("infection", "ground_glass", "consolidation")] == [1, 1, 1]


def damage(path: Path) -> None:
    path.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("spoil", "more", "sentence"),
    [
        (lambda root: (root / "Imgs/1.png").unlink(), (), "Imgs has no picture of the name 1, which"),
        (lambda root: (root / "Classes/2.png").unlink(), (), "Classes has no picture of the name 2, which"),
        (lambda root: [path.unlink() for path in (root / "GT").iterdir()], (), "GT holds no masks"),
        (lambda root: damage(root / "Imgs/0.png"), (), "Imgs/0.png is no picture or is damaged; copy it again."),
        (lambda root: damage(root / "GT/0.png"), (), "GT/0.png is no picture or is damaged; copy it again."),
        (lambda root: save_picture(root / "GT/0.png", np.full((84, 60), 77)), (), "GT/0.png holds values up to 77;"),
        (lambda root: save_picture(root / "Classes/0.png", np.full((84, 60), 9)), (), "Classes/0.png holds the label"),
        (lambda root: save_picture(root / "Classes/0.png", np.zeros((9, 9))), (), "are of different size"),
        (lambda root: None, ("--patient", "("), "( is no regular expression"),
        (lambda root: None, ("--patient", "[a-z]+"), "The name 0 does not begin with a patient"),
        (lambda root: None, ("--save", "GT/0.png/maps"), "cannot be created"),
        (lambda root: None, ("--json", "GT/0.png/out.json"), "GT/0.png cannot be created"),
    ],
)
def test_mistakes_with_slices_end_with_a_sentence(
    spoil: Callable, more: tuple[str, ...], sentence: str, engine, run: Run, tmp_path: Path, monkeypatch
) -> None:
    save_slices(tmp_path)
    spoil(tmp_path)
    monkeypatch.chdir(tmp_path)
    engine("slices", predict_slice=by_density)
    code, _, error = run(*folders(tmp_path, *more))
    assert code == 2 and sentence in error and "Traceback" not in error


def test_an_engine_without_the_answer_says_so(engine, run: Run, tmp_path: Path) -> None:
    save_slices(tmp_path)
    engine("slices")
    assert run(*folders(tmp_path))[::2] == (
        2,
        "The engine made-up gives no lesions of single slices; choose another engine.",
    )
    engine("volumes", answers=frozenset({"lobes"}))
    command = ["volumes", "--images", tmp_path, "--labels", tmp_path, "--task", "lesions"]
    assert run(*command)[::2] == (2, "The engine made-up gives no lesions; choose another engine.")


def test_the_command_itself_fails_with_one_sentence(tmp_path: Path, repository: Path) -> None:
    save_slices(tmp_path, 1)
    command = [sys.executable, "-m", "training.evaluate", *map(str, folders(tmp_path, "--bundle", tmp_path))]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "is no complete weight bundle" in done.stderr


# Volumes


# Pictures of known status


def save_sorted_pictures(root: Path, positive: int = 20, **sizes: tuple[int, int]) -> None:
    """Noise in two folders; ``positive`` pictures of COVID-19 have a bright corner."""
    chance = np.random.default_rng(0)
    for name, count in (("COVID", positive), ("NonCOVID", 20)):
        for number in range(count):
            grey = chance.integers(0, 200, sizes.get(name, (40, 50)), dtype=np.uint8)
            grey[0, 0] = 255 if name == "COVID" else 0
            save_picture(root / name / f"{'abcdefghijklmnopqrst'[number]}{name}.png", grey)


def sees_the_corner(volume: Volume, progress: object) -> Prediction:
    assert volume.intensity.value == "picture"
    return Prediction(IDENTITY, covid=0.9 if volume.array[0, 0, 0] == 255 else 0.1)


@pytest.mark.parametrize(("sizes", "low", "high"), [({}, 0.2, 0.8), ({"NonCOVID": (60, 50)}, 0.9, 1.0)])
def test_pictures_are_told_apart_by_the_engine_and_by_their_look(
    engine, run: Run, tmp_path: Path, sizes, low: float, high: float
) -> None:
    save_sorted_pictures(tmp_path, **sizes)
    engine("pictures", predict=sees_the_corner, takes="picture", answers=frozenset({"diagnosis"}))
    code, shown, _ = run("pictures", "--root", tmp_path, "--json", tmp_path / "out.json")
    tasks = json.loads((tmp_path / "out.json").read_text())["tasks"]
    assert code == 0 and "no figure here says how well patients are told apart" in shown
    assert tasks["covid"]["measures"]["balanced_accuracy"]["value"] == 1
    assert low <= tasks["look"]["measures"]["roc_auc"]["value"] <= high
    assert set(tasks["look"]["measures"]) == {"roc_auc", "pr_auc"}


def test_only_pictures_of_one_part_of_a_split_count(engine, run: Run, tmp_path: Path) -> None:
    save_sorted_pictures(tmp_path)
    names = [f"covid_vs_noncovid/{folder}/{letter}{folder}" for folder in ("COVID", "NonCOVID") for letter in "abcd"]
    Split({"train": ("other/a",), "validation": tuple(names)}, 0, "x").write(tmp_path / "split.json")
    engine("pictures", predict=sees_the_corner, takes="picture", answers=frozenset({"diagnosis"}))
    code, shown, _ = run("pictures", "--root", tmp_path, "--split", tmp_path / "split.json", "--part", "validation")
    assert code == 0 and "COVID-19 or not: 8 scans" in shown


def test_copies_of_a_picture_do_not_tell_each_others_class() -> None:
    looks = np.arange(40.0).repeat(2)[:, None]
    truth = np.random.default_rng(1).random(40).repeat(2) > 0.5
    apart = told_by_look(looks, truth, [str(number) for number in range(80)])
    together = told_by_look(looks, truth, [str(number // 2) for number in range(80)])
    own = 2 * truth - 1.0
    assert (own * (apart - together)).mean() > 0.02  # a copy speaks for its own class


def test_the_share_of_lesion_ranks_pictures(engine, run: Run, tmp_path: Path) -> None:
    save_sorted_pictures(tmp_path)

    def by_corner(hu: np.ndarray, pixel_mm: float) -> np.ndarray:
        return np.stack([np.full(hu.shape, 0.2 if hu[0, 0] == hu.max() else 0.7), *np.zeros((2, *hu.shape))])

    engine("pictures", predict_slice=by_corner)
    code, shown, _ = run("pictures", "--root", tmp_path)
    assert code == 0 and "by the share of lesion: 40 scans ROC AUC 1.000" in shown


def test_mistakes_with_pictures_end_with_a_sentence(engine, run: Run, tmp_path: Path) -> None:
    save_sorted_pictures(tmp_path, positive=0)
    (tmp_path / "COVID").mkdir()
    engine("pictures", takes="picture", answers=frozenset({"diagnosis"}))
    code, _, said = run("pictures", "--root", tmp_path)
    assert code != 0 and "holds no pictures of both classes" in said
    engine("pictures")
    code, _, said = run("pictures", "--root", tmp_path)
    assert code != 0 and "does not read single slices" in said


def save_scans(root: Path, names: Sequence[str]) -> None:
    """Scans of soft tissue beside air, and label maps with more and more consolidation."""
    hu = np.random.default_rng(0).normal(40, 20, (20, 20, 20)).astype(np.int16)
    hu[..., 17:] -= 1000
    for number, name in enumerate(names):
        truth = np.zeros((20, 20, 20), np.uint8)
        truth[2:12, 2:12, 2:12] = 1
        truth[14:18, 2 : 2 + 3 * number, 2:8] = 2
        save(root / f"scans/{name}.nii.gz", hu, (8, 8, 8))
        save(root / f"masks/{name}_seg.nii.gz", truth, (8, 8, 8))


def finds_a_box(volume: Volume, progress: object) -> Prediction:
    lesions = np.zeros(volume.array.shape, np.uint8)
    lesions[2:12, 2:12, 7:17] = 1
    return Prediction(IDENTITY, lobes=lesions, lesions=lesions)


def test_lesions_of_volumes_by_hand(engine, run: Run, tmp_path: Path) -> None:
    save_scans(tmp_path, ["p1_a", "p1_b", "p2_a"])
    engine("volumes", predict=finds_a_box, answers=frozenset({"lesions"}))
    command = ["volumes", "--images", tmp_path / "scans", "--labels", tmp_path / "masks", "--suffix", "_seg"]
    command += ["--task", "lesions", "--json", tmp_path / "out.json"]
    code, shown, _ = run(*command, "--patient", "[^_]+")
    written = json.loads((tmp_path / "out.json").read_text())
    assert code == 0 and "3/2" in shown
    means = written["means"]
    assert means["ground_glass"]["dice"] == {"value": 0.5, "low": 0.5, "high": 0.5, "cases": 3, "patients": 2}
    assert means["consolidation"]["dice"]["value"] == pytest.approx(1 / 3)  # right only where there is none
    assert means["consolidation"]["hausdorff_95_mm"]["cases"] == 1  # elsewhere there is no surface to measure from
    assert written["empty_references"] == {"ground_glass": 0, "consolidation": 1, "infection": 0}
    voxels = [1000, 1000 + 4 * 3 * 6, 1000 + 4 * 6 * 6]
    assert means["infection"]["dice"]["value"] == pytest.approx(np.mean([1000 / (1000 + n) for n in voxels]))
    assert written["weights"]["trained_on"] == "nothing"
    assert run(*command, "--binary")[0] == 0
    assert list(json.loads((tmp_path / "out.json").read_text())["means"]) == ["infection"]


def test_one_part_of_a_split_is_measured(engine, run: Run, tmp_path: Path) -> None:
    save_scans(tmp_path, ["a", "b", "c"])
    split = tmp_path / "split.json"
    Split({"train": ("site/a",), "test": ("site/c", "site/gone"), "val": ("site/other",)}, 0, "x").write(split)
    engine("volumes", predict=finds_a_box, answers=frozenset({"lesions"}))
    command = ["volumes", "--images", tmp_path / "scans", "--labels", tmp_path / "masks", "--suffix", "_seg"]
    command += ["--task", "lesions", "--json", tmp_path / "new" / "out.json", "--split", split]
    assert run(*command)[0] == 0
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert {one["case"] for one in written["figures"]} == {"c"}
    told = shlex.split(written["command"])
    assert told[:4] == ["python", "-m", "training.evaluate", "volumes"] and "--task" in told
    assert (tmp_path / "scans").samefile(told[told.index("--images") + 1])
    assert not any(Path(word).is_absolute() for word in told), "nobody else has the folders of this machine"
    (told,) = read_evaluations(tmp_path / "new")
    assert (told.rows[0].what, told.rows[0].measure) == ("Ground-glass opacity", "Dice")
    assert told.rows[0].interval.value == pytest.approx(0.5) and told.weights == IDENTITY.sha256
    for part, sentence in (("val", 'is in the part "val" of split.json'), ("fold_1", 'has no part "fold_1"')):
        code, _, error = run(*command, "--part", part)
        assert code == 2 and sentence in error and error.endswith(".")


def test_a_bad_scan_is_listed_and_the_others_go_on(engine, run: Run, tmp_path: Path) -> None:
    save_scans(tmp_path, ["a", "b", "c", "d"])
    (tmp_path / "scans/b.nii.gz").write_bytes(b"damaged")
    save(tmp_path / "masks/c_seg.nii.gz", np.ones((20, 20, 20), np.uint8), (8, 8, 8), origin_mm=50)
    seen = []

    def predict(volume: Volume, progress: object) -> Prediction:
        seen.append(volume)
        if len(seen) > 1:
            raise NotChestCTError("Hardly any lung was found.")
        return finds_a_box(volume, progress)

    engine("volumes", predict=predict, answers=frozenset({"lobes"}))
    command = ["volumes", "--images", tmp_path / "scans", "--labels", tmp_path / "masks", "--suffix", "_seg"]
    code, shown, _ = run(*command, "--task", "lungs", "--json", tmp_path / "out.json")
    assert code == 2 and "3 of 4 could not be measured" in shown
    assert "c: c_seg.nii.gz lies on another grid than c.nii.gz; resample it to the scan." in shown
    written = json.loads((tmp_path / "out.json").read_text())
    assert set(written["failures"]) == {"b", "c", "d"} and written["means"]["lungs"]["dice"]["cases"] == 1


def test_the_tiny_bundle_on_volumes(constant_bundle: Path, run: Run, tmp_path: Path) -> None:
    save_scans(tmp_path, ["a"])
    tissue = np.ones((20, 20, 20), np.uint8)
    tissue[..., 17:] = 0
    save(tmp_path / "masks/a_seg.nii.gz", tissue, (8, 8, 8))
    command = ["volumes", "--images", tmp_path / "scans", "--labels", tmp_path / "masks", "--suffix", "_seg"]
    code, _, error = run(*command, "--task", "lungs", "--bundle", constant_bundle, "--save", tmp_path / "out.json")
    assert code == 0, error
    assert json.loads((tmp_path / "out.json").read_text())["means"]["lungs"]["dice"]["value"] > 0.8


def test_folders_that_do_not_belong_together(constant_bundle: Path, run: Run, tmp_path: Path) -> None:
    save_scans(tmp_path, ["a"])
    command = ["volumes", "--images", tmp_path / "scans", "--labels", tmp_path / "masks", "--task", "lungs"]
    code, _, error = run(*command, "--bundle", constant_bundle, "--suffix", "_other")
    assert code == 2 and error.startswith("No label map NAME_other in") and error.endswith("check both folders.")


def test_synthetic_cases(constant_bundle: Path, run: Run, tmp_path: Path) -> None:
    lobes = np.full((32, 32, 32), 5, np.uint8)  # what the constant network answers
    hu = np.full(lobes.shape, -800, np.int16)
    for seed, severity in ((0, 0), (1, 1), (2, 1)):
        truth = {"hu": hu, "lobes": lobes, "lesions": np.zeros_like(lobes), "labels": np.array([severity, 0])}
        np.savez(tmp_path / f"{seed}.npz", **truth, shape=np.array("first" if seed < 2 else "second"))
    code, shown, error = run("cases", "--cases", tmp_path, "--bundle", constant_bundle, "--json", tmp_path / "o.json")
    written = json.loads((tmp_path / "o.json").read_text())
    means = {name: one["dice"] for name, one in written["means"].items()}
    assert code == 0 and "right_lower 1.000 1.000 3/2 0" in shown and "/shapes where they have several" in shown, error
    assert "patients" not in shown
    assert means["lungs"]["value"] == means["infection"]["value"] == 1.0
    assert means["lobes"]["value"] == 1.0 and (means["lobes"]["cases"], means["lobes_heavy"]["cases"]) == (3, 2)
    severity = written["tasks"]["severity"]["measures"]
    assert severity["roc_auc"]["value"] == 0.5 and severity["expected_calibration_error"]["cases"] == 3
    assert "All scans are simulated" in shown and "Severe or not: 3 scans of 2 shapes; 2 severe, 1 not" in shown
    (told,) = read_evaluations(tmp_path)
    rows = {(row.what, row.measure): row.interval.value for row in told.rows}
    assert rows["severity (2 severe, 1 not)", "ROC AUC"] == 0.5
    assert ("diagnosis (No pneumonia 3, Other pneumonia 0, COVID-19 0)", "accuracy") in rows


def test_what_is_found_in_synthetic_scans_without_disease(engine, run: Run, tmp_path: Path) -> None:
    """Four scans, 0, 1, 3 and 50 % of their lungs found diseased; only the last one is."""
    lobes = np.repeat(np.arange(1, 6, dtype=np.uint8), 200).reshape(10, 10, 10)
    found = [np.arange(1000).reshape(lobes.shape) < 10 * percent for percent in (0, 1, 3, 50)]
    for seed, mask in enumerate(found):
        truth = {"hu": np.full(lobes.shape, -800 - seed, np.int16), "lobes": lobes, "labels": np.array([0, 0])}
        np.savez(tmp_path / f"{seed}.npz", **truth, lesions=(mask & (seed == 3)).astype(np.uint8))

    def predict(volume: Volume, progress: Progress) -> Prediction:
        return Prediction(IDENTITY, lobes=lobes, lesions=found[int(-800 - volume.array[0, 0, 0])].astype(np.uint8))

    engine("cases", predict=predict, answers=frozenset({"lobes", "lesions"}))
    code, shown, _ = run("cases", "--cases", tmp_path, "--json", tmp_path / "o.json")
    written = json.loads((tmp_path / "o.json").read_text())
    infection = written["means"]["infection"]
    assert code == 0 and written["empty_references"] == {**dict.fromkeys(written["means"], 0), "infection": 3}
    assert infection["dice"]["value"] == 0.5 and infection["dice_where_there"]["value"] == 1.0
    assert infection["dice_where_there"]["cases"] == 1 and "infection 0.500 1.000 4 3" in shown
    scans = [(one["affected_percent"], one["found_affected_percent"]) for one in written["scans"]]
    assert scans == [(0, 0), (0, 1), (0, 3), (50, 50)]
    (told,) = read_evaluations(tmp_path)
    rows = {(row.what, row.measure): row for row in told.rows}
    without = "affected percentage of lungs without disease"
    assert rows[without, "median"].interval.value == 1.0 and rows[without, "median"].interval.cases == 3
    assert rows[without, "95th percentile"].interval.value == pytest.approx(2.8)
    assert rows[without, "share of scans under 2 %"].interval.value == pytest.approx(2 / 3)
    error = rows["affected percentage of the lungs, its error in percentage points", "mean absolute error"]
    assert error.interval.value == pytest.approx(1.0)


def test_the_worst_synthetic_scans_are_drawn(engine, run: Run, tmp_path: Path) -> None:
    lobes = np.repeat(np.arange(1, 6, dtype=np.uint8), 1600).reshape(20, 20, 20)
    for seed in range(4):
        truth = {"hu": np.full(lobes.shape, -800 - seed, np.int16), "lobes": lobes, "labels": np.array([0, 0])}
        np.savez(tmp_path / f"{seed}.npz", **truth, lesions=np.zeros_like(lobes))

    def predict(volume: Volume, progress: Progress) -> Prediction:
        missed = int(-800 - volume.array[0, 0, 0])
        return Prediction(IDENTITY, lobes=np.where(lobes > missed, lobes, 0).astype(np.uint8))

    engine("cases", predict=predict, answers=frozenset({"lobes"}))
    drawn = tmp_path / "new" / "pictures"
    code, _, error = run("cases", "--cases", tmp_path, "--pictures", drawn, "--worst", "2")
    assert code == 0 and sorted(path.name for path in drawn.iterdir()) == ["synthetic_2.png", "synthetic_3.png"], error
    plain, true, found = np.split(np.asarray(Image.open(drawn / "synthetic_3.png")), 3, axis=1)
    assert plain.shape == (40, 20, 3) and np.ptp(plain, axis=2).max() == 0  # coronal above axial, without colours
    assert (true != plain).any(2).all() and 0 < (found != plain).any(2).mean() < 1

    engine("cases", answers=frozenset({"lesions"}))
    code, _, error = run("cases", "--cases", tmp_path, "--pictures", drawn)
    assert code == 2 and "gives no lobes" in error


def test_synthetic_cases_by_an_engine_without_lobes_and_one_that_refuses(engine, run: Run, tmp_path: Path) -> None:
    """What it gives is measured; what it refuses is told, and the other scans are measured."""
    lobes = np.full((8, 8, 8), 5, np.uint8)
    truth = {"hu": np.full(lobes.shape, -800, np.int16), "lobes": lobes, "lesions": (lobes > 0).astype(np.uint8)}
    np.savez(tmp_path / "0.npz", **truth, labels=np.array([0, 2]))
    np.savez(tmp_path / "1.npz", **{**truth, "hu": truth["hu"] - 100}, labels=np.array([0, 0]))

    def predict(volume: Volume, progress: Progress) -> Prediction:
        if volume.array.mean() < -850:
            raise NotChestCTError("No lungs were found.")
        assert volume.geometry.spacing_mm == (1.5, 1.5, 1.5)
        return Prediction(IDENTITY, lesions=truth["lesions"], lungs=np.ones_like(lobes), covid=0.8)

    engine("cases", predict=predict, answers=frozenset({"lesions", "diagnosis"}))
    code, shown, _ = run("cases", "--cases", tmp_path, "--spacing", "1.5", "--json", tmp_path / "o.json")
    written = json.loads((tmp_path / "o.json").read_text())
    assert code == 2 and "No lungs were found." in shown and list(written["failures"]) == ["synthetic/1"]
    assert set(written["means"]) == {"infection"} and written["means"]["infection"]["dice"]["value"] == 1.0
    assert written["tasks"]["covid"]["measures"]["sensitivity"]["value"] == 1.0


def test_no_synthetic_cases(constant_bundle: Path, run: Run, tmp_path: Path) -> None:
    code, _, error = run("cases", "--cases", tmp_path, "--bundle", constant_bundle)
    assert code == 2 and "holds no" in error and "python -m training.synthesis.cases" in error


# Cohorts


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """A small chest with lesions."""
    return make_phantom(1, (9.0, 8.0, 8.0), extent=0.2)


def save_cohort(root: Path, phantom: Phantom) -> Path:
    """Three scans of two patients, one of them truncated besides, and a row that names no file."""
    truth = phantom.volume
    for name in "abc":
        write_volume(truth, root / f"{name}.nii.gz")
    write_volume(truth.with_array(phantom.lobes), root / "lobes.nii.gz")
    write_volume(truth.with_array(phantom.lesions), root / "lesions.nii.gz")
    (root / "d.nii.gz").write_bytes((root / "c.nii.gz").read_bytes()[:2000])
    path = root / "manifest.csv"
    path.write_text(
        "image,patient,lobes,lesions,lesion_kind,severity,ct_grade,diagnosis,covid\n"
        "a.nii.gz,P,lobes.nii.gz,lesions.nii.gz,classes,severe,2,covid_19,\n"
        "b.nii.gz,P,lobes.nii.gz,none,,not_severe,0,no_pneumonia,\n"
        "c.nii.gz,Q,,,,not_severe,,,no\n"
        "d.nii.gz,R,,,,severe,1,,\n"
        "e.nii.gz,R,,,,severe,1,,\n"
    )
    return path


def test_a_cohort_from_a_manifest_to_figures(constant_bundle: Path, phantom: Phantom, run: Run, tmp_path: Path) -> None:
    manifest, output = save_cohort(tmp_path, phantom), tmp_path / "out"
    command = ["cohort", "--manifest", manifest, "--output", output, "--bundle", constant_bundle]
    code, shown, error = run(*command, "--json", tmp_path / "copy.json")
    assert code == 2 and error == ""
    assert "Severe or not: 3 scans of 2 patients" in shown
    assert "2 of 5 could not be measured" in shown and "d.nii.gz" in shown and "row 6: image e.nii.gz" in shown
    measured = json.loads((output / "measures.json").read_text())
    assert measured == json.loads((tmp_path / "copy.json").read_text())
    assert set(measured["tasks"]) == {
        "severity", "covid", "diagnosis", "ct_grade", "affected_percent", "affected_percent_without_disease",
    }  # fmt: skip
    # All scans look alike to this network: it ranks no better than chance, and finds no lesion.
    severity = measured["tasks"]["severity"]["measures"]
    assert severity["roc_auc"]["value"] == 0.5 and severity["roc_auc"]["cases"] == 3
    assert severity["roc_auc"]["patients"] == 2
    affected = 100 * ((phantom.lesions > 0) & (phantom.lobes > 0)).sum() / (phantom.lobes > 0).sum()
    percent = measured["tasks"]["affected_percent"]["measures"]
    assert percent["mean_absolute_error"]["value"] == pytest.approx(affected / 2)
    assert percent["spearman_rho"] is None
    assert measured["tasks"]["ct_grade"]["measures"]["mean_absolute_error"]["value"] == 1.0
    assert sum(one["cases"] for one in measured["tasks"]["covid"]["reliability"]) == 3
    (told,) = read_evaluations(tmp_path)
    shown_rows = {(row.what, row.measure): row.interval.value for row in told.rows}
    assert shown_rows["severity (1 severe, 2 not)", "ROC AUC"] == 0.5
    assert not any(measure == "spearman rho" and "affected" in what for what, measure in shown_rows)
    assert sum(one.cases for one in told.curves["covid"]) == 3 and "d" in " ".join(told.failures)
    lines = list(csv.DictReader((output / "cases.csv").read_text().splitlines()))
    assert [line["id"] for line in lines] == [f"manifest/{name}" for name in "abc"] + ["manifest.csv", "manifest/d"]
    assert float(lines[0]["affected_percent"]) == pytest.approx(affected)
    assert lines[2]["affected_percent"] == "" and lines[4]["problem"] != ""
    p = float(lines[0]["probability_severe"])
    assert severity["brier_score"]["value"] == pytest.approx(((1 - p) ** 2 + p**2 + p**2) / 3)
    picture = np.asarray(Image.open(output / "reliability.png").convert("RGB"))
    assert picture.shape[0] > 300 and picture.shape[1] > 2 * picture.shape[0] and picture.std() > 10


def test_a_cohort_goes_on_where_it_was(
    constant_bundle: Path, phantom: Phantom, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from COVIDMultitaskLib.engines.joint import JointEngine

    seen: list[tuple[int, ...]] = []
    predict = JointEngine.predict

    def counted(self, volume: Volume, progress: object) -> Prediction:
        seen.append(volume.array.shape)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return predict(self, volume, progress)

    monkeypatch.setattr(JointEngine, "predict", counted)
    manifest, output = save_cohort(tmp_path, phantom), tmp_path / "out"
    manifest.write_text("image,ct_grade\na.nii.gz,0\nb.nii.gz,1\nc.nii.gz,2\n")
    command = ["cohort", "--manifest", manifest, "--output", output, "--bundle", constant_bundle]
    assert run(*command)[0] == 130 and not (output / "measures.json").exists()
    assert run(*command)[0] == 0 and len(seen) == 4  # the first scan was kept
    first = (output / "measures.json").read_text()
    assert run(*command)[0] == 0 and len(seen) == 4
    assert (output / "measures.json").read_text() == first
    for path in (output / "kept").iterdir():
        path.write_text("{}")  # as a full disk or a crash might leave them
    assert run(*command)[0] == 0 and len(seen) == 7
    write_volume(phantom.volume, tmp_path / "a.nii.gz")  # another file of the same name
    assert run(*command)[0] == 0 and len(seen) == 8


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image\na.nii.gz\n", "manifest.csv tells nothing that the engine joint answers; fill severity,"),
        ("image,severity\nnone.nii.gz,severe\n", "No scan of manifest.csv could be analysed; see"),
        ("picture\na.nii.gz\n", "manifest.csv, row 1: the column picture is unknown"),
        (None, "does not exist; check the path."),
    ],
)
def test_mistakes_with_a_manifest_end_with_a_sentence(
    text: str | None, sentence: str, constant_bundle: Path, phantom: Phantom, run: Run, tmp_path: Path
) -> None:
    manifest = save_cohort(tmp_path, phantom)
    manifest.unlink() if text is None else manifest.write_text(text)
    command = ["cohort", "--manifest", manifest, "--output", tmp_path / "out", "--bundle", constant_bundle]
    code, _, error = run(*command)
    assert code == 2 and sentence in error


def test_a_cohort_whose_answers_cannot_be_kept_stops(constant_bundle: Path, phantom, run: Run, tmp_path: Path) -> None:
    manifest = save_cohort(tmp_path, phantom)
    (tmp_path / "out").write_text("a file")
    code, _, error = run("cohort", "--manifest", manifest, "--output", tmp_path / "out", "--bundle", constant_bundle)
    assert code == 2 and "cannot be created" in error

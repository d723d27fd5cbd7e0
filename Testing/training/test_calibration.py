"""Temperatures, the threshold of unlikeness, and what is made of scans that are no chest."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.errors import InputError, NotChestCTError
from COVIDMultitaskLib.inference.unlikeness import read_reference
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import check_chest_ct, to_hounsfield
from COVIDMultitaskLib.volume import Geometry, Volume
from Testing.library.simple_chest import chest_hu
from Testing.library.tiny_bundle import OVERVIEWED, RANDOM_NETWORK, random_network, write_tiny_bundle
from training.calibration import calibrate, calibrate_bundle, fit_temperature, fit_unlikeness, read_held_out
from training.calibration.__main__ import main
from training.calibration.foreign import Structures, of_a_chest, of_a_thorax, without_a_chest
from training.calibration.held_out import Labelled, show
from training.calibration.temperature import fold_of
from training.calibration.unlikeness import shrunk_covariance
from training.calibration.verdicts import Verdict, rows
from training.data.dataset import Case
from training.data.record import KNOWN_EMPTY, LESION_OF_ANY_KIND, NOT_ANNOTATED, LesionKind, Record
from training.engines.boxes import mask_in, upright_volume
from training.evaluate.results import read_evaluations

SPACING_MM = 8.0


def overconfident(count: int, factor: float, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``factor`` times too large for the truth drawn by them."""
    chance = np.random.default_rng(seed)
    logits = 1.5 * chance.standard_normal((count, classes))
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (probability.cumsum(1) > chance.random((count, 1))).argmax(1)
    return factor * logits, truth


def labelled(count: int, factor: float, rows_of_a_patient: int = 1) -> Labelled:
    logits, truth = overconfident(count, factor)
    return Labelled(logits, truth, np.arange(count) // rows_of_a_patient)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 8.0), st.integers(0, 100))
def test_the_temperature_is_what_the_logits_are_too_large_by(factor: float, seed: int) -> None:
    logits, truth = overconfident(20_000, factor, seed=seed)
    assert fit_temperature(logits, truth) == pytest.approx(factor, rel=0.06)


def test_no_other_temperature_is_better() -> None:
    logits, truth = overconfident(300, 3.0)
    scores, target = torch.from_numpy(logits), torch.from_numpy(truth)
    best = fit_temperature(logits, truth)
    losses = {t: float(torch.nn.functional.cross_entropy(scores / t, target)) for t in (best, 0.9 * best, 1.1 * best)}
    assert min(losses, key=losses.__getitem__) == best


def test_calibration_mends_what_it_did_not_see() -> None:
    found = calibrate("diagnosis", labelled(4000, 4.0))
    assert found.before.ece > 0.15 and found.after.ece < 0.04
    assert found.after.nll < found.before.nll


def test_well_calibrated_answers_stay() -> None:
    found = calibrate("diagnosis", labelled(4000, 1.0))
    assert found.temperature == pytest.approx(1.0, abs=0.06)
    assert found.after.nll == pytest.approx(found.before.nll, abs=2e-3)


def test_the_measure_is_honest_where_each_patient_differs() -> None:
    """All rows of a patient are alike, so that a temperature fitted on them would look better than it is."""
    chance = np.random.default_rng(1)
    logits = 6 * np.repeat(chance.standard_normal((12, 2)), 50, axis=0)
    truth = np.repeat(chance.integers(0, 2, 12), 50)
    found = calibrate("severity", Labelled(logits, truth, np.repeat(np.arange(12), 50)))
    seen = logits / fit_temperature(logits, truth)
    nll_seen = float(torch.nn.functional.cross_entropy(torch.from_numpy(seen), torch.from_numpy(truth)))
    assert found.after.nll > nll_seen


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_temperature_that_helps_nobody_else_is_not_taken(seed: int) -> None:
    logits, truth = overconfident(20, 1.0, classes=2, seed=seed)
    if len(np.unique(truth)) < 2:
        return
    found = calibrate("severity", Labelled(logits, truth, np.arange(20)))
    if found.after.nll >= found.before.nll:
        assert found.temperature == 1.0
    else:
        assert found.temperature == fit_temperature(logits, truth)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=200), st.integers(2, 7))
def test_no_patient_is_in_two_folds(patients: list[int], folds: int) -> None:
    names = np.array(patients)
    parts = fold_of(names, folds)
    assert np.array_equal(np.sum(parts, 0), np.ones(len(names)))
    for number, part in enumerate(parts):
        for other in parts[number + 1 :]:
            assert not set(names[part]) & set(names[other])


def test_too_few_patients_are_refused() -> None:
    few = labelled(90, 1.0, rows_of_a_patient=10)
    with pytest.raises(InputError, match="Only 9 held-out patients have the label severity and 10 are needed"):
        calibrate("severity", few)
    with pytest.raises(InputError, match="Only 0 held-out patients have the label lobes"):
        calibrate("lobes", None)
    one_class = Labelled(np.zeros((20, 2)), np.zeros(20, int), np.arange(20))
    with pytest.raises(InputError, match="All held-out scans have the same severity"):
        calibrate("severity", one_class)


# ---- unlikeness ------------------------------------------------------------------------------------------


def related(count: int, features: int = 12, seed: int = 0) -> np.ndarray:
    """Features that go together, as those of a network do."""
    chance = np.random.default_rng(seed)
    mixed = chance.standard_normal((3, features))
    return chance.standard_normal((count, 3)) @ mixed + 0.2 * chance.standard_normal((count, features))


def test_the_false_alarms_are_what_was_asked_for() -> None:
    rows = related(4000)
    fit = fit_unlikeness(rows[:400], np.arange(400), 12, rate=0.05)
    reference = read_reference(fit.settings)
    fresh = np.mean([reference.score(row) > reference.threshold for row in rows[400:]])
    assert fit.false_alarms <= 0.05
    assert 0.02 < fresh < 0.09


def test_what_breaks_the_relation_is_far_away_though_each_feature_is_usual() -> None:
    rows = related(400)
    reference = read_reference(fit_unlikeness(rows, np.arange(400), 12).settings)
    chance = np.random.default_rng(5)
    shuffled = [[chance.choice(column) for column in rows.T] for _ in range(50)]
    assert np.mean([reference.score(np.array(row)) > reference.threshold for row in shuffled]) > 0.9


def test_the_shrunk_covariance_keeps_variances_and_is_positive_with_few_rows() -> None:
    rows = related(8)
    covariance, weight = shrunk_covariance(rows)
    assert 0 < weight < 1
    assert np.allclose(np.diag(covariance), rows.var(0, ddof=1))
    assert np.linalg.eigvalsh(covariance).min() > 0 > np.linalg.eigvalsh(np.cov(rows.T)).min() - 1e-9
    _, weight_of_many = shrunk_covariance(related(5000))
    assert weight_of_many < 0.05 < weight
    independent = np.random.default_rng(0).standard_normal((200, 10))
    assert shrunk_covariance(independent)[1] > 0.7


# ---- what a network says of held-out cases ---------------------------------------------------------------


def case(number: int, **others) -> Case:
    hu = torch.from_numpy(chest_hu((32, 32, 32), (SPACING_MM,) * 3).astype(np.float32))
    lobes = torch.where(hu < -500, 1 + number % 5, 0).to(torch.uint8)
    lesions = torch.where((hu < -500) & (torch.arange(32) > 20), 1, 0).to(torch.uint8)
    record = Record(
        id=f"made-up/{number}",
        source="made-up",
        licence="",
        patient_id=f"patient {number // 2}",
        lobes=KNOWN_EMPTY,
        lesions=KNOWN_EMPTY,
        lesion_kind=LesionKind.CLASSES,
        severity=("not_severe", "severe")[number % 2],
        diagnosis=("no_pneumonia", "covid_19")[number % 2],
    )
    given = {"lobes": lobes, "lesions": lesions, **others}
    return Case(record, hu, **given)


def test_missing_labels_stay_out_of_their_heads_rows() -> None:
    whole, no_lobes = case(0), case(1, lobes=None)
    any_kind = case(2, lesions=torch.full_like(whole.lesions, LESION_OF_ANY_KIND))
    unknown = case(3)
    unknown = replace(unknown, record=replace(unknown.record, severity=None, diagnosis=None, covid=None))
    held_out = read_held_out(random_network(), [whole, no_lobes, any_kind, unknown], SPACING_MM)
    assert held_out.descriptors.shape[0] == 4
    assert list(held_out.patients) == ["patient 0", "patient 0", "patient 1", "patient 1"]
    assert held_out.heads["severity"].truth.tolist() == [0, 1, 0]
    assert set(held_out.heads["lobes"].truth) == {0, 1, 3, 4}  # none of the second case's
    assert set(held_out.heads["lesions"].truth) <= {0, 1}
    assert set(held_out.heads["lesions"].patients) == {"patient 0", "patient 1"}


@pytest.mark.parametrize("arguments", [RANDOM_NETWORK, OVERVIEWED])
def test_a_case_is_shown_as_the_engine_shows_a_scan(tmp_path: Path, arguments: dict) -> None:
    """In the box around the lungs that it finds, not with the air that a simulated scan is padded with."""
    from COVIDMultitaskLib.bundles import open_bundle
    from COVIDMultitaskLib.engines.joint import JointEngine

    network, told = random_network(seed=2, arguments=arguments), {"spacing_mm": SPACING_MM, "network": arguments}
    engine = JointEngine(open_bundle(write_tiny_bundle(tmp_path / "b", network=network, inference=told)), "cpu")
    one = case(0)
    hu = torch.nn.functional.pad(one.hu, (0, 0, 0, 0, 0, 64), value=-1024.0)
    look, read = show(network.eval(), Case(one.record, hu), SPACING_MM)
    found = engine.find(upright_volume(hu, SPACING_MM), Progress())
    assert look.grid.shape == found.look.grid.shape and look.grid.origin_mm == found.look.grid.origin_mm
    assert look.grid.shape[0] < hu.shape[0]
    torch.testing.assert_close(look.segmentation.lobes, found.look.segmentation.lobes, atol=2e-2, rtol=0)
    torch.testing.assert_close(read.diagnosis, found.read.diagnosis, atol=2e-2, rtol=0)


def test_beyond_a_case_nothing_is_annotated() -> None:
    scan = Geometry((4, 4, 4), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    box = Geometry((6, 4, 4), (2.0, 2.0, 2.0), (0.0, 0.0, -2.0))
    mask = torch.ones(4, 4, 4, dtype=torch.uint8)
    assert mask_in(mask, scan, box, NOT_ANNOTATED)[:, 0, 0].tolist() == [NOT_ANNOTATED, 1, 1, 1, 1, NOT_ANNOTATED]
    assert mask_in(mask, scan, box)[:, 0, 0].tolist() == [1] * 6


def test_voxels_that_nobody_annotated_do_not_count() -> None:
    one = case(0)
    one.lesions[:16] = NOT_ANNOTATED
    held_out = read_held_out(random_network(), [one], SPACING_MM)
    assert held_out.heads["lesions"].truth.max() <= 1


def test_a_bundle_made_from_too_few_scans_says_so_and_works() -> None:
    network = random_network()
    found = calibrate_bundle(read_held_out(network, [case(0), case(1)], SPACING_MM), network.classifier_channels)
    assert set(found.settings["temperature"].values()) == {1.0}
    assert len(found.notes) == 5 and all("are needed to" in note for note in found.notes)
    assert read_reference(found.settings["unlikeness"]).threshold > 0


def test_the_settings_fit_into_a_bundle(tmp_path: Path) -> None:
    from COVIDMultitaskLib.bundles import open_bundle
    from COVIDMultitaskLib.engines.joint import JointEngine

    network = random_network()
    chance = np.random.default_rng(0)
    cases = [case(number) for number in range(20)]
    cases = [replace(one, hu=one.hu + float(chance.normal(0, 40))) for one in cases]
    found = calibrate_bundle(read_held_out(network, cases, SPACING_MM), network.classifier_channels)
    assert not found.notes and set(found.heads) == {"lobes", "lesions", "severity", "diagnosis"}
    told = json.loads(json.dumps(found.settings))
    engine = JointEngine(open_bundle(write_tiny_bundle(tmp_path / "b", network=network, inference=told)), "cpu")
    assert engine.settings.temperature == found.settings["temperature"]
    assert engine.settings.unlikeness.threshold == found.settings["unlikeness"]["threshold"]


# ---- what is no chest ------------------------------------------------------------------------------------


def refused_unseen(volume: Volume) -> bool:
    try:
        check_chest_ct(to_hounsfield(volume))
    except (NotChestCTError, InputError):
        return True
    return False


def test_what_needs_no_network_is_refused_before_it() -> None:
    refused = {one.name for one in without_a_chest() if refused_unseen(one.volume)}
    assert refused >= {"white noise", "uniform noise", "water phantom", "rod phantom", "head", "legs", "empty table"}


def test_a_chest_is_altered_as_its_name_says() -> None:
    shape, spacing = (40, 48, 56), (7.0, 7.0, 7.0)
    hu = chest_hu(shape, spacing)
    hu[:5] = 55  # what lies at the feet
    chest = Volume(hu[::-1], Geometry(shape, spacing, (0, 0, 0), np.eye(3)[:, ::-1] * [-1, 1, 1]))
    scans = {one.name.removeprefix("c: "): one for one in of_a_chest("c", chest)}
    assert scans["c"].volume is chest and scans["c"].kind == "chest"
    assert not refused_unseen(chest)
    assert np.array_equal(scans["lower third"].volume.array, hu[:13])
    assert np.array_equal(scans["mirrored top-down"].volume.array, hu[::-1])
    assert scans["left half"].volume.array.shape == (40, 48, 28)
    assert scans["a quarter of the size"].volume.geometry.spacing_mm == (1.75, 1.75, 1.75)
    for name in ("MR-like", "stored with offset 1024", "a quarter of the size"):
        assert refused_unseen(scans[name].volume), name
    for name in ("mirrored left-right", "8-bit window"):
        assert not refused_unseen(scans[name].volume), name


def test_single_organs_of_a_painted_thorax_are_refused_and_the_thorax_is_not(shared_data: Path) -> None:
    from COVIDMultitaskLib.reading import read_label_map

    names = json.loads((shared_data / "thorax" / "s0327_structures.json").read_text())
    label_map = read_label_map(shared_data / "thorax" / "s0327_structures.nii.gz")
    thorax = Structures.of(label_map, {int(value): name for value, name in names.items()})
    refused = {one.name: refused_unseen(one.volume) for one in of_a_thorax(thorax)}
    assert not refused["painted thorax"]
    assert all(refused[name] for name in refused if name.endswith("alone"))


def test_verdicts_name_what_fared_wrong() -> None:
    fared = [("foam", "foreign", "passed"), ("head", "foreign", "refused"), ("legs", "foreign", "refused"),
             ("c: inverted", "altered", "passed"), ("c", "chest", "passed"), ("d", "chest", "flagged")]  # fmt: skip
    told = [(row.what, row.measure, row.figure, row.interval.cases)
            for row in rows([Verdict(*one, None, ()) for one in fared])]  # fmt: skip
    assert told == [
        ("no chest CT", "refused", "2", 3),
        ("no chest CT", "flagged", "0", 3),
        ("no chest CT", "passed silently: foam", "1", 3),
        ("altered chest", "refused", "0", 1),
        ("altered chest", "flagged", "0", 1),
        ("altered chest", "passed silently: c: inverted", "1", 1),
        ("chest as it is", "refused", "0", 2),
        ("chest as it is", "flagged: d", "1", 2),
        ("chest as it is", "passed silently", "1", 2),
    ]


def test_the_command_judges_what_is_no_chest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [one for one in without_a_chest() if one.name in ("white noise", "water phantom")]
    monkeypatch.setattr("training.calibration.__main__.without_a_chest", lambda: few)
    bundle, saved = write_tiny_bundle(tmp_path / "bundle"), tmp_path / "told" / "foreign.json"
    main(["foreign", "--bundle", str(bundle), "--json", str(saved)])
    assert "foreign: 2, of which 2 refused, 0 flagged, 0 passed" in capsys.readouterr().out
    (told,) = read_evaluations(saved.parent)
    assert told.command.startswith("python -m training.calibration foreign --bundle") and len(told.weights) == 64
    assert (told.rows[0].measure, told.rows[0].figure) == ("refused", "2")
    assert [one["name"] for one in json.loads(saved.read_text())["verdicts"]] == ["white noise", "water phantom"]


def test_the_command_prints_the_calibration(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    for number in range(12):
        one = case(number)
        arrays = {"hu": one.hu.numpy().astype(np.int16), "lobes": one.lobes.numpy(), "lesions": one.lesions.numpy()}
        np.savez(folder / f"{number}.npz", **arrays, labels=np.array([number % 2, number % 3]))
    bundle = write_tiny_bundle(tmp_path / "bundle", network=random_network())
    command = ["-m", "training.calibration", "held-out", "--cases", str(folder), "--bundle", str(bundle)]
    saved = tmp_path / "calibration.json"
    done = subprocess.run(
        [sys.executable, *command, "--save", str(saved)], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "unlike the training data above" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[1:5]] == ["lobes", "lesions", "severity", "diagnosis"]
    assert set(json.loads(saved.read_text())) == {"temperature", "unlikeness"}

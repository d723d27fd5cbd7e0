"""Weight bundles: whole and as published, or refused in one sentence before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from COVIDMultitaskLib import bundles
from COVIDMultitaskLib.bundles import FILES, INFERENCE, METADATA, SUMS, WEIGHTS, open_bundle, write_sums
from COVIDMultitaskLib.engines.registry import ENGINES, engine_rows, make_engine
from COVIDMultitaskLib.errors import BundleError
from Testing.library.tiny_bundle import RANDOM_NETWORK, random_network, write_tiny_bundle


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def republished(bundle: Path, name: str, content: object) -> Path:
    """With another file, and checksums to match."""
    text = content if isinstance(content, (bytes, str)) else json.dumps(content)
    (bundle / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    write_sums(bundle)
    return bundle


def with_settings(bundle: Path, **settings: object) -> Path:
    """Republished with other settings in inference.json; None removes one."""
    content = {**json.loads((bundle / INFERENCE).read_text()), **settings}
    return republished(bundle, INFERENCE, {key: value for key, value in content.items() if value is not None})


def with_metadata(bundle: Path, own: dict | None = None, **entries: object) -> Path:
    """Republished with other metadata; None removes an entry."""
    content = json.loads((bundle / METADATA).read_text())
    ours = {**content["covid_multitask"], **(own or {})}
    content = {**content, "covid_multitask": {k: v for k, v in ours.items() if v is not None}, **entries}
    return republished(bundle, METADATA, {key: value for key, value in content.items() if value is not None})


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(BundleError) as refused:
        act()
    sentence = str(refused.value)
    assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence
    return sentence


def test_a_whole_bundle_opens(tiny_bundle: Path) -> None:
    opened = open_bundle(str(tiny_bundle))
    assert opened.identity.engine == "joint" and opened.identity.bundle == "tiny"
    assert opened.identity.sha256 == next(
        line.split()[0] for line in (tiny_bundle / SUMS).read_text().splitlines() if line.endswith(WEIGHTS)
    )
    weights, expected = opened.weights(), random_network().state_dict()
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(value.float()) for name, value in expected.items())


def test_weights_in_half_precision_come_as_float32(bundle: Path) -> None:
    import torch
    from safetensors.torch import save

    halves = {name: value.half() for name, value in random_network().state_dict().items()}
    opened = open_bundle(republished(bundle, WEIGHTS, save(halves)))
    assert {value.dtype for value in opened.weights().values()} == {torch.float32}


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_sums_are_those_of_sha256sum(bundle: Path) -> None:
    check = ["sha256sum", "--check", "--strict", SUMS]
    done = subprocess.run(check, cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(FILES)
    for option in ("--text", "--binary"):
        written = subprocess.run(["sha256sum", option, *FILES], cwd=bundle, capture_output=True, check=True).stdout
        (bundle / SUMS).write_bytes(written)
        assert open_bundle(bundle).identity.bundle == "tiny"


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert refusal(lambda: open_bundle(bundle)).endswith(f"({name} missing); give a bundle's folder.")


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_folder_in_a_files_place(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()
    assert name in refusal(lambda: open_bundle(bundle))


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_no_bundle_at_all(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    assert "is no complete weight bundle" in refusal(lambda: open_bundle(tmp_path / place))


@pytest.mark.parametrize("spoil", ["one bit", "truncated", "longer", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_the_published_one(bundle: Path, name: str, spoil: str) -> None:
    content = (bundle / name).read_bytes()
    middle = len(content) // 2
    spoilt = {
        "one bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "truncated": content[:-1],
        "longer": content + b"\n",
        "empty": b"",
    }[spoil]
    (bundle / name).write_bytes(spoilt)
    sentence = refusal(lambda: open_bundle(bundle))
    assert sentence.startswith(f"{name} of the bundle bundle is not the file that was published")


@pytest.mark.parametrize("line", range(len(FILES)))
@pytest.mark.parametrize("spoil", ["left out", "another digest"])
def test_a_list_of_sums_that_does_not_vouch_for_every_file(bundle: Path, line: int, spoil: str) -> None:
    lines = (bundle / SUMS).read_text().splitlines()
    lines[line : line + 1] = [] if spoil == "left out" else [f"{'0' * 64}  {lines[line].split()[1]}"]
    (bundle / SUMS).write_text("\n".join(lines))
    assert "is not the file that was published" in refusal(lambda: open_bundle(bundle))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe\x00", b"a\nb\nc"])
def test_a_damaged_list_of_sums(bundle: Path, content: bytes) -> None:
    (bundle / SUMS).write_bytes(content)
    assert "install the bundle again" in refusal(lambda: open_bundle(bundle))


@pytest.mark.parametrize("name", [METADATA, WEIGHTS, SUMS])
def test_a_file_that_may_not_be_read(bundle: Path, name: str, unprivileged) -> None:
    (bundle / name).chmod(0)
    with unprivileged(bundle):
        assert "cannot be read (Permission denied)" in refusal(lambda: open_bundle(bundle))


def test_a_bundle_in_a_closed_folder(bundle: Path, unprivileged) -> None:
    closed = bundle.parent / "closed"
    closed.mkdir(mode=0o000)
    bundle.rename(closed / "bundle")
    with unprivileged(closed.parent):
        assert "cannot be read (Permission denied)" in refusal(lambda: open_bundle(closed / "bundle"))


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[1, 2]", b"null", b"[" * 100_000])
@pytest.mark.parametrize("name", [METADATA, INFERENCE])
def test_published_with_broken_json(bundle: Path, name: str, content: bytes) -> None:
    assert "JSON" in refusal(lambda: open_bundle(republished(bundle, name, content)))


@pytest.mark.parametrize("number", [2, 99, "1.5", 0, None, [1]])
def test_another_format(bundle: Path, number: object) -> None:
    sentence = refusal(lambda: open_bundle(with_metadata(bundle, {"format": number})))
    assert "was made for another version of this software; update COVIDMultitask" in sentence


@pytest.mark.parametrize("missing", ["engine", "trained_on", "licence"])
@pytest.mark.parametrize("value", [None, "", 7, ["a"]])
def test_metadata_that_does_not_say_who_it_is(bundle: Path, missing: str, value: object) -> None:
    assert f"does not tell its {missing}" in refusal(lambda: open_bundle(with_metadata(bundle, {missing: value})))


@pytest.mark.parametrize("ours", [{}, [], "x", None, 3])
def test_metadata_of_someone_elses_bundle(bundle: Path, ours: object) -> None:
    sentence = refusal(lambda: open_bundle(with_metadata(bundle, covid_multitask=ours)))
    assert "does not tell its engine, trained_on, licence" in sentence


@pytest.mark.parametrize(("entry", "called"), [("name", "bundle"), ("version", "version")])
def test_metadata_without_name_or_version(bundle: Path, entry: str, called: str) -> None:
    assert f"does not tell its {called};" in refusal(lambda: open_bundle(with_metadata(bundle, **{entry: None})))


def test_a_bundle_for_another_engine(bundle: Path) -> None:
    with_metadata(bundle, {"engine": "sixth"})
    assert "is for the unknown engine 'sixth'" in refusal(lambda: make_engine(None, bundle))
    assert "is for the engine sixth, not for joint" in refusal(lambda: make_engine("joint", bundle))


def test_an_unknown_engine(bundle: Path) -> None:
    assert "There is no engine 'resnet'; choose one of " in refusal(lambda: make_engine("resnet"))
    assert "There is no engine 'resnet'" in refusal(lambda: make_engine("resnet", bundle))


@pytest.mark.parametrize(
    "settings",
    [
        {"network": None},
        {"network": [4, 4, 8, 8]},
        {"spacing_mm": None},
        {"spacing_mm": 0},
        {"spacing_mm": -2.5},
        {"spacing_mm": 0.001},
        {"spacing_mm": "wide"},
        {"spacing_mm": [2.5]},
        {"spacing_mm": float("nan")},
        {"temperature": None},
        {"temperature": {"severity": 1.0}},
        {"temperature": {"severity": 1.0, "diagnosis": 0.0}},
        {"temperature": 1.0},
        {"unlikeness": None},
        {"unlikeness": {"mean": [0.0], "deviation": [1.0]}},
        {"unlikeness": {"mean": [0.0], "deviation": [0.0], "threshold": 3.0}},
        {"unlikeness": {"mean": [0.0, 1.0], "deviation": [1.0], "threshold": 3.0}},
        {"unlikeness": {"mean": [], "deviation": [], "threshold": 3.0}},
        {"unlikeness": {"mean": [float("inf")], "deviation": [1.0], "threshold": 3.0}},
    ],
)
def test_settings_that_make_no_sense_are_refused_before_a_scan_is_read(bundle: Path, settings: dict) -> None:
    sentence = refusal(lambda: make_engine(None, with_settings(bundle, **settings), "cpu"))
    assert sentence.startswith(f"{INFERENCE} of the bundle bundle lacks a setting or holds a wrong one")


@pytest.mark.parametrize(
    "network",
    [
        {"channels": [8, 8, 8, 8], "classifier_channels": 4},
        {"channels": [4, 4, 8, 8], "classifier_channels": 5},
        {"channels": [4, 4, 8]},
        {"channels": [4, 4, 8, 8, 8]},
        {"channels": [10**9] * 4},
        {"channels": [10**15] * 4},
        {"channels": "many"},
        {"channels": [-4, 4, 8, 8]},
        {"channels": None},
        {"depth": 4},
        {},
    ],
)
def test_weights_of_a_network_of_another_shape(bundle: Path, network: dict) -> None:
    """Also one that would not fit into any memory: nothing is made before it is known to fit."""
    engine = make_engine(None, with_settings(bundle, network=network), "cpu")
    assert "do not fit its network; install the bundle again" in refusal(engine.load)


def test_a_reference_longer_than_the_descriptor(bundle: Path) -> None:
    long = {"mean": [0.0] * 500, "deviation": [1.0] * 500, "threshold": 3.0}
    assert "do not fit" in refusal(make_engine(None, with_settings(bundle, unlikeness=long), "cpu").load)


def test_tensors_missing_or_too_many(bundle: Path) -> None:
    from safetensors.torch import save

    weights = random_network().state_dict()
    fewer = {name: value for name, value in weights.items() if name != "lobe_head.bias"}
    more = {**weights, "extra": weights["lobe_head.bias"].clone()}
    for tensors in (fewer, more):
        assert "do not fit" in refusal(make_engine(None, republished(bundle, WEIGHTS, save(tensors)), "cpu").load)


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "text", "empty", "header too long"])
def test_weights_that_are_no_safetensors_are_never_run(bundle: Path, tmp_path: Path, kind: str) -> None:
    import io

    import torch

    trace, buffer = tmp_path / "executed", io.BytesIO()
    torch.save({"lobe_head.bias": Bomb(trace)}, buffer)
    content = {
        "pickle": pickle.dumps(Bomb(trace)),
        "torch": buffer.getvalue(),
        "text": b"nothing of the sort",
        "empty": b"",
        "header too long": (2**62).to_bytes(8, "little") + b"{}",
    }[kind]
    engine = make_engine(None, republished(bundle, WEIGHTS, content), "cpu")
    assert "cannot be read; install the bundle again" in refusal(engine.load)
    assert not trace.exists()


@pytest.mark.parametrize("key", ["_target_", "_requires_", "_mode_"])
@pytest.mark.parametrize("where", ["network", "top"])
def test_nothing_a_bundle_names_is_ever_called(bundle: Path, tmp_path: Path, key: str, where: str) -> None:
    """MONAI's own bundles name Python functions to call; ours are data."""
    trace = tmp_path / "executed"
    call = {key: "os.system", "command": f"touch {trace}", "_desc_": f"$open({str(trace)!r}, 'w')"}
    settings = {"network": {**RANDOM_NETWORK, **call}} if where == "network" else call
    engine = make_engine(None, with_settings(bundle, **settings), "cpu")
    if where == "network":
        assert "do not fit" in refusal(engine.load)
    else:
        engine.load()
    assert not trace.exists()


def test_weights_changed_after_the_check_are_not_loaded(bundle: Path) -> None:
    from safetensors.torch import save

    engine = make_engine(None, bundle, "cpu")
    (bundle / WEIGHTS).write_bytes(save(random_network(seed=1).state_dict()))
    assert "were changed" in refusal(engine.load)


def test_shipped_bundles_are_found_by_their_engine(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bundles, "resource", lambda *parts: tmp_path.joinpath(*parts))
    for name, engine in (("a", "sixth"), ("b", "joint"), (".c.partial", "triage")):
        write_tiny_bundle(tmp_path / "Bundles" / name, name, own={"engine": engine})
    assert [path.name for path in bundles.shipped_bundles()] == ["a", "b"]
    assert bundles.shipped_bundle("joint").identity.bundle == "b"
    assert make_engine().identity.bundle == "b"
    assert [row["bundle"] for row in engine_rows()][:2] == ["b", "a"]
    assert "No weights for the engine 'triage' are installed" in refusal(lambda: bundles.shipped_bundle("triage"))
    monkeypatch.setitem(ENGINES, "triage", SimpleNamespace)
    assert "No weights" in refusal(lambda: make_engine("triage"))


def test_a_shipped_bundle_that_is_damaged_is_said_to_be(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bundles, "resource", lambda *parts: tmp_path.joinpath(*parts))
    (tmp_path / "Bundles").mkdir()
    assert "No weights for the engine 'joint'" in refusal(lambda: make_engine())
    bundle = write_tiny_bundle(tmp_path / "Bundles" / "joint")
    (bundle / "LICENSE").write_text("changed")
    assert "is not the file that was published" in refusal(lambda: make_engine())
    (bundle / METADATA).write_text("{")
    assert "cannot be read as JSON" in refusal(lambda: make_engine())


# -- the weights that ship, mature or not

SHIPPED = bundles.shipped_bundles()
of_each_that_ships = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)


@pytest.mark.skipif(not SHIPPED, reason="no weights are in Resources/Bundles (training/export.py makes them)")
def test_every_engine_has_weights_and_all_together_are_small() -> None:
    """At most 60 MB, whatever lies in their folders; those of the default engine at most 25 MB."""
    assert {open_bundle(path).identity.engine for path in SHIPPED} == set(ENGINES)
    size = {path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in SHIPPED}
    assert sum(size.values()) <= 60e6 and size["joint"] <= 25e6, size


@of_each_that_ships
def test_its_checksums_are_of_all_its_files(path: Path) -> None:
    """Nothing lies there that nobody vouches for."""
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    listed = dict(reversed(line.split(maxsplit=1)) for line in (path / SUMS).read_text().splitlines())
    assert set(listed) == files - {SUMS} and set(FILES) <= files
    for name, digest in listed.items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest, name
    assert open_bundle(path).identity.sha256 == listed[WEIGHTS]


@of_each_that_ships
def test_its_weights_fit_the_engine_that_it_names(path: Path) -> None:
    opened = open_bundle(path)
    engine = make_engine(None, path, "cpu")
    assert engine.name == opened.identity.engine and engine.identity == opened.identity
    parameters = sum(one.numel() for one in engine.load().parameters())
    assert opened.metadata["covid_multitask"]["parameters"] == parameters


@of_each_that_ships
def test_its_card_and_its_licence_say_what_its_metadata_do(path: Path) -> None:
    told = open_bundle(path)
    identity, card = told.identity, (path / bundles.CARD).read_text(encoding="utf-8")
    assert card.startswith(f"# Model card: {identity.bundle} {identity.version}\n") and identity.bundle == path.name
    assert f"The bundle's licence is the strictest of these: {identity.licence}." in card
    assert "Research only; not a medical device." in card and "simulat" in card
    assert not re.search(r"[ `]/\w+/", card), "a card names no folder of the machine that made it"
    family, _, number = identity.licence.removeprefix("CC-").lower().rpartition("-")
    words = f"creativecommons.org/licenses/{family}/{number}" if "CC-" in identity.licence else "research only"
    text = (path / bundles.LICENCE).read_text(encoding="utf-8")
    assert words in text and "without any warranty" in " ".join(text.split())


@of_each_that_ships
def test_its_row_tells_a_time_below_ninety_seconds(path: Path) -> None:
    """Measured by Testing/benchmarks/analyze.py for the reference scan on two cores."""
    (row,) = (row for row in engine_rows() if row["bundle"] == path.name)
    assert 0 < row["seconds"] <= 90
    assert row["quality"] and row["licence"] and "simulated scans" in row["trained_on"]
    assert row["answers"] == sorted(ENGINES[row["engine"]].answers)

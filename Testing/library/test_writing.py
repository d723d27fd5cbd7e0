"""Results on disk: whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from COVIDMultitaskLib.errors import Cancelled, OutputError
from COVIDMultitaskLib.reading import read_label_map
from COVIDMultitaskLib.volume import Geometry, Volume
from COVIDMultitaskLib.writing import VOLUME_SUFFIXES, OutputFolder, write_bytes, write_json, write_text, write_volume

RESULTS = ["lobes.nrrd", "lesions.nrrd", "findings.json"]


def random_labels(shape=(64, 128, 128), top=256) -> Volume:
    labels = np.random.default_rng(0).integers(0, top, shape).astype(np.uint8)
    return Volume(labels, Geometry(shape, (2.0, 1.0, 1.0), (1, 2, 3)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_masks_are_written_as_bytes(tmp_path: Path, suffix: str) -> None:
    volume = random_labels((5, 6, 7), 2)
    write_volume(volume.with_array(volume.array == 1), tmp_path / f"mask{suffix}")
    got = read_label_map(tmp_path / f"mask{suffix}")
    assert got.array.dtype == np.uint8
    assert np.array_equal(got.array, volume.array)


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_slices_of_an_array_are_written_right(tmp_path: Path, suffix: str) -> None:
    volume = random_labels((9, 12, 14))
    view = volume.array[::-1, ::2, 1::3].swapaxes(1, 2)
    write_volume(Volume(view, Geometry(view.shape, (2, 1, 1), (0, 0, 0))), tmp_path / f"v{suffix}")
    assert np.array_equal(read_label_map(tmp_path / f"v{suffix}").array, view)


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_the_same_volume_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        write_volume(random_labels(), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_label_maps_are_packed(tmp_path: Path) -> None:
    volume = random_labels()
    write_volume(volume.with_array(volume.array // 128), tmp_path / "v.nrrd")
    assert (tmp_path / "v.nrrd").stat().st_size < volume.array.nbytes / 3


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"lobes\.png has no known suffix; write to one of \.nrrd"):
        write_volume(random_labels(), tmp_path / "lobes.png")
    assert list(tmp_path.iterdir()) == []


def test_json_and_text(tmp_path: Path) -> None:
    write_json({"unit": "µm", "values": [1.5, None]}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"unit": "µm", "values": [1.5, None]}
    write_text("läuft\n", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == "läuft\n".encode()
    with pytest.raises(ValueError):
        write_json({"dice": float("nan")}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["unit"] == "µm"


def test_missing_folder(tmp_path: Path) -> None:
    for write in (lambda p: write_text("x", p), lambda p: write_volume(random_labels(), p)):
        with pytest.raises(OutputError, match=r"folder of .*out.v\.nrrd does not exist"):
            write(tmp_path / "out" / "v.nrrd")


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_full_disk_leaves_nothing_and_keeps_the_old_file(small_disk: Path, suffix: str) -> None:
    path = small_disk / f"lobes{suffix}"
    path.write_bytes(b"earlier")
    with pytest.raises(OutputError, match=r"disk of .* is full; free some space"):
        write_volume(random_labels(), path)
    assert [file.name for file in small_disk.iterdir()] == [path.name]
    assert path.read_bytes() == b"earlier"


def test_full_disk_and_bytes(small_disk: Path) -> None:
    with pytest.raises(OutputError, match="is full"):
        write_bytes(bytes(1_000_000), small_disk / "overview.png")
    assert list(small_disk.iterdir()) == []


def test_full_disk_and_folder(small_disk: Path) -> None:
    with pytest.raises(OutputError, match="is full"), OutputFolder(small_disk / "out", RESULTS) as out:
        write_json({}, out / "findings.json")
        write_volume(random_labels(), out / "lobes.nrrd")
    assert list(small_disk.iterdir()) == []


def test_no_write_permission(tmp_path: Path, unprivileged) -> None:
    tmp_path.chmod(0o555)
    with unprivileged(tmp_path):
        for suffix in VOLUME_SUFFIXES:
            with pytest.raises(OutputError, match="no permission to write"):
                write_volume(random_labels(), tmp_path / f"v{suffix}")
        with pytest.raises(OutputError, match="no permission to write"):
            write_text("x", tmp_path / "a.txt")
        for folder in (tmp_path, tmp_path / "new" / "deep"):
            with pytest.raises(OutputError, match="no permission to write"), OutputFolder(folder, RESULTS):
                pytest.fail("the work must not begin")
    tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == []


def test_results_appear_together(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with OutputFolder(folder, RESULTS) as out:
        write_volume(random_labels(), out / "lobes.nrrd")
        write_json({"score": 3}, out / "findings.json")
        assert not any((folder / name).exists() for name in RESULTS)
    assert sorted(file.name for file in folder.iterdir()) == ["findings.json", "lobes.nrrd"]
    assert json.loads((folder / "findings.json").read_text()) == {"score": 3}


@pytest.mark.parametrize("error", [Cancelled("stop"), ValueError("bug"), KeyboardInterrupt()])
def test_nothing_appears_when_the_work_fails(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), OutputFolder(tmp_path / "new" / "out", RESULTS) as out:
        write_json({}, out / "findings.json")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_earlier_results_are_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "findings.json").write_text("earlier")
    with (
        pytest.raises(OutputError, match=r"already holds findings\.json; allow overwriting"),
        OutputFolder(tmp_path, RESULTS),
    ):
        pytest.fail("the work must not begin")
    assert (tmp_path / "findings.json").read_text() == "earlier"


def test_overwriting_replaces_all_earlier_results_and_nothing_else(tmp_path: Path) -> None:
    for name in ("findings.json", "lesions.nrrd", "notes.txt"):
        (tmp_path / name).write_text("earlier")
    with OutputFolder(tmp_path, RESULTS, overwrite=True) as out:
        write_text("new", out / "findings.json")
        assert (tmp_path / "findings.json").read_text() == "earlier"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["findings.json", "notes.txt"]
    assert (tmp_path / "findings.json").read_text() == "new"


def test_overwriting_keeps_earlier_results_when_the_work_fails(tmp_path: Path) -> None:
    (tmp_path / "findings.json").write_text("earlier")
    with pytest.raises(Cancelled), OutputFolder(tmp_path, RESULTS, overwrite=True) as out:
        write_text("new", out / "findings.json")
        raise Cancelled("stop")
    assert [file.name for file in tmp_path.iterdir()] == ["findings.json"]
    assert (tmp_path / "findings.json").read_text() == "earlier"


def test_a_failing_move_brings_the_earlier_results_back(tmp_path: Path, monkeypatch) -> None:
    for name in RESULTS:
        (tmp_path / name).write_text("earlier")
    replace_file = os.replace

    def fail_at_lobes(source: Path, target: Path) -> None:
        if Path(target) == tmp_path / "lobes.nrrd" and Path(source).read_text() == "new":
            raise PermissionError(13, "Permission denied")
        replace_file(source, target)

    with pytest.raises(OutputError, match="no permission"), OutputFolder(tmp_path, RESULTS, overwrite=True) as out:
        for name in RESULTS:
            write_text("new", out / name)
        monkeypatch.setattr(os, "replace", fail_at_lobes)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(RESULTS, "earlier")


def test_output_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="is a file, not a folder"), OutputFolder(tmp_path / "out", RESULTS):
        pytest.fail("the work must not begin")
    with (
        pytest.raises(OutputError, match="not in a folder but in a file"),
        OutputFolder(tmp_path / "out" / "a", RESULTS),
    ):
        pytest.fail("the work must not begin")

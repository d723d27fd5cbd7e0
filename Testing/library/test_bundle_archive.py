"""Bundles from zip files: whole and as published, or nothing at all, and never outside their folder."""

from __future__ import annotations

import hashlib
import shutil
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib import bundle_archive
from COVIDMultitaskLib.bundle_archive import add_bundle, remove_bundle
from COVIDMultitaskLib.bundles import CARD, FILES, METADATA, SUMS, WEIGHTS, open_bundle, shipped_bundles
from COVIDMultitaskLib.citations import PAPERS, SOFTWARE, citation
from COVIDMultitaskLib.engines.registry import ENGINES
from COVIDMultitaskLib.errors import BundleError, OutputError


@pytest.fixture
def archive(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle as it is downloaded, in a folder of its own."""
    return zipped(tiny_bundle, tmp_path / "tiny.zip", "tiny/")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the user's bundles; not there yet."""
    return tmp_path / "data" / "bundles"


def zipped(bundle: Path, path: Path, root: str = "", without: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name in (*FILES, SUMS):
            if name != without:
                content.write(bundle / name, root + name)
    return path


def append(path: Path, name: str, data: bytes) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as content:
        warnings.simplefilter("ignore")  # of names that come twice
        content.writestr(name, data)
    return path


def refusal(archive: Path, folder: Path) -> str:
    with pytest.raises(BundleError) as refused:
        add_bundle(archive, folder)
    sentence = str(refused.value)
    assert sentence.endswith(".") and "\n" not in sentence
    assert not folder.exists() or list(folder.iterdir()) == []
    return sentence


@pytest.mark.parametrize("root", ["", "tiny/", "a/b/"])
def test_a_bundle_is_added_wherever_it_lies_in_the_archive(tiny_bundle, tmp_path, folder, root) -> None:
    added = add_bundle(zipped(tiny_bundle, tmp_path / "x.zip", root), folder)
    assert added.path == folder / "tiny-0.0.1" and added.identity == open_bundle(tiny_bundle).identity
    assert [path.name for path in folder.iterdir()] == ["tiny-0.0.1"]


def test_nothing_but_the_bundles_files_is_taken(archive, folder, tmp_path) -> None:
    for name in ("../evil.txt", "/evil.txt", "tiny/../../evil.txt", "tiny/models/evil.py", "tiny\\..\\evil.txt"):
        append(archive, name, b"evil")
    added = add_bundle(archive, folder)
    found = {str(path.relative_to(added.path)) for path in added.path.rglob("*") if path.is_file()}
    assert found == {*FILES, SUMS}
    assert not list(tmp_path.rglob("evil*"))


@given(
    st.lists(st.text("./\\abC:~é", min_size=1, max_size=12), max_size=4), st.integers(0, 40000), st.binary(max_size=9)
)
@settings(max_examples=25, deadline=None)
def test_whatever_is_in_the_archive_stays_in_the_folder(tmp_path_factory, tiny_bundle, names, at, noise) -> None:
    base = tmp_path_factory.mktemp("any")
    path = zipped(tiny_bundle, base / "any.zip", "t/")
    for name in names:
        append(path, name, b"evil")
    content = bytearray(path.read_bytes())
    content[at % len(content) : at % len(content) + len(noise)] = noise
    path.write_bytes(content)
    try:
        added = add_bundle(path, base / "bundles")
    except BundleError:
        assert list((base / "bundles").iterdir()) == []
    else:
        assert open_bundle(added.path).identity == open_bundle(tiny_bundle).identity
    assert {entry.name for entry in base.iterdir()} == {"any.zip", "bundles"}


@pytest.mark.parametrize("missing", [METADATA, WEIGHTS, CARD, SUMS])
def test_an_incomplete_bundle_is_refused(tiny_bundle, tmp_path, folder, missing) -> None:
    said = refusal(zipped(tiny_bundle, tmp_path / "x.zip", without=missing), folder)
    assert missing in said or "no weight bundles" in said


def test_a_file_that_is_not_the_published_one_is_refused(tiny_bundle, tmp_path, folder) -> None:
    spoiled = Path(shutil.copytree(tiny_bundle, tmp_path / "spoiled"))
    (spoiled / WEIGHTS).write_bytes((spoiled / WEIGHTS).read_bytes() + b"x")
    assert "SHA-256" in refusal(zipped(spoiled, tmp_path / "x.zip"), folder)


def test_two_bundles_or_none_are_refused(tiny_bundle, archive, tmp_path, folder) -> None:
    append(archive, f"other/{METADATA}", b"{}")
    assert "2 weight bundles" in refusal(archive, folder)
    (tmp_path / "text.zip").write_text("no zip")
    assert "no zip file" in refusal(tmp_path / "text.zip", folder)
    assert "cannot be read" in refusal(tmp_path / "absent.zip", folder)


def test_what_is_too_large_is_refused_before_it_fills_the_disk(archive, folder, monkeypatch) -> None:
    monkeypatch.setattr(bundle_archive, "LARGEST_WEIGHTS", 1000)
    assert "larger" in refusal(archive, folder)
    monkeypatch.undo()
    # a header that tells a smaller size than what comes out of the entry
    content, name = bytearray(archive.read_bytes()), f"tiny/{CARD}".encode()
    at = content.rindex(name) - 46 + 24
    assert int.from_bytes(content[at : at + 4], "little") == len("For tests only.\n")
    content[at : at + 4] = (3).to_bytes(4, "little")
    archive.write_bytes(content)
    refusal(archive, folder)


def test_the_checksum_beside_an_archive_is_checked(archive, folder) -> None:
    beside = archive.with_name("tiny.zip.sha256")
    beside.write_text(f"{'0' * 64}  tiny.zip\n")
    assert "not the file that was published" in refusal(archive, folder)
    beside.write_bytes(b"\xff")
    refusal(archive, folder)
    beside.write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()} *tiny.zip\n")
    assert add_bundle(archive, folder)


def test_a_bundle_that_is_there_already_stays(archive, folder) -> None:
    added = add_bundle(archive, folder)
    (added.path / "note.txt").write_text("mine")
    with pytest.raises(BundleError, match="there already"):
        add_bundle(archive, folder)
    assert (added.path / "note.txt").exists() and len(list(folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_to_is_said(archive, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another folder"):
        add_bundle(archive, tmp_path / "file" / "bundles")


def test_only_added_bundles_can_be_removed(archive, folder, tiny_bundle, tmp_path) -> None:
    added = add_bundle(archive, folder)
    (folder / "notes").mkdir()
    for other in (tiny_bundle, shipped_bundles()[0], folder / "notes", added.path / "..", folder):
        with pytest.raises(BundleError, match="only those can be removed"):
            remove_bundle(other, folder)
    remove_bundle(added.path, folder)
    assert [path.name for path in folder.iterdir()] == ["notes"]


def test_removing_a_link_leaves_what_it_leads_to(tiny_bundle, folder) -> None:
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tiny_bundle)
    remove_bundle(folder / "link", folder)
    assert list(folder.iterdir()) == [] and open_bundle(tiny_bundle)


@pytest.mark.parametrize("engine", sorted({*ENGINES, *PAPERS, "of tomorrow"}))
def test_every_engine_says_how_to_cite_it(engine) -> None:
    lines = citation(engine, "toy", "2").splitlines()
    assert lines[0] == SOFTWARE and lines[-1] == "Weights: toy 2."
    assert (len(lines) == 3) == (engine in PAPERS)

"""Prepared arrays: on the network's grid, kept on disk, and batched without inventing labels."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from COVIDMultitaskLib.errors import InputError, OutputError
from COVIDMultitaskLib.preparation.grid import resample, upright_grid
from COVIDMultitaskLib.volume import Geometry
from Testing.training.data_layouts import SHAPE, a_lesion, chest_hu, five_lobes, grey_slice, save, save_picture
from training.data import cache as cache_module
from training.data.cache import PreparedCache
from training.data.conventions import LOBE_CODES
from training.data.dataset import UNKNOWN, Case, RecordDataset, collate
from training.data.loading import load
from training.data.preparation import Settings, labels_on_grid, prepare
from training.data.record import (
    LESION_OF_ANY_KIND,
    NOT_ANNOTATED,
    Codes,
    ImageFile,
    IntensityKind,
    LesionKind,
    Reader,
    Record,
    one_mask,
)

COARSE = Settings(spacing_mm=8.0, margin_mm=10.0)


@pytest.fixture
def labelled(tmp_path: Path) -> Record:
    """A scan with lobes and a binary lesion mask."""
    lesions = one_mask(save(tmp_path / "lesions.nii.gz", a_lesion()), Codes({1: LESION_OF_ANY_KIND}))
    return Record(
        "s/labelled", "s", "x", "p1", image=ImageFile((save(tmp_path / "ct.nii.gz", chest_hu()),)),
        lobes=one_mask(save(tmp_path / "lobes.nii.gz", five_lobes()), LOBE_CODES["covid_multitask"]),
        lesions=lesions, lesion_kind=LesionKind.BINARY, severity="severe", ct_grade=3, covid=True,
    )  # fmt: skip


@pytest.fixture
def bare(tmp_path: Path) -> Record:
    """A larger scan without masks, not COVID-19."""
    image = save(tmp_path / "bare.nii.gz", chest_hu((14, 20, 24)))
    return Record("s/bare", "s", "x", "p2", image=ImageFile((image,)), covid=False)


def test_preparation_is_that_of_inference(bare: Record) -> None:
    sample = load(bare)
    prepared = prepare(sample, COARSE)
    grid = upright_grid(sample.geometry, 8.0)
    assert prepared.grid.is_close_to(grid)
    np.testing.assert_allclose(prepared.hu, resample(sample.image, grid), atol=0.51)
    assert prepared.lobes is None and prepared.lesions is None


def test_labels_and_image_stay_on_each_other(labelled: Record) -> None:
    prepared = prepare(load(labelled), Settings(spacing_mm=4.0, margin_mm=10.0))
    inside = prepared.lobes > 0
    assert prepared.hu[inside].mean() < -700 < -300 < prepared.hu[~inside].mean()
    assert set(np.unique(prepared.lobes)) == {0, 1, 2, 3, 4, 5}
    assert set(np.unique(prepared.lesions)) == {0, LESION_OF_ANY_KIND}
    # 10 mm around the lungs, not the whole scan.
    assert prepared.grid.extent_mm[2] < load(labelled).geometry.extent_mm[2] + 4


def test_label_volumes_survive_every_orientation() -> None:
    lobes = five_lobes((24, 32, 40))
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    scan = Geometry(lobes.shape, (2, 1.5, 1.5), (10, -20, 30), turn @ np.eye(3)[:, ::-1])
    grid = upright_grid(scan, 2.5)
    found = labels_on_grid(lobes, scan, grid)
    for value in range(1, 6):
        before, after = (lobes == value).sum() * scan.voxel_ml, (found == value).sum() * grid.voxel_ml
        assert after == pytest.approx(before, rel=0.08)
    assert not labels_on_grid(np.zeros_like(lobes), scan, grid).any()


def test_where_lobes_meet_there_is_no_gap() -> None:
    """The largest label covers 40 % of the voxel, background 30 %; it is lung."""
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[:4], mask[4:7] = 1, 2
    scan = Geometry(mask.shape, (1, 1, 1), (0, 0, 0))
    assert labels_on_grid(mask, scan, upright_grid(scan, 10.0)).tolist() == [[[1]]]
    mask[2:] = 0
    assert labels_on_grid(mask, scan, upright_grid(scan, 10.0)).tolist() == [[[0]]]


def test_a_slice_becomes_one_plane(tmp_path: Path) -> None:
    image = save_picture(tmp_path / "a.png", grey_slice(1, (100, 140)))
    record = Record("s/a", "s", "x", image=ImageFile((image,), Reader.PICTURES), intensity=IntensityKind.PICTURE)
    prepared = prepare(load(record), Settings(spacing_mm=4.0))
    assert prepared.hu.shape == (1, 50, 70)
    expected = load(record).image.array[0].reshape(50, 2, 70, 2).mean((1, 3))
    np.testing.assert_allclose(prepared.hu[0], expected, atol=1)


def test_flags_follow_the_slices(labelled: Record) -> None:
    flags = tuple(n in (3, 4) for n in range(SHAPE[0]))
    lobes = tuple((n == 3, False, False, False, n == 4) for n in range(SHAPE[0]))
    flagged = replace(labelled, slice_flags=flags, lobe_flags=lobes, lobes=None)
    prepared = prepare(load(flagged), Settings(spacing_mm=5.0))
    assert np.flatnonzero(prepared.slice_flags).tolist() == [3, 4]
    assert np.argwhere(prepared.lobe_flags).tolist() == [[3, 0], [4, 4]]
    with pytest.raises(InputError, match="12 slices but 3 flags"):
        prepare(load(replace(flagged, slice_flags=flags[:3])), COARSE)


def test_the_cache_answers_as_preparation_does_and_reads_no_scan_twice(
    labelled: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PreparedCache(tmp_path / "cache", COARSE)
    first = cache.get(labelled)
    monkeypatch.setattr(cache_module, "load", lambda record: pytest.fail("the scan was read again"))
    second = cache.get(labelled)
    for name in ("hu", "lobes", "lesions"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert getattr(second, name).dtype == (np.int16 if name == "hu" else np.uint8)
    assert second.lungs is None and second.grid.is_close_to(first.grid)


def test_whatever_changes_the_arrays_changes_the_entry(labelled: Record, tmp_path: Path) -> None:
    cache = PreparedCache(tmp_path / "cache", COARSE)
    lobes = one_mask(labelled.lobes.parts[0][0].paths[0], LOBE_CODES["luna16"])
    keys = {
        cache.key(labelled),
        PreparedCache(tmp_path / "cache", Settings(spacing_mm=3.0)).key(labelled),
        cache.key(replace(labelled, lobes=lobes)),
        cache.key(replace(labelled, lobes=None)),
        cache.key(replace(labelled, intensity=IntensityKind.UNIT_SCALE)),
    }
    image = labelled.image.paths[0]
    os.utime(image, ns=(1, 1))
    keys.add(cache.key(labelled))
    assert len(keys) == 6
    assert cache.key(replace(labelled, id="s/renamed", severity=None, ct_grade=None)) in keys


def test_entries_by_content_do_not_depend_on_time_or_place(labelled: Record, tmp_path: Path) -> None:
    cache = PreparedCache(tmp_path / "cache", COARSE, by_content=True)
    before, image = cache.key(labelled), labelled.image.paths[0]
    moved = image.rename(tmp_path / "elsewhere.nii.gz")
    os.utime(moved, ns=(1, 1))
    there = replace(labelled, image=ImageFile((moved,)))
    assert cache.key(there) == before
    moved.write_bytes(moved.read_bytes() + b"x")
    assert cache.key(there) != before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_entry_is_made_anew(damage: str, labelled: Record, tmp_path: Path) -> None:
    cache = PreparedCache(tmp_path / "cache", COARSE)
    first, path = cache.get(labelled), cache.path(labelled)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes({"cut": content[:-300], "flipped": content, "empty": b"", "other": b"no archive"}[damage])
    again = cache.get(labelled)
    np.testing.assert_array_equal(again.hu, first.hu)
    np.testing.assert_array_equal(again.lobes, first.lobes)
    np.testing.assert_array_equal(cache.get(labelled).hu, first.hu)


def test_threads_share_a_cache(labelled: Record, bare: Record, tmp_path: Path) -> None:
    cache = PreparedCache(tmp_path / "cache", COARSE)
    failures: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(5):
                for record in (labelled, bare):
                    assert cache.get(record).hu.min() >= -1024
                    cache.path(record).unlink(missing_ok=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".npz"]


def test_a_cache_that_cannot_be_written_says_so(labelled: Record, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cache folder .* cannot be created"):
        PreparedCache(tmp_path / "file" / "cache", COARSE).get(labelled)


def test_a_missing_file_is_named(labelled: Record, tmp_path: Path) -> None:
    labelled.image.paths[0].unlink()
    with pytest.raises(InputError, match=r"ct.nii.gz is missing"):
        PreparedCache(tmp_path / "cache", COARSE).get(labelled)


def test_filling_prepares_everything(labelled: Record, bare: Record, tmp_path: Path) -> None:
    told: list[int] = []
    cache = PreparedCache(tmp_path / "cache", COARSE)
    cache.fill([labelled, bare], tell=told.append)
    assert told == [1, 2] and len(list((tmp_path / "cache").iterdir())) == 2


def test_two_processes_fill_the_cache_as_one_does(labelled: Record, bare: Record, tmp_path: Path) -> None:
    alone, shared = PreparedCache(tmp_path / "one", COARSE), PreparedCache(tmp_path / "two", COARSE)
    records = [labelled, bare, replace(labelled, lobes=None), replace(labelled, lesions=None, lesion_kind=None)]
    told: list[int] = []
    alone.fill(records)
    shared.fill(records, workers=2, tell=told.append)
    assert told == [1, 2, 3, 4]
    assert {path.name for path in shared.folder.iterdir()} == {alone.path(one).name for one in records}
    for record in records:
        wanted, found = alone.get(record), shared.get(record)
        assert found.grid.is_close_to(wanted.grid)
        for name in ("hu", "lobes", "lungs", "lesions"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_a_batch_keeps_missing_apart_from_background(labelled: Record, bare: Record, tmp_path: Path) -> None:
    data = RecordDataset([labelled, bare], PreparedCache(tmp_path / "cache", COARSE))
    batch = next(iter(DataLoader(data, batch_size=2, collate_fn=lambda cases: collate(cases, multiple=8))))
    first, second = data[0], data[1]
    assert all(n % 8 == 0 for n in batch["hu"].shape[1:])
    z, y, x = first.hu.shape
    np.testing.assert_array_equal(batch["lobes"][0, :z, :y, :x], first.lobes)
    # Padding is not annotated, and air to the image; the case without masks is not annotated anywhere.
    padded = torch.ones(batch["lobes"].shape[1:], dtype=torch.bool)
    padded[:z, :y, :x] = False
    assert (batch["lobes"][0][padded] == NOT_ANNOTATED).all() and (batch["hu"][0][padded] == -1024).all()
    assert (batch["lobes"][1] == NOT_ANNOTATED).all() and (batch["lesions"][1] == NOT_ANNOTATED).all()
    assert batch["lungs"] is None and batch["slice_flags"] is None
    assert batch["severity"].tolist() == [1, UNKNOWN] and batch["ct_grade"].tolist() == [3, UNKNOWN]
    assert batch["diagnosis"].tolist() == [2, UNKNOWN]
    assert batch["possible_diagnoses"].tolist() == [[False, False, True], [True, True, False]]
    assert batch["ids"] == ["s/labelled", "s/bare"] and second.lobes is None


def test_flags_are_batched_with_their_gaps(labelled: Record, bare: Record, tmp_path: Path) -> None:
    flagged = replace(labelled, slice_flags=tuple(n == 3 for n in range(SHAPE[0])))
    batch = collate([RecordDataset([one], PreparedCache(tmp_path / "c", COARSE))[0] for one in (flagged, bare)])
    assert {0, 1} <= set(batch["slice_flags"][0].tolist()) <= {0, 1, NOT_ANNOTATED}
    assert (batch["slice_flags"][1] == NOT_ANNOTATED).all()


def test_a_transform_sees_every_case(bare: Record, tmp_path: Path) -> None:
    def brighter(case: Case) -> Case:
        return replace(case, hu=case.hu + 5)

    cache = PreparedCache(tmp_path / "cache", COARSE)
    plain, changed = RecordDataset([bare], cache)[0], RecordDataset([bare], cache, brighter)[0]
    assert torch.equal(changed.hu, plain.hu + 5) and len(RecordDataset([bare], cache)) == 1


def test_masks_without_an_image_are_refused(labelled: Record, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="s/labelled has masks but no image"):
        RecordDataset([replace(labelled, image=None)], PreparedCache(tmp_path / "cache"))


def test_a_real_scan_is_prepared_and_kept(shared_data: Path, tmp_path: Path) -> None:
    from training.data.registry import adapter

    (record,) = adapter("lung_pet_ct_dx").collect(shared_data / "ct").records
    cache = PreparedCache(tmp_path, Settings(spacing_mm=5.0))
    prepared = cache.get(record)
    assert abs(prepared.grid.extent_mm[0] - 320) < 10
    assert np.mean(prepared.hu < -700) > 0.1
    np.testing.assert_array_equal(cache.get(record).hu, prepared.hu)

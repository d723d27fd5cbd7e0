"""Splits: nobody in two parts, everybody in one, the same again next time; and pictures that look alike."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.volume import IntensityKind
from Testing.training.data_layouts import grey_slice, save_picture
from training.data.record import ImageFile, Reader, Record
from training.data.registry import adapter
from training.data.similarity import group_similar, near_pairs, neighbouring_pairs, picture_hash
from training.data.splits import Split, digest_of, fold_records, kept_together, read_split, split_records


def record(name: str, patient: str | None = None, source: str = "s", **labels: object) -> Record:
    """A record without files."""
    return Record(f"{source}/{name}", source, "CC0-1.0", patient_id=patient, **labels)  # type: ignore[arg-type]


@st.composite
def collections(draw: st.DrawFn) -> list[Record]:
    """Records of some sources whose patients have one to several records, in one or two sources."""
    patients = draw(st.integers(12, 40))
    found = []
    for patient in range(patients):
        source = draw(st.sampled_from(["a", "b", "c"]))
        covid = draw(st.sampled_from([True, False, None]))
        for scan in range(draw(st.integers(1, 4))):
            known = f"p{patient}" if draw(st.booleans()) or scan else None
            group = f"g{patient}" if scan % 2 else None
            found.append(Record(f"{source}/{patient}-{scan}", source, "x", patient_id=known, group=group, covid=covid))
    return draw(st.permutations(found))


@settings(max_examples=60, deadline=None)
@given(collections(), st.integers(2, 5), st.integers(0, 3))
def test_folds_are_complete_disjoint_and_keep_patients_together(found: list[Record], folds: int, seed: int) -> None:
    split = fold_records(found, folds, seed)
    assigned = [name for ids in split.parts.values() for name in ids]
    assert Counter(assigned) == Counter(record.id for record in found)
    for key in ("patient_id", "group"):
        parts: dict[str, set[str]] = {}
        for one in found:
            if getattr(one, key):
                parts.setdefault(getattr(one, key), set()).add(split.part_of(one))
        assert all(len(where) == 1 for where in parts.values())
    assert fold_records(list(reversed(found)), folds, seed) == split
    for n in range(folds):
        training, held_out = split.fold(found, n)
        assert len(training) + len(held_out) == len(found) and held_out


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 200), st.integers(1, 6), st.integers(0, 5))
def test_parts_have_their_shares_in_every_stratum(patients: int, sources: int, seed: int) -> None:
    found = [record(str(n), f"p{n}", source=f"s{n % sources}", covid=n % 2 == 0) for n in range(patients)]
    split = split_records(found, {"train": 0.8, "val": 0.1, "test": 0.1}, seed)
    for part, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(len(split.parts[part]) - share * patients) <= 1.5
        for source in range(sources):
            inside = [one for one in found if one.source == f"s{source}"]
            assert abs(len(split.select(inside, part)) - share * len(inside)) <= 2.5


def test_another_seed_gives_another_split() -> None:
    found = [record(str(n), f"p{n}") for n in range(50)]
    assert split_records(found, seed=0).parts != split_records(found, seed=1).parts


def test_many_small_sources_do_not_all_go_to_training() -> None:
    found = [record("only", f"p{n}", source=f"s{n}") for n in range(100)]
    assert {part: len(ids) for part, ids in split_records(found).parts.items()} == {"train": 70, "val": 15, "test": 15}


def test_what_shares_anything_stays_together() -> None:
    found = [
        record("1", "p", group="g"),
        record("2", "p", source="other"),
        record("3", group="g"),
        record("4"),
        record("5", "q"),
    ]
    groups = [[one.id for one in group] for group in kept_together(found, {"s/4": "like", "s/5": "like"})]
    assert groups == [["s/1", "other/2", "s/3"], ["s/4", "s/5"]]


def test_prescribed_parts_are_kept_with_the_whole_patient() -> None:
    found = [record(str(n), f"p{n // 2}", split="test" if n in (0, 6) else None) for n in range(60)]
    split = split_records(found)
    assert {"s/0", "s/1", "s/6", "s/7"} <= set(split.parts["test"])
    clash = [*found, record("60", "p0", split="train")]
    with pytest.raises(InputError, match="prescribed to test and train"):
        split_records(clash)
    assert split_records(clash, keep_prescribed=False)


def test_too_few_patients_and_repeated_ids_are_told() -> None:
    with pytest.raises(InputError, match="2 patients or groups cannot fill the parts train, val, test"):
        split_records([record("1", "p"), record("2", "p"), record("3", "q")])
    with pytest.raises(InputError, match="s/1 is there twice"):
        split_records([record("1"), record("1")])
    with pytest.raises(InputError, match="at least 2 folds"):
        fold_records([record("1")], 1)


def test_a_split_file_comes_back_and_guards_itself(tmp_path: Path) -> None:
    found = [record(str(n), f"p{n // 2}") for n in range(40)]
    split, path = split_records(found, seed=7), tmp_path / "split.json"
    split.write(path)
    again = read_split(path)
    assert again == split and again.digest == split.digest
    again.check(found)
    with pytest.raises(InputError, match=r"1 gone \(s/0\) and 1 new \(s/new\)"):
        again.check([*found[1:], record("new")])
    moved = [replace(found[0], patient_id="p9"), *found[1:]]
    with pytest.raises(InputError, match="belong to other patients"):
        again.check(moved)
    with pytest.raises(InputError, match="does not know s/new"):
        again.select([record("new")], "train")

    content = json.loads(path.read_text())
    content["parts"]["train"].append(content["parts"]["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="changed by hand"):
        read_split(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="no split file"):
        read_split(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_split(tmp_path / "gone.json")


def test_the_digest_sees_parts_seed_and_records() -> None:
    found = [record(str(n)) for n in range(4)]
    base = Split({"a": ("s/0", "s/1"), "b": ("s/2", "s/3")}, 0, digest_of(found))
    others = (
        Split({"a": ("s/0",), "b": ("s/1", "s/2", "s/3")}, 0, base.records_digest),
        replace(base, seed=1),
        replace(base, records_digest="other"),
    )
    assert len({base.digest, *(one.digest for one in others)}) == 4


def test_copies_in_other_sizes_and_windows_look_alike() -> None:
    picture = grey_slice(1, (120, 160))
    small = np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((90, 70)))
    brighter = np.clip(picture * 0.7 + 60, 0, 255)
    others = [grey_slice(n, (120, 160)) for n in range(2, 8)]
    hashes = np.stack([picture_hash(one) for one in (picture, small, brighter, *others)])
    assert set(near_pairs(hashes)) == {(0, 1), (0, 2), (1, 2)}


def test_only_close_numbers_of_one_series_are_neighbours() -> None:
    hashes = np.zeros((5, 255), bool)
    hashes[4, :100] = True
    names = ["a/img1", "a/img3", "a/img9", "b/img2", "a/img2"]
    assert neighbouring_pairs(names, hashes) == [(0, 1)]


def test_pictures_of_unknown_patients_that_look_alike_share_a_group(tmp_path: Path) -> None:
    def picture(name: str, seed: int, patient: str | None = None) -> Record:
        path = save_picture(tmp_path / f"{name}.png", grey_slice(seed, (100, 100)))
        image = ImageFile((path,), Reader.PICTURES)
        return Record(f"s/{name}", "s", "x", patient_id=patient, image=image, intensity=IntensityKind.PICTURE)

    found = [picture("a", 1), picture("x", 2), picture("copy", 1), picture("known", 1, patient="p")]
    assert group_similar(found) == {"s/a": "similar/s/a", "s/copy": "similar/s/a"}


def test_measured_grouping_of_real_slices(shared_data: Path) -> None:
    """Slices of known patients: many neighbours are found, hardly any two patients are mixed."""
    found = adapter("covid_semiseg").collect(shared_data / "slices/COVID-SemiSeg").records
    chosen = [one for one in found if one.patient_id and one.patient_id[-1] in "14"]
    groups = group_similar([replace(one, patient_id=None) for one in chosen])
    patients: dict[str, set[str | None]] = {}
    for one in chosen:
        if one.id in groups:
            patients.setdefault(groups[one.id], set()).add(one.patient_id)
    assert len(groups) > 0.8 * len(chosen)
    assert sum(len(of_group) > 1 for of_group in patients.values()) <= 1

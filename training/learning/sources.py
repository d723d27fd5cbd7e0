"""From an experiment's data to pools of cases to train on and cases to validate on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from COVIDMultitaskLib.errors import InputError
from training.configuration import Experiment, Source
from training.data.cache import PreparedCache
from training.data.dataset import RecordDataset
from training.data.preparation import Settings
from training.data.record import Record
from training.data.registry import adapter
from training.data.similarity import group_similar
from training.data.splits import Split, fold_records, read_split, split_records
from training.data.synthetic import SOURCE, PartlyLabelled, Simulation, SyntheticCases
from training.engines import learner_class
from training.learning.run import Run
from training.learning.sampling import Cases, Pool, is_slice, reasons_of, tasks_of
from training.synthesis.cases import CaseSettings
from training.synthesis.chest import SIMULATOR

Tell = Callable[[str], None]


@dataclass(frozen=True)
class TrainingData:
    """What an experiment learns from.

    :param pools: to draw training cases from.
    :param held_out: to validate on, each source's cases by themselves.
    :param described: for the model card: sources with licence and counts, and what was left out.
    """

    pools: list[Pool]
    held_out: list[Cases]
    described: dict[str, Any]


def gather(experiment: Experiment, run: Run, tell: Tell) -> TrainingData:
    """Find, make, split and prepare everything that an experiment names.

    :param tell: is told what takes long, and what was left out.
    :raises InputError: for data that are missing, damaged or contradict themselves; the sentence names them.
    """
    pools: list[Pool] = []
    held_out: list[Cases] = []
    described: dict[str, Any] = {"sources": [], "left_out": []}
    if experiment.data.synthetic is not None:
        _add_synthetic(experiment, pools, held_out, described, tell)
    records = _records(experiment, described, tell)
    if records:
        split, train, val = _divided(experiment, [one for of_source in records.values() for one in of_source], run)
        cache = PreparedCache(experiment.path(experiment.data.cache), Settings(experiment.data.spacing_mm))
        tell(f"Preparing {len(train) + len(val)} records")
        cache.fill([*train, *val])
        described["split_sha256"] = split.digest
        for source in experiment.data.sources:
            ours = {record.id for record in records.get(source.dataset, ())}
            _add_records(source, [one for one in train if one.id in ours], cache, pools)
            if kept := [one for one in val if one.id in ours]:
                held_out.append(RecordDataset(kept, cache))
    if not pools:
        raise InputError("None of the experiment's sources is there; see data.sources, or set COVID_MULTITASK_DATA.")
    return TrainingData(pools, held_out, described)


def _add_synthetic(
    experiment: Experiment, pools: list[Pool], held_out: list[Cases], described: dict[str, Any], tell: Tell
) -> None:
    wanted = experiment.data.synthetic
    assert wanted is not None
    simulation = Simulation(
        experiment.path(wanted.folder),
        experiment.path(wanted.anatomies),
        experiment.path(wanted.material),
        wanted.shapes,
        CaseSettings(wanted.size, experiment.data.spacing_mm),
        {"train": wanted.train, "val": wanted.val},
    )
    if simulation.is_phantom:
        tell("No lobe maps are there: phantoms take the place of simulated scans, good for a trial only")
    tell(f"Making what is missing of {wanted.train + wanted.val} simulated scans in {simulation.folder}")
    simulation.make(max(1, experiment.hardware.workers))
    shares = {str(task): share for task, share in wanted.labels.items()}
    cases = PartlyLabelled(SyntheticCases(simulation.folder / "train", wanted.train), shares, experiment.seed)
    reasons = [reasons_of(cases.record(index), tasks) for index, tasks in enumerate(cases.tasks)]
    pools.append(Pool(SOURCE, cases, reasons, wanted.weight, move=False))
    held_out.append(SyntheticCases(simulation.folder / "validation", wanted.val))
    described["sources"].append(
        {
            "name": SOURCE,
            "licence": "CC-BY-4.0",
            "records": len(cases),
            "simulated": True,
            "simulator": SIMULATOR,
            "from": "phantoms" if simulation.is_phantom else "real lobe shapes and one thorax (TotalSegmentator data)",
        }
    )


def _records(experiment: Experiment, described: dict[str, Any], tell: Tell) -> dict[str, list[Record]]:
    """By data set the records with an image that teach something, by annotators that are wanted."""
    found: dict[str, list[Record]] = {}
    for source in experiment.data.sources:
        root = experiment.path(source.root)
        if source.optional and not root.exists():
            tell(f"{source.dataset} is not at {root}: left out")
            described["left_out"].append(source.dataset)
            continue
        one = adapter(source.dataset)
        records = [record for record in one.collect(root, **source.options).records if _is_wanted(record, source)]
        if not records:
            raise InputError(f"{root} holds no record with an image and a label that {source.dataset} was to give.")
        found.setdefault(source.dataset, []).extend(records)
        labels = Counter(task for record in records for task in _taught(record, experiment.engine))
        licences = sorted({record.licence for record in records if record.licence})
        described["sources"].append(
            {
                "name": source.dataset,
                "licence": ", ".join(licences) or one.licence,
                "records": len(records),
                "simulated": False,
                "labels": dict(labels),
            }
        )
    return found


def _taught(record: Record, engine: str) -> frozenset[str]:
    """What an engine learns from a record: of a single slice less than it tells."""
    tasks = tasks_of(record)
    return tasks & learner_class(engine).tasks_of_slices if is_slice(record) else tasks


def _is_wanted(record: Record, source: Source) -> bool:
    by_wanted = source.annotators is None or record.annotator is None or record.annotator.value in source.annotators
    return record.image is not None and bool(tasks_of(record)) and by_wanted


def _divided(experiment: Experiment, records: list[Record], run: Run) -> tuple[Split, list[Record], list[Record]]:
    """The split with its records to train and to validate on; the run's own split where it has one."""
    data = experiment.data
    file = run.split_file if run.split_file.exists() else experiment.path(data.split) if data.split else None
    if file is not None:
        split = read_split(file)
    elif data.folds is not None:
        split = fold_records(records, data.folds, experiment.seed, group_similar(records))
    else:
        fractions = {str(part): share for part, share in data.fractions.items()}
        split = split_records(records, fractions, experiment.seed, group_similar(records))
    if file != run.split_file:
        split.write(run.split_file)
    if data.folds is not None:
        return split, *split.fold(records, data.fold)
    return split, split.select(records, "train"), split.select(records, "val") if "val" in split.parts else []


def _add_records(source: Source, records: Sequence[Record], cache: PreparedCache, pools: list[Pool]) -> None:
    """Slices and scans of a source in pools of their own."""
    for slices in (False, True):
        kept = [record for record in records if is_slice(record) == slices]
        if kept:
            reasons = [reasons_of(record, tasks_of(record)) for record in kept]
            name = f"{source.dataset} slices" if slices else source.dataset
            pools.append(Pool(name, RecordDataset(kept, cache), reasons, source.weight, slices))

"""What an experiment is: a YAML file, checked when it is read, before anything is computed.

``smoke`` holds what ``--smoke`` changes: an experiment brings its own small version along. Folders may be
relative to the working directory; ``${data}`` in them stands for the folder of data sets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.writing import write_text

DATA_VARIABLE = "COVID_MULTITASK_DATA"
DEFAULT_DATA = "../shared/data"

Task = Literal["lobes", "lesions", "severity", "diagnosis"]
TASKS: tuple[Task, ...] = ("lobes", "lesions", "severity", "diagnosis")

Kind = Literal["severe", "not_severe", "covid_19_with_lesions", "covid_19_without_lesions", "not_covid_19"]
"""Of cases: what is known of them; with or without a mask of the lesions."""
"""What a case may be drawn for."""

Share = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """A part of a YAML file: unknown entries are refused, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Part):
    """A data set on disk.

    :param dataset: an adapter's name, such as "manifest" or "covid_semiseg".
    :param root: its folder, or the CSV file of a manifest.
    :param weight: how often its cases are drawn beside those of other sources.
    :param optional: when its folder is not there, go on without it and say so.
    :param annotators: use masks by these only; ``None``: by anybody.
    :param options: of the adapter.
    """

    dataset: str
    root: str
    weight: Positive = 1.0
    optional: bool = False
    annotators: list[Literal["expert", "non_expert", "model"]] | None = None
    options: dict[str, str] = {}


class Synthetic(Part):
    """Simulated scans, made before the training starts if they are not there.

    :param folder: of the scans.
    :param anatomies: cache of the shapes with the organs fitted around them.
    :param material: folder with ``lobe_maps/`` and ``thorax/``; when it is not there, phantoms take the place.
    :param shapes: use this many lobe maps; ``None``: all.
    :param size: voxels (z, y, x) of a scan.
    :param train: scans to train on.
    :param val: scans of held-out shapes.
    :param labels: share of the training scans that keep their label of a task; all where a task is not named.
    :param weight: how often these scans are drawn beside those of other sources.
    """

    folder: str = ".cache/cases"
    anatomies: str = ".cache/anatomy"
    material: str = "${data}"
    shapes: AtLeastOne | None = None
    size: tuple[AtLeastOne, AtLeastOne, AtLeastOne] = (112, 104, 128)
    train: AtLeastOne = 300
    val: AtLeastOne = 20
    labels: dict[Task, Annotated[float, Field(ge=0, le=1)]] = {}
    weight: Positive = 1.0


class Data(Part):
    """What is learned from.

    :param spacing_mm: of the network's grid.
    :param cache: where prepared records are kept.
    :param largest: scans are cropped to at most this many voxels (z, y, x).
    :param fractions: share of the records by part; without val, simulated scans alone are validated on.
    :param split: a split file to use; ``None``: made by ``fractions``, or by ``folds``.
    :param folds: cross-validation: train on all folds but number ``fold``.
    """

    spacing_mm: Annotated[float, Field(ge=0.5, le=10)] = 2.5
    cache: str = ".cache/prepared"
    sources: list[Source] = []
    synthetic: Synthetic | None = None
    largest: tuple[AtLeastOne, AtLeastOne, AtLeastOne] = (144, 144, 160)
    split: str | None = None
    fractions: dict[Literal["train", "val", "test"], Positive] = {"train": 0.8, "val": 0.2}
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: Count = 0

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if not self.sources and self.synthetic is None:
            raise ValueError("name at least one source, or synthetic scans")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"there is no fold {self.fold} of {self.folds}; they count from 0")
        if "train" not in self.fractions:
            raise ValueError("fractions must name train")
        if self.synthetic is None and "val" not in self.fractions:
            raise ValueError("fractions must name val, for there are no simulated scans to validate on")
        return self


class Sampling(Part):
    """What a step sees.

    :param tasks: how often a case is drawn because it carries the label of this task, or is of this kind: where few
        are severe, or a paper says how often it drew which.
    :param scans: in a step and process.
    :param slices: in a step and process.
    """

    tasks: dict[Task | Kind, Share] = {"lobes": 1.0, "lesions": 1.0, "severity": 1.0, "diagnosis": 1.0}
    scans: Count = 1
    slices: Count = 2

    @model_validator(mode="after")
    def _something(self) -> Sampling:
        if self.scans + self.slices == 0:
            raise ValueError("a step needs scans or slices")
        if not any(self.tasks.values()):
            raise ValueError("at least one task needs a share above 0")
        return self


class EarlyStopping(Part):
    """Stop when ``monitor`` has not become better at this many validations."""

    monitor: str = "val/mean"
    patience: AtLeastOne = 8


class Schedule(Part):
    """How long and how fast.

    :param steps: of the optimiser.
    :param steps_per_epoch: a checkpoint is written after each epoch; what a killed run loses.
    :param validate_every: epochs.
    :param warm_up: share of the steps in which the rate rises.
    :param accumulate: batches whose gradients make up a step.
    :param keep: weights of the "last" step, or of the "best" validation.
    :param settle: whether what is better fitted to all scans at once, such as a classifier, is so after the last step.
    """

    steps: AtLeastOne = 3000
    steps_per_epoch: AtLeastOne = 50
    validate_every: AtLeastOne = 6
    learning_rate: Positive = 3e-3
    weight_decay: Share = 1e-4
    warm_up: Annotated[float, Field(gt=0, lt=1)] = 0.08
    gradient_clip: Positive = 12.0
    accumulate: AtLeastOne = 1
    early_stopping: EarlyStopping | None = None
    keep: Literal["last", "best"] = "last"
    settle: bool = True


class Losses(Part):
    """How the tasks' losses become one.

    :param weighting: "fixed", "uncertainty" (Kendall 2018) or "gradient_norm" (Chen 2018).
    :param weights: of the engine's tasks; for the learned weightings where they start. A fixed weight of 0 turns a
        task off.
    """

    weighting: Literal["fixed", "uncertainty", "gradient_norm"] = "fixed"
    weights: dict[str, Share]

    @model_validator(mode="after")
    def _something(self) -> Losses:
        if not any(self.weights.values()):
            raise ValueError("at least one task needs a weight above 0")
        return self


class Hardware(Part):
    """Where it runs; all this changes no result but for rounding.

    :param accelerator: as Lightning names it.
    :param devices: processes; more than one is distributed data-parallel training.
    :param precision: as Lightning names it.
    :param workers: processes that load cases, for each process that trains.
    """

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: AtLeastOne = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    workers: Count = 1


class Card(Part):
    """What the bundle says of itself; see ``training/export.py``.

    :param name: of the bundle.
    :param licence: of the weights, an SPDX identifier; at least as strict as what they were trained on.
    :param folder: with ``metadata.json``, ``LICENSE`` and the card's template.
    """

    name: str
    version: str = "0.1.0"
    licence: str
    folder: str


class Experiment(Part):
    """One experiment.

    :param engine: a name of ``training.engines``.
    :param network: arguments of the engine's network.
    :param start: ``model.safetensors`` to start from; or of parts of the network by their names, "" for what has
        no file of its own. Layers may get more channels than they had.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    engine: str
    seed: Count = 0
    network: dict[str, Any] = {}
    start: str | dict[str, str] | None = None
    data: Data
    sampling: Sampling = Sampling()
    schedule: Schedule = Schedule()
    losses: Losses
    hardware: Hardware = Hardware()
    card: Card

    def path(self, text: str) -> Path:
        """A folder of the configuration, with ``${data}`` filled in."""
        return Path(text.replace("${data}", os.environ.get(DATA_VARIABLE, DEFAULT_DATA))).expanduser()

    @property
    def start_files(self) -> dict[str, Path]:
        """``start`` by the part of the network, "" for all without a file of its own."""
        start = {"": self.start} if isinstance(self.start, str) else self.start or {}
        return {part: self.path(text) for part, text in start.items()}

    def write(self, path: Path) -> None:
        """Write the resolved experiment. :raises OutputError: no permission, no space."""
        write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), path)


def read_experiment(path: str | Path, changes: Sequence[str] = (), smoke: bool = False) -> Experiment:
    """Read and check an experiment.

    :param changes: such as "schedule.steps=200"; values are YAML.
    :param smoke: apply what the file says under ``smoke``.
    :raises InputError: missing, no YAML, or wrong; the sentence names the file and the first wrong entry.
    """
    path = Path(path)
    content = read_yaml(path)
    small = content.pop("smoke", {}) or {}
    if smoke:
        content = merged(content, small)
    for change in changes:
        content = merged(content, parsed(change))
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path.name}: {first_mistake(error)}; correct the experiment.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. :raises InputError: missing, no YAML, or something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The experiment {path} cannot be read ({error.strerror}); check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" (line {place.line + 1})" if place else ""
        raise InputError(f"{path.name} is no YAML{where}; correct it there.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.name} holds no experiment; see training/configs for examples.")
    return content


def parsed(change: str) -> dict[str, Any]:
    """``a.b=1`` as ``{"a": {"b": 1}}``. :raises InputError: for anything else."""
    key, equals, value = change.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f'"{change}" is no change; write for example schedule.steps=200.')
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f'The value in "{change}" is no YAML; put it into quotes.') from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``change`` over ``base``; mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in change.items():
        here = result.get(key)
        result[key] = merged(here, value) if isinstance(here, Mapping) and isinstance(value, Mapping) else value
    return result


def first_mistake(error: ValidationError) -> str:
    """The first wrong entry and what is wrong with it."""
    one = error.errors()[0]
    where = ".".join(str(part) for part in one["loc"]) or "the experiment"
    return f"{where}: {one['msg'][0].lower()}{one['msg'][1:].removeprefix('Value error, ')}"

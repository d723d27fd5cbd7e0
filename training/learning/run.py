"""The folder of a run: what was asked for, what came out, and how to read it again."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.writing import write_bytes, write_json
from training.configuration import Experiment
from training.learning.errors import TrainingError

RESULT_FREE = ("hardware",)
"""What may change when a run goes on: it changes no result."""


@dataclass(frozen=True)
class Run:
    """Paths and contents of a run's folder."""

    folder: Path

    @property
    def experiment_file(self) -> Path:
        """The resolved experiment."""
        return self.folder / "config.yaml"

    @property
    def split_file(self) -> Path:
        """Which records trained and which validated."""
        return self.folder / "split.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """After the last finished epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def weights_file(self) -> Path:
        """The trained network, half precision."""
        return self.folder / "model.safetensors"

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the trained network, by which what was measured of it is known."""
        return hashlib.sha256(self.weights_file.read_bytes()).hexdigest()

    @property
    def summary_file(self) -> Path:
        """Settings of the weights: see :meth:`write_weights`."""
        return self.folder / "model.json"

    @property
    def resources_file(self) -> Path:
        """Seconds and energy; see ``training.learning.resources``."""
        return self.folder / "resources.json"

    @property
    def data_file(self) -> Path:
        """What was learned from: sources, licences, counts."""
        return self.folder / "data.json"

    @property
    def failures_file(self) -> Path:
        """A picture for the model card, of cases that the weights fail in and that may be shown; there may be none."""
        return self.folder / "failures.png"

    @property
    def notes(self) -> str:
        """What people saw and measured besides, Markdown for the model card: ``notes.md`` in the folder, or nothing."""
        file = self.folder / "notes.md"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def begin(self, experiment: Experiment) -> None:
        """Write the experiment, or see that the run there is of the same one.

        :raises TrainingError: when it is of another.
        :raises OutputError: when the folder cannot be written.
        """
        if self.experiment_file.exists():
            if _decisive(self.experiment()) != _decisive(experiment):
                raise TrainingError(
                    f"{self.folder} holds a run of another experiment; give another --output or delete that folder."
                )
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be created ({error.strerror}); give another --output.") from error
        experiment.write(self.experiment_file)

    def experiment(self) -> Experiment:
        """The experiment of the run. :raises InputError: when this is no run's folder."""
        try:
            return Experiment.model_validate(yaml.safe_load(self.experiment_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise InputError(f"{self.folder} holds no run; give the --output of a training.") from error

    def stages(self) -> list[Run]:
        """The runs whose weights this one began with, and theirs, earliest first; this one last.

        Weights that lie in no run's folder are left out.
        """
        found: list[Run] = []
        for path in self.experiment().start_files.values():
            before = Run(path.parent)
            if before.experiment_file.exists():
                found += [one for one in before.stages() if one not in found]
        return [*found, self]

    def write_weights(self, weights: bytes, summary: dict[str, Any]) -> None:
        """Write the network's weights and what they are.

        :param summary: ``engine``, ``inference``, ``steps``.
        """
        write_bytes(weights, self.weights_file)
        write_json(summary, self.summary_file)

    def summary(self) -> dict[str, Any]:
        """What the weights are. :raises InputError: when the training has not ended yet."""
        return self._json(self.summary_file)

    def resources(self) -> dict[str, Any]:
        """What the training cost. :raises InputError: as :meth:`summary`."""
        return self._json(self.resources_file)

    def data(self) -> dict[str, Any]:
        """What was learned from. :raises InputError: as :meth:`summary`."""
        return self._json(self.data_file)

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.folder} has no {path.name}: its training has not ended; run the same training command again."
            ) from error

    def metrics(self) -> list[dict[str, float]]:
        """Everything logged, in the order of the steps; what a killed run did twice counts once.

        :return: rows with ``step``, ``epoch`` and those of the logged figures that the row has.
        """
        rows: list[dict[str, float]] = []
        for part in sorted((self.folder / "metrics").glob("part_*"), key=lambda path: int(path.name[5:])):
            found = list(_rows(part / "metrics.csv"))
            if found:
                first = min(row["step"] for row in found)
                rows = [row for row in rows if row["step"] < first] + found
        return rows

    def next_part(self) -> str:
        """Name of the log of a run that goes on."""
        return f"part_{len(list((self.folder / 'metrics').glob('part_*')))}"


def _decisive(experiment: Experiment) -> dict[str, Any]:
    return experiment.model_dump(exclude=set(RESULT_FREE))


def _rows(path: Path):
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            yield {name: float(value) for name, value in row.items() if value not in ("", None)}

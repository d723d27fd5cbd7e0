"""What a comparison is: a YAML file with arms that share data and budget, and the claims to be tested on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from COVIDMultitaskLib.errors import InputError
from training.compare.measures import MEAN, MEASURES
from training.configuration import Count, Experiment, Part, Positive, first_mistake, merged, parsed, read_yaml

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Arm(Part):
    """One way to train.

    :param title: for tables and plots.
    :param like: an arm before this one; its changes come first.
    :param changes: to the shared experiment.
    """

    title: str
    like: Name | None = None
    changes: dict[str, Any] = Field(default_factory=dict)


class Claim(Part):
    """That one arm is better than another.

    :param source: who claims it.
    :param says: the claim as this comparison tests it.
    :param measure: one of ``training.compare.measures.MEASURES``, or "mean" of all that the comparison names.
    :param goal: "more": better; "no_less": not worse by ``margin`` or more.
    :param margin: the smallest difference that matters.
    """

    source: str
    says: str
    arm: str
    against: str
    measure: str
    goal: Literal["more", "no_less"] = "more"
    margin: Positive = 0.02


class Choice(Part):
    """Which arm to use: the first one, unless another is better by the measure with its whole interval."""

    among: Annotated[list[str], Field(min_length=2)]
    measure: str


class Comparison(Part):
    """One comparison.

    :param question: what it is to answer, a paragraph.
    :param seeds: of the trainings; every arm is trained with each.
    :param shared: an experiment as far as it is the same for all arms.
    :param measures: to be shown of every arm.
    :param remarks: what a reader must know to judge the result, each a paragraph.
    """

    name: Name
    title: str
    question: str
    seeds: Annotated[list[Count], Field(min_length=1)]
    shared: dict[str, Any]
    arms: Annotated[dict[Name, Arm], Field(min_length=2)]
    measures: Annotated[list[str], Field(min_length=1)]
    claims: list[Claim] = Field(default_factory=list)
    choice: Choice | None = None
    remarks: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Comparison:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("the same seed twice is the same training twice")
        self._check_arms()
        self._check_measures()
        return self

    def _check_arms(self) -> None:
        before: list[str] = []
        for name, one in self.arms.items():
            if one.like is not None and one.like not in before:
                raise ValueError(f"{name} is to be like {one.like}, which is no arm before it")
            before.append(name)
        compared = [name for claim in self.claims for name in (claim.arm, claim.against)]
        for arm in [*compared, *(self.choice.among if self.choice else ())]:
            if arm not in self.arms:
                raise ValueError(f"there is no arm {arm}")

    def _check_measures(self) -> None:
        asked = [claim.measure for claim in self.claims] + ([self.choice.measure] if self.choice else [])
        for measure in [*self.measures, *(one for one in asked if one != MEAN)]:
            if measure not in MEASURES:
                raise ValueError(f"there is no measure {measure}; there are {', '.join(MEASURES)}")

    def experiment(self, arm: str, seed: int) -> Experiment:
        """What an arm trains with a seed.

        :raises InputError: when the arm's experiment is wrong.
        """
        content = merged(self.shared, self._changes(arm))
        try:
            return Experiment.model_validate({**content, "name": f"{self.name}-{arm}", "seed": seed})
        except ValidationError as error:
            raise InputError(
                f"The arm {arm} of {self.name}: {first_mistake(error)}; correct the comparison."
            ) from error

    def _changes(self, arm: str) -> dict[str, Any]:
        like, own = self.arms[arm].like, self.arms[arm].changes
        return merged(self._changes(like), own) if like else own


def read_comparison(path: str | Path, changes: Sequence[str] = (), smoke: bool = False) -> Comparison:
    """Read and check a comparison with all its experiments.

    :param changes: such as "shared.schedule.steps=200".
    :param smoke: apply what the file says under ``smoke``.
    :raises InputError: missing, no YAML, wrong, or arms of unequal data or budget.
    """
    path = Path(path)
    content = read_yaml(path)
    small = content.pop("smoke", {}) or {}
    for change in [*([small] if smoke else []), *(parsed(one) for one in changes)]:
        content = merged(content, change)
    try:
        comparison = Comparison.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path.name}: {first_mistake(error)}; correct the comparison.") from error
    _refuse_unequal(comparison)
    return comparison


def _refuse_unequal(comparison: Comparison) -> None:
    """:raises InputError: when arms differ in what must be equal for a fair comparison."""
    first, *others = comparison.arms
    wanted = _equal_for_all(comparison.experiment(first, comparison.seeds[0]))
    for arm in others:
        found = _equal_for_all(comparison.experiment(arm, comparison.seeds[0]))
        if unequal := [name for name, value in wanted.items() if found[name] != value]:
            raise InputError(
                f"The arms {first} and {arm} of {comparison.name} differ in {unequal[0]}, which must be equal "
                "for all; write it under shared."
            )


def _equal_for_all(experiment: Experiment) -> Mapping[str, Any]:
    """The data but for which labels are hidden, and the cases seen."""
    hidden = {"synthetic": {"labels"}}
    return {
        "data": experiment.data.model_dump(exclude=hidden),
        "schedule.steps": experiment.schedule.steps,
        "schedule.accumulate": experiment.schedule.accumulate,
        "schedule.keep": experiment.schedule.keep,
        "sampling.scans": experiment.sampling.scans,
        "sampling.slices": experiment.sampling.slices,
    }

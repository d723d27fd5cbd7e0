"""What each engine learns from a batch: one learner in one file for each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from COVIDMultitaskLib.errors import InputError

if TYPE_CHECKING:
    from training.learning.learner import Learner

LEARNERS = {
    "joint": "JointLearner",
    "m2unet": "M2UNetLearner",
    "deepsc-covid": "DeepSCCovidLearner",
    "triage": "TriageLearner",
    "amyar": "AmyarLearner",
}
"""Class of each engine's learner, in the module of the engine's name."""


def make_learner(engine: str, spacing_mm: float, network: dict[str, Any]) -> Learner:
    """The learner of an engine.

    :param network: arguments of its network.
    :raises InputError: for an unknown engine, or arguments that its network does not take.
    """
    try:
        return learner_class(engine)(spacing_mm=spacing_mm, **network)
    except (TypeError, ValueError) as error:
        raise InputError(f"The network of {engine} cannot be made so: {error}; correct the experiment.") from error


def learner_class(engine: str) -> type[Learner]:
    """The class of an engine's learner. :raises InputError: for an unknown engine."""
    if engine not in LEARNERS:
        raise InputError(f'There is no engine "{engine}" to train; choose one of {", ".join(sorted(LEARNERS))}.')
    return getattr(import_module(f"training.engines.{engine.replace('-', '_')}"), LEARNERS[engine])

"""What every engine takes and gives.

An engine answers some of four questions about a chest CT: where the lobes are, where
the lesions are, how severe the disease is, and what it probably is. An answer that an
engine does not give is ``None`` and is shown as "not assessed by this engine".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Volume

if TYPE_CHECKING:
    from COVIDMultitaskLib.reference_ranges import Reference

ANSWERS: tuple[str, ...] = ("lobes", "lesions", "severity", "diagnosis")

TAKES: dict[str, str] = {
    "scan": "the whole scan",
    "lung_box": "the box around the lungs",
    "bag": "slices, and patches of slices as a bag",
    "slices": "slices, one by one",
    "picture": "slices, one by one, or a single picture",
}
"""What an engine looks at."""


@dataclass(frozen=True)
class EngineIdentity:
    """Which weights gave an answer.

    :param engine: the engine's name, such as "joint".
    :param bundle: the weight bundle's name.
    :param version: the bundle's version.
    :param sha256: SHA-256 of the bundle's weight file, in hexadecimal.
    :param trained_on: one quiet line: what the weights were trained on.
    :param licence: SPDX identifier of the weights' licence.
    """

    engine: str
    bundle: str
    version: str
    sha256: str
    trained_on: str
    licence: str


@dataclass(frozen=True)
class Unlikeness:
    """How far the input is from the training data."""

    score: float
    threshold: float

    @property
    def is_unlike(self) -> bool:
        """Whether the reader is to be warned."""
        return self.score > self.threshold


@dataclass(frozen=True)
class AffectedShare:
    """Affected share of a region, 0..1, by probabilities instead of by the mask.

    :param expected: the mean probability of lesion.
    :param low: end of a 90 % interval, likewise ``high``; how it comes about and what it does not cover says
        :func:`COVIDMultitaskLib.inference.uncertainty.affected_shares`.
    """

    expected: float
    low: float
    high: float


UNCERTAINTY = "uncertainty"
"""Name of the evidence map that tells how unsure the lesions are: 0 one class is certain, 1 all equally likely."""


SLICE_PROBABILITIES = "slice_probabilities"
"""Name of the evidence that tells how probable COVID-19 is in each slice, which is no contribution that adds up."""


@dataclass(frozen=True)
class Prediction:
    """An engine's answers on the input's own grid.

    :param lobes: uint8 (z, y, x), values of ``labels.LOBES``.
    :param lesions: uint8 (z, y, x), values of ``labels.LESIONS``, inside the lungs only.
    :param severity: probability of each of ``labels.SEVERITIES``; sums to 1.
    :param diagnosis: probability of each of ``labels.DIAGNOSES``; sums to 1.
    :param unlikeness: how unlike the training data the input is.
    :param affected: affected shares by the keys of the findings' regions ("total", "left", "left_upper" ...).
    :param evidence: what the answers rest on, by name (letters, digits, ``_``): maps (z, y, x) on the input's
        grid with values 0..1, such as "uncertainty", or figures of parts (slices, patches) as rows (x, y, z, figure),
        the part's centre in LPS mm first; the figure is a contribution unless ``pipeline.PART_FIGURES`` says otherwise.
    :param lungs: uint8 (z, y, x), values of ``labels.LUNG_LABELS``, from an engine that knows the lungs but not their
        lobes.
    :param covid: probability of COVID-19, from an engine that tells it only from everything else.
    :param sources: which weights gave an answer that those of ``identity`` did not: by the answer's name, "lungs",
        "lobes" or "lesions".
    :param lesion_reference: how statistics of the lesions are distributed in cases of known diagnosis; see
        :mod:`COVIDMultitaskLib.measuring.differential`.
    """

    identity: EngineIdentity
    lobes: np.ndarray | None = None
    lesions: np.ndarray | None = None
    severity: Mapping[str, float] | None = None
    diagnosis: Mapping[str, float] | None = None
    unlikeness: Unlikeness | None = None
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    affected: Mapping[str, AffectedShare] | None = None
    lungs: np.ndarray | None = None
    covid: float | None = None
    sources: Mapping[str, EngineIdentity] = field(default_factory=dict)
    lesion_reference: Reference | None = None


class Engine(Protocol):
    """One way to answer; see CONTRIBUTING for how to add one.

    What is the same for all bundles of an engine stands on its class.
    """

    identity: EngineIdentity

    @property
    def name(self) -> str:
        """As in the registry and on the command line."""
        ...

    @property
    def answers(self) -> frozenset[str]:
        """Those of ``ANSWERS`` that it gives. "diagnosis" may be COVID-19 against everything else."""
        ...

    @property
    def takes(self) -> str:
        """What it looks at, a key of ``TAKES``."""
        ...

    def predict(self, volume: Volume, progress: Progress) -> Prediction:
        """Answer for one scan.

        :raises NotChestCTError: when the scan shows no lungs.
        :raises Cancelled: when the user asked to stop.
        """
        ...

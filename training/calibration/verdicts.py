"""What becomes of a scan: refused, flagged or passed, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.errors import InputError, NotChestCTError
from COVIDMultitaskLib.measuring import measure
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import check_chest_ct, to_hounsfield
from training.calibration.foreign import Foreign
from training.evaluate.results import Row

OUTCOMES = ("refused", "flagged", "passed")
_KINDS = {"foreign": "no chest CT", "altered": "altered chest", "chest": "chest as it is"}
_WORDS = {"refused": "refused", "flagged": "flagged", "passed": "passed silently"}


@dataclass(frozen=True)
class Verdict:
    """How a scan fared.

    :param outcome: "refused", "flagged" (there is a warning) or "passed".
    :param score: unlikeness divided by its threshold: above 1, warned of.
    :param reasons: the refusal's sentence, or the flags of all warnings.
    """

    name: str
    kind: str
    outcome: str
    score: float | None
    reasons: tuple[str, ...]


def judge(engine: JointEngine, scan: Foreign) -> Verdict:
    """Give a scan the way a user's would go, as far as the warnings."""
    try:
        volume = to_hounsfield(scan.volume)
        check_chest_ct(volume)
        prediction = engine.predict(volume, Progress())
    except (NotChestCTError, InputError) as refusal:
        return Verdict(scan.name, scan.kind, "refused", None, (str(refusal),))
    flags = tuple(flag.flag for flag in measure(volume, prediction).quality if flag.level == "warning")
    unlike = prediction.unlikeness
    score = None if unlike is None else unlike.score / unlike.threshold
    return Verdict(scan.name, scan.kind, "flagged" if flags else "passed", score, flags)


def rows(verdicts: Sequence[Verdict]) -> Iterator[Row]:
    """How many scans of each kind fared how, for a model card; those that fared wrong by name."""
    for kind, words in _KINDS.items():
        of_kind = [verdict for verdict in verdicts if verdict.kind == kind]
        for outcome in OUTCOMES if of_kind else ():
            names = [verdict.name for verdict in of_kind if verdict.outcome == outcome]
            yield Row.exact(words, _told(kind, outcome, names), len(names), len(of_kind))


def _told(kind: str, outcome: str, names: Sequence[str]) -> str:
    """An outcome in words. Chests as they are should pass, all else should not."""
    is_wrong = (outcome == "passed") != (kind == "chest")
    return _WORDS[outcome] + (f": {', '.join(names)}" if names and is_wrong else "")

"""Pictures of simulated held-out scans from a run's TensorBoard log; real patients' stay out of a page that travels."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from training.configuration import Experiment

_TAG = re.compile(r"held-out (\d+)")
"""As ``training.learning.pictures`` names them: by their place among the held-out cases, simulated ones first."""


@dataclass(frozen=True)
class Picture:
    """One page of a held-out scan.

    :param step: after which it was drawn.
    :param png: as a data URI.
    """

    case: int
    step: int
    png: str


def held_out_pictures(folder: Path, experiment: Experiment) -> list[list[Picture]]:
    """For each simulated case its first picture and its last, or its only one.

    :param folder: of the TensorBoard log; there may be none.
    """
    synthetic = experiment.data.synthetic
    if synthetic is None or not folder.is_dir():
        return []
    from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

    log = EventAccumulator(str(folder), size_guidance={IMAGES: 0})
    log.Reload()
    numbers = {tag: int(found.group(1)) for tag in log.Tags()[IMAGES] if (found := _TAG.fullmatch(tag))}
    shown = sorted((number, tag) for tag, number in numbers.items() if number < synthetic.val)
    return [_first_and_last(number, log.Images(tag)) for number, tag in shown]


def _first_and_last(case: int, events) -> list[Picture]:
    chosen = [events[0], events[-1]] if len(events) > 1 else list(events)
    return [Picture(case, event.step, _uri(event.encoded_image_string)) for event in chosen]


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

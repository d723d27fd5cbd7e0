"""How long the engines take on this machine: remembered, shown, and what a progress bar goes by. Pure Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .compat import tr as _
from .protocol import PLAN, planOf

_KEY = "COVIDMultitask/RunTimes"


class RunTimes:
    """The last run of each engine on each device.

    :param settings: keeps texts by key, as ``QSettings`` does.
    """

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def remember(self, engine: str, device: str, durations: Mapping[str, float], megavoxels: float) -> None:
        """Keep a run's seconds by stage, and the size of its scan in million voxels."""
        known = self._known()
        stages = {stage: round(seconds, 3) for stage, seconds in durations.items()}
        known[f"{engine}|{device}"] = {"stages": stages, "megavoxels": round(megavoxels, 1)}
        self._settings.setValue(_KEY, json.dumps(known))

    def text(self, engine: str, device: str) -> str:
        """The last run in words; empty: there was none."""
        run = self._known().get(f"{engine}|{device}")
        if run is None:
            return ""
        return _("{seconds} s for {size} million voxels").format(
            seconds=round(sum(run["stages"].values())), size=f"{run['megavoxels']:.0f}"
        )

    def plan(self, engine: str, device: str) -> Sequence[tuple[str, float]]:
        """The stages of a run to come, each with its probable share of the time."""
        run = self._known().get(f"{engine}|{device}")
        return PLAN if run is None else planOf(run["stages"])

    def _known(self) -> dict[str, dict[str, Any]]:
        """What is remembered; settings of another version, or damaged ones, are forgotten."""
        try:
            known = json.loads(str(self._settings.value(_KEY, "") or "{}"))
            return {
                str(key): {
                    "stages": {str(stage): max(float(s), 0.0) for stage, s in run["stages"].items()},
                    "megavoxels": float(run["megavoxels"]),
                }
                for key, run in known.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError):
            return {}

"""How many simulated scans one core makes in a second, and what share each part of the making takes.

    python Testing/benchmarks/synthesis.py --count 12
    python Testing/benchmarks/synthesis.py --count 12 --save before.json
    python Testing/benchmarks/synthesis.py --count 12 --compare before.json

Processor time is measured rather than the clock's, since others may use the machine; figures of two machines do not
compare. The shapes are those of ``training.synthesis.anatomy``.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY))

from training.synthesis import chest  # noqa: E402
from training.synthesis.anatomy import load_anatomy  # noqa: E402
from training.synthesis.cases import CaseSettings, split_shapes  # noqa: E402
from training.synthesis.draw import Draw  # noqa: E402

STEPS = ("deform", "render_body", "make_lungs", "draw_lesions", "with_look_alikes", "acquire", "_labels_on")


def timed(function: Callable, seconds: dict[str, float], name: str) -> Callable:
    """The function, which adds its processor time to ``seconds[name]``."""

    def wrapper(*arguments, **named):
        start = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - start

    return wrapper


def measure(shapes: list[Path], count: int, settings: CaseSettings) -> tuple[list[float], dict[str, float]]:
    """Processor seconds of each scan, and of each step over all scans."""
    steps: dict[str, float] = {}
    cases = []
    with ExitStack() as patches:
        for name in STEPS:
            patches.enter_context(patch.object(chest, name, timed(getattr(chest, name), steps, name)))
        for seed in range(count):
            start = time.process_time()
            anatomy = load_anatomy(shapes[seed * len(shapes) // count])
            chest.make_chest(anatomy, Draw(seed), settings.size, settings.spacing_mm)
            cases.append(time.process_time() - start)
    return cases, steps


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anatomies", type=Path, default=REPOSITORY / ".cache" / "anatomy")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=3, default=CaseSettings.size, metavar=("Z", "Y", "X"))
    parser.add_argument("--save", type=Path, help="write the median here")
    parser.add_argument("--compare", type=Path, help="a file written by --save, in this sitting")
    arguments = parser.parse_args()
    shapes = split_shapes(arguments.anatomies)["train"]
    if not shapes:
        parser.error(f"{arguments.anatomies} holds no shapes; make them with python -m training.synthesis.anatomy")
    cases, steps = measure(shapes, arguments.count, CaseSettings(tuple(arguments.size)))
    median = statistics.median(cases)
    print(f"{platform.processor() or platform.machine()}, {arguments.count} scans of {tuple(arguments.size)} voxels")
    print(
        f"median {median:.2f} s a scan ({min(cases):.2f} to {max(cases):.2f}); {1 / median:.2f} scans a second and core"
    )
    for name, seconds in sorted(steps.items(), key=lambda item: -item[1]):
        print(f"  {name.strip('_'):18} {100 * seconds / sum(cases):5.1f} %")
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    if arguments.compare:
        before = json.loads(arguments.compare.read_text())["median_s"]
        print(f"{before / median:.2f} times as quick as before")
    if arguments.save:
        arguments.save.write_text(json.dumps({"median_s": median}))


if __name__ == "__main__":
    main()

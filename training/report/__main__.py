"""What a training run did, in one HTML file: ``python -m training.report runs/joint``.

Curves, data with their licences, figures of the evaluations with intervals, pictures of simulated held-out cases,
time and energy, the resolved experiment and the limits. A run that goes on, or was resumed, is shown as far as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from COVIDMultitaskLib.errors import CovidMultitaskError, explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and write the report; returns 0, or another number after one sentence."""
    from training.learning.run import Run
    from training.report.page import write_report

    parser = argparse.ArgumentParser(
        prog="python -m training.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a training, its --output")
    parser.add_argument("--output", type=Path, metavar="FILE", help="HTML file (default: report.html in the folder)")
    options = parser.parse_args(arguments)
    output = options.output or options.run / "report.html"
    try:
        write_report(Run(options.run), output)
    except CovidMultitaskError as error:
        sentence, code = explain(error)
        print(sentence, file=sys.stderr)
        return code
    print(f"Report: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Where time and memory of an analysis go, stage by stage.

Runs ``covid-multitask analyze`` in child processes, measured from process start to process
end, and prints the median of several runs. Figures of two machines, or of one machine at
different times, do not compare: measure both sides in one sitting, one with ``--save``,
the other with ``--compare``.

    python Testing/benchmarks/analyze.py path/to/scan --save before.json
    python Testing/benchmarks/analyze.py path/to/scan --compare before.json
    python Testing/benchmarks/analyze.py path/to/scan --engine triage --max-seconds 90 --max-mb 4000

An engine whose weights are not installed is measured with random ones of full size: neither time nor memory depends
on them much.
Linux only (memory is read from /proc).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SAMPLE_EVERY_S = 0.02
START, END = "start", "end"
TITLES = {START: "start Python, import", END: "leave"}


@dataclass
class Run:
    """One analysis.

    :param seconds: wall time of each stage, in order; they add up to the whole.
    :param peak_mb: largest resident memory of the child during each stage.
    :param maximum_mb: the child's largest resident memory as the kernel has counted it.
    :param cpu_s: processor time, of all threads together.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    maximum_mb: float = 0.0
    cpu_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Wall time from process start to process end."""
        return sum(self.seconds.values())


class StageClock:
    """Gives the time since the last call to the stage that was running."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.stage = START
        self._since = time.perf_counter()

    def enter(self, stage: str) -> None:
        """Another stage begins (or the same goes on)."""
        now = time.perf_counter()
        self.run.seconds[self.stage] = self.run.seconds.get(self.stage, 0.0) + now - self._since
        self.stage, self._since = stage, now


def resident_mb(process_id: int) -> float:
    """Resident memory of a process in megabytes (10^6 bytes); 0 when it has gone."""
    try:
        pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def sample_memory(process_id: int, clock: StageClock, stop: threading.Event) -> None:
    """Keep the largest resident memory of each stage until told to stop."""
    while not stop.wait(SAMPLE_EVERY_S):
        peaks, stage = clock.run.peak_mb, clock.stage
        peaks[stage] = max(peaks.get(stage, 0.0), resident_mb(process_id))


def stage_of(line: str) -> str | None:
    """The stage that a line of the command's ``--json`` output names."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    return END if event.get("event") == "done" else event.get("stage")


def said(line: str) -> str:
    """The sentence of an error event; any other line as it is."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, TypeError, KeyError):
        return line


def measure(command: Sequence[str | Path]) -> Run:
    """Run a command that prints JSON events, and measure it.

    :raises SystemExit: when the command fails; its own words are in the message.
    """
    run = Run()
    clock, stop = StageClock(run), threading.Event()
    # the child's stderr goes to this one's: a pipe that nobody empties would block the child
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    sampler = threading.Thread(target=sample_memory, args=(child.pid, clock, stop))
    sampler.start()
    last = ""
    assert child.stdout is not None
    for line in child.stdout:
        last = line.strip() or last
        stage = stage_of(line)
        if stage:
            clock.enter(stage)
    _, status, usage = os.wait4(child.pid, 0)
    clock.enter(END)
    stop.set()
    sampler.join()
    child.stdout.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"The analysis failed with exit code {child.returncode}: {said(last)}")
    run.maximum_mb = usage.ru_maxrss * 1024 / 1e6
    run.cpu_s = usage.ru_utime + usage.ru_stime
    return run


def analysis(scan: Path, output: Path, options: Sequence[str]) -> list[str]:
    """The command line to measure."""
    return [sys.executable, "-m", "COVIDMultitaskLib", "analyze", str(scan), "-o", str(output), "--json", *options]


def warm_up() -> None:
    """Bring the packages into the disk cache, as they are on a machine in use."""
    code = "import torch, monai, SimpleITK, scipy.ndimage, pydicom, matplotlib.pyplot"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def median_run(runs: Sequence[Run]) -> Run:
    """Medians over runs: per stage, and of the maxima."""

    def medians(parts: list[dict[str, float]]) -> dict[str, float]:
        return {stage: statistics.median(part.get(stage, 0.0) for part in parts) for stage in parts[0]}

    return Run(
        medians([run.seconds for run in runs]),
        medians([run.peak_mb for run in runs]),
        statistics.median(run.maximum_mb for run in runs),
        statistics.median(run.cpu_s for run in runs),
    )


def machine() -> str:
    """One line about where this was measured."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "?")
    fast = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f" {flag}" in cpuinfo]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    packages = " ".join(f"{name} {installed(name)}" for name in ("torch", "monai"))
    return (
        f"{model} ({fast[0] if fast else 'no AVX2'}), {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB, "
        f"Python {platform.python_version()}, {packages}"
    )


def installed(name: str) -> str:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def table(run: Run, reference: Run | None = None) -> str:
    """The stages as lines of text; with a reference, how many times as long and as large each is."""
    lines = [f"{'stage':<24}{'s':>9}{'share':>8}{'peak MB':>10}" + ("   time x  memory x" if reference else "")]
    for stage, seconds in run.seconds.items():
        peak = run.peak_mb.get(stage, 0.0)
        line = f"{TITLES.get(stage, stage):<24}{seconds:9.2f}{seconds / run.total_s:8.0%}{peak:10.0f}"
        if reference:
            line += ratios(seconds, reference.seconds.get(stage), peak, reference.peak_mb.get(stage))
        lines.append(line)
    line = f"{'whole':<24}{run.total_s:9.2f}{'':8}{run.maximum_mb:10.0f}"
    if reference:
        line += ratios(run.total_s, reference.total_s, run.maximum_mb, reference.maximum_mb)
    return "\n".join([*lines, line, f"processor time {run.cpu_s:.1f} s: {run.cpu_s / run.total_s:.2f} cores at work"])


def ratios(seconds: float, seconds_before: float | None, peak: float, peak_before: float | None) -> str:
    """Time and memory divided by the reference's."""
    pairs = ((seconds, seconds_before), (peak, peak_before))
    return "".join(f"{now / before:9.2f}" if before else f"{'-':>9}" for now, before in pairs)


def save(path: Path, run: Run, runs: Sequence[Run], scan: Path) -> None:
    """Write the figures for a later ``--compare``."""
    record = {"machine": machine(), "scan": scan.name, "median": asdict(run), "runs": [asdict(each) for each in runs]}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[str, Run]:
    """Machine and median run of a saved file."""
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["machine"], Run(**record["median"])


def default_scan() -> Path | None:
    """The 512 x 512 x 248 scan for which the budget is given, where it is at hand."""
    data = Path(os.environ.get("COVID_MULTITASK_DATA", REPOSITORY.parent / "shared" / "data"))
    scan = data / "ct" / "RICORD1A_001012"
    return scan if scan.is_dir() else None


def arguments() -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, nargs="?", default=default_scan(), help="DICOM folder or image file")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the median is taken (default 3)")
    parser.add_argument("--save", type=Path, metavar="JSON", help="write the figures")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="figures to compare with")
    parser.add_argument("--max-seconds", type=float, help="fail when the median takes longer")
    parser.add_argument("--max-mb", type=float, help="fail when the median needs more memory")
    parser.add_argument("--engine", help="measure this engine")
    parser.add_argument(
        "--option", action="append", default=[], help="passed on to analyze, as in --option=--device=cpu"
    )
    chosen = parser.parse_args()
    if chosen.scan is None:
        parser.error("name a scan: a DICOM folder, NIfTI, NRRD or MetaImage file")
    return chosen


def engine_options(engine: str | None, folder: Path) -> list[str]:
    """How to ask for an engine; with random weights in a bundle under ``folder`` where none ship."""
    if engine is None:
        return []
    listed = subprocess.run(
        [sys.executable, "-m", "COVIDMultitaskLib", "engines", "--json"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        check=True,
    )
    if any(row["engine"] == engine and row["bundle"] for row in json.loads(listed.stdout)["engines"]):
        return ["--engine", engine]
    make = [sys.executable, "-m", "Testing.library.tiny_bundle", engine, str(folder / engine)]
    subprocess.run(make, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
    print(f"{engine} has no weights installed: measured with random ones")
    return ["--bundle", str(folder / engine)]


def measure_all(scan: Path, repeat: int, options: Sequence[str]) -> list[Run]:
    """Several runs, each into a new folder."""
    warm_up()
    runs = []
    for number in range(repeat):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            runs.append(measure(analysis(scan.resolve(), Path(folder) / "results", options)))
        print(f"run {number + 1} of {repeat}: {runs[-1].total_s:.2f} s, {runs[-1].maximum_mb:.0f} MB", flush=True)
    return runs


def main() -> int:
    """Exit code: 1 when a limit is exceeded."""
    chosen = arguments()
    print(f"{chosen.scan.name} on {machine()}")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        options = [*engine_options(chosen.engine, Path(folder)), *chosen.option]
        runs = measure_all(chosen.scan, max(chosen.repeat, 1), options)
    run = median_run(runs)
    reference = None
    if chosen.compare:
        where, reference = load(chosen.compare)
        print(f"compared with {chosen.compare.name}" + ("" if where == machine() else f", of ANOTHER machine: {where}"))
    print(table(run, reference))
    if chosen.save:
        save(chosen.save, run, runs, chosen.scan)
    too_slow = chosen.max_seconds is not None and run.total_s > chosen.max_seconds
    too_large = chosen.max_mb is not None and run.maximum_mb > chosen.max_mb
    return int(too_slow or too_large)


if __name__ == "__main__":
    sys.exit(main())

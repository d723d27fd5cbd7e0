"""The command line ``covid-multitask``.

Exit codes: 0 done, 1 our fault, 2 the input (or the output folder, or the weights) is
wrong, 3 refused because it is not a chest CT, 130 cancelled.

With ``--json`` every line of standard output is one JSON object: any number of
``{"event": "progress", "stage", "fraction", "elapsed_s"}``, then either
``{"event": "done", "output"}`` or ``{"event": "error", "message", "exit_code"}``. The
command ``engines`` prints ``{"event": "engines", "engines": [...]}`` instead of "done".

SIGINT and SIGTERM stop an analysis at its next step, well within a second or two, and
leave nothing behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from COVIDMultitaskLib import __version__
from COVIDMultitaskLib.errors import CovidMultitaskError, explain
from COVIDMultitaskLib.progress import STAGES, Event, Progress

if TYPE_CHECKING:
    from COVIDMultitaskLib.engines.contract import Engine
    from COVIDMultitaskLib.findings import Findings
    from COVIDMultitaskLib.phantom import Phantom
    from COVIDMultitaskLib.pipeline import Analysis
    from COVIDMultitaskLib.volume import Volume

app = typer.Typer(
    name="covid-multitask",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Lobes, COVID-19 lesions, severity and diagnosis from one chest CT. Research use only; not a medical device.",
)

OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
EngineOption = Annotated[
    str | None, typer.Option(help="Engine, with its shipped weights; the command engines lists them.")
]
FillOption = Annotated[
    str | None, typer.Option("--fill-with", help="Engine that supplies lobes and lesions the chosen one does not give.")
]
BundleOption = Annotated[Path | None, typer.Option(help="Folder of a weight bundle to use instead.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results in the folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines for machines.")]


@app.command("analyze")
def analyze_command(
    scan: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="DICOM folder, NIfTI, NRRD or MetaImage file; for amyar also a PNG or JPEG picture of one slice.",
        ),
    ],
    output: OutputOption,
    engine: EngineOption = None,
    bundle: BundleOption = None,
    fill_with: FillOption = None,
    device: DeviceOption = "auto",
    series: Annotated[str | None, typer.Option(help="Series Instance UID, when the folder holds several.")] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write a map of how uncertain the lesions are, too (joint).")
    ] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Analyse a chest CT: lobes.nrrd, lesions.nrrd, findings.json and overview.png.

    Of a picture of one slice: lesions.png, findings.json and overview.png.
    """
    from COVIDMultitaskLib.engines.registry import make_engine
    from COVIDMultitaskLib.pipeline import read_scan

    with _reported(as_json) as face:
        chosen = make_engine(engine, bundle, device, fill_with)
        if uncertainty:
            _ask_for_uncertainty(chosen)
        _run(lambda progress: read_scan(scan, chosen, progress, series), chosen, output, overwrite, face)


def _ask_for_uncertainty(engine: Engine) -> None:
    """:raises InputError: when the engine has no such map."""
    from COVIDMultitaskLib.engines.contract import UNCERTAINTY
    from COVIDMultitaskLib.errors import InputError

    if not hasattr(engine, "evidence"):
        raise InputError(f"The engine {engine.name} does not tell its uncertainty; leave out --uncertainty.")
    engine.evidence = frozenset({UNCERTAINTY})


@app.command("demo")
def demo_command(
    output: OutputOption = Path("output"),
    seed: Annotated[int, typer.Option(min=0, help="Which phantom.")] = 0,
    disease: Annotated[str, typer.Option(help="covid_19, other_pneumonia or no_pneumonia.")] = "covid_19",
    engine: EngineOption = None,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Analyse a generated chest phantom and compare with its known truth.

    Earlier results in the folder are replaced.
    """
    from COVIDMultitaskLib.engines.registry import make_engine
    from COVIDMultitaskLib.errors import InputError
    from COVIDMultitaskLib.labels import DIAGNOSES

    made: list[Phantom] = []

    def make(progress: Progress) -> Volume:
        from COVIDMultitaskLib.phantom import make_phantom

        with progress.stage("read"):
            made.append(make_phantom(seed, disease=disease))
        return made[0].volume

    with _reported(as_json) as face:
        if disease not in DIAGNOSES:
            raise InputError(f"There is no disease {disease!r}; choose one of {', '.join(DIAGNOSES)}.")
        chosen = make_engine(engine, bundle, device)
        _run(make, chosen, output, True, face, lambda: _truth_of(made[0]))


@app.command("engines")
def engines_command(as_json: JsonOption = False) -> None:
    """List the engines: what they answer, their weights, and what these were trained on.

    An engine without weights can be used with a bundle folder.
    """
    from COVIDMultitaskLib.engines.registry import engine_rows

    with _reported(as_json) as face:
        face.list_engines(engine_rows())


def _run(
    read: Callable[[Progress], Volume],
    engine: Engine,
    output: Path,
    overwrite: bool,
    face: _Face,
    truth: Callable[[], Findings] | None = None,
) -> None:
    from COVIDMultitaskLib.pipeline import analyze_to_folder

    progress = Progress(face.on_event, _cancelled.is_set)
    analysis = analyze_to_folder(read, engine, output, overwrite, progress)
    face.done(analysis, output, truth() if truth else None)


def _truth_of(phantom: Phantom) -> Findings:
    """What would have been measured, had the engine been right in everything."""
    from COVIDMultitaskLib.engines.contract import EngineIdentity, Prediction
    from COVIDMultitaskLib.labels import DIAGNOSES
    from COVIDMultitaskLib.measuring import measure

    identity = EngineIdentity("truth", "phantom", __version__, "", "the phantom's own labels", "Apache-2.0")
    diagnosis = {name: float(name == phantom.diagnosis) for name in DIAGNOSES}
    return measure(phantom.volume, Prediction(identity, phantom.lobes, phantom.lesions, None, diagnosis))


class _Face(Protocol):
    """How the command speaks: to a person or to a machine."""

    def on_event(self, event: Event) -> None: ...
    def done(self, analysis: Analysis, output: Path, truth: Findings | None) -> None: ...
    def error(self, message: str, exit_code: int) -> None: ...
    def list_engines(self, rows: list[dict]) -> None: ...
    def close(self) -> None: ...


class _JsonFace:
    """One JSON object a line on standard output."""

    def on_event(self, event: Event) -> None:
        self._say(event="progress", stage=event.stage, fraction=event.fraction, elapsed_s=round(event.elapsed_s, 3))

    def done(self, analysis: Analysis, output: Path, truth: Findings | None) -> None:
        self._say(event="done", output=str(output))

    def error(self, message: str, exit_code: int) -> None:
        self._say(event="error", message=message, exit_code=exit_code)

    def list_engines(self, rows: list[dict]) -> None:
        self._say(event="engines", engines=rows)

    def close(self) -> None:
        pass

    @staticmethod
    def _say(**record: object) -> None:
        # ASCII only: whatever code page the other side reads with, it reads this.
        print(json.dumps(record), flush=True)


class _TerminalFace:
    """A progress bar, tables, and errors on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._console = Console(emoji=False, markup=False, highlight=False)
        self._errors = Console(emoji=False, markup=False, highlight=False, stderr=True, soft_wrap=True)
        columns = (TextColumn("{task.description:<32}"), BarColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, console=self._errors, transient=True)
        self._task = self._bar.add_task("Starting", total=len(STAGES))

    def on_event(self, event: Event) -> None:
        if not self._errors.is_terminal:  # a log file wants no bar, nor the empty lines it would leave
            return
        self._bar.start()
        before = list(STAGES).index(event.stage) if event.stage in STAGES else 0
        self._bar.update(
            self._task, description=STAGES.get(event.stage, event.stage), completed=before + event.fraction
        )

    def done(self, analysis: Analysis, output: Path, truth: Findings | None) -> None:
        from COVIDMultitaskLib.reporting import print_findings

        self.close()
        print_findings(analysis.findings, self._console, truth)
        self._console.print(f"Written to {output}", soft_wrap=True)

    def error(self, message: str, exit_code: int) -> None:
        self.close()
        self._errors.print(message)

    def list_engines(self, rows: list[dict]) -> None:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(no_wrap=True, style="dim")
        table.add_column()
        for row in rows:
            for place, (fact, words) in enumerate(_engine_in_words(row).items()):
                table.add_row(row["engine"] if place == 0 else "", fact, words)
            table.add_section()
        self._console.print(table)

    def close(self) -> None:
        if self._bar.live.is_started:
            self._bar.stop()


def _engine_in_words(row: dict) -> dict[str, str]:
    """What is known of an engine and its weights, by what it tells."""
    told = {"answers": ", ".join(row["answers"])}
    if row["bundle"] is None:
        return {**told, "weights": "no weights installed"}
    size = f", {row['parameters'] / 1e6:.1f} million parameters" if row["parameters"] else ""
    told["weights"] = f"{row['bundle']} {row['version']}{size}"
    if row["seconds"]:
        told["time"] = f"{row['seconds']:.0f} s for the reference scan on two cores"
    kept = {"licence": "licence", "trained on": "trained_on", "quality": "quality"}
    return told | {fact: row[key] for fact, key in kept.items() if row[key]}


_cancelled = threading.Event()


@contextmanager
def _reported(as_json: bool) -> Iterator[_Face]:
    """Turn every error into one sentence and an exit code; stop gently when asked to."""
    face: _Face = _JsonFace() if as_json else _TerminalFace()
    try:
        with _cancellable():
            yield face
    except BrokenPipeError:  # nobody reads any more: typer leaves quietly
        raise
    except (Exception, KeyboardInterrupt) as error:
        message, exit_code = explain(error)
        if not isinstance(error, CovidMultitaskError) and exit_code == CovidMultitaskError.exit_code:
            message += " COVID_MULTITASK_DEBUG=1 shows the details."
            if os.environ.get("COVID_MULTITASK_DEBUG"):
                traceback.print_exc()
        face.error(message, exit_code)
        raise typer.Exit(exit_code) from error
    finally:
        face.close()


@contextmanager
def _cancellable() -> Iterator[None]:
    """While this lasts, SIGINT and SIGTERM ask to stop instead of stopping."""

    def cancel(number: int, frame: FrameType | None) -> None:
        if _cancelled.is_set():  # asked twice: do not wait for the current step
            raise KeyboardInterrupt
        _cancelled.set()

    _cancelled.clear()
    if threading.current_thread() is not threading.main_thread():  # only the main one hears signals
        yield
        return
    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _main_for_machines() -> int:
    """As ``app()``, but what is wrong with the command line itself is said in JSON too."""
    try:
        return app(standalone_mode=False) or 0
    except Exception as error:  # typer's own; where its class lives depends on typer's version
        if not hasattr(error, "format_message"):
            raise
        _JsonFace().error(error.format_message(), 2)
        return 2


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:  # a code page without the table's lines must not stop the command
            reconfigure(errors="replace")
    if "--json" in sys.argv:
        sys.exit(_main_for_machines())
    app()

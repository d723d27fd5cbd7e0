"""A process that stays: models remain loaded between scans, JSON lines go both ways.

``python -m COVIDMultitaskLib.worker`` reads requests from standard input and says events on standard
output, one JSON object a line, UTF-8. Version 1 of the protocol:

=================================================================================  ==========================
request                                                                            ends with the event
=================================================================================  ==========================
``{"request": "analyze", "id", "input", "output", "engine", "bundle", "device"}``  ``done``, with ``output``
``{"request": "phantom", "id", "output", "seed", "spacing_mm"}``                   ``done``, with ``output``
``{"request": "devices", "id"}``                                                   ``devices``
``{"request": "ping", "id"}``                                                      ``pong``, with ``busy``
``{"request": "cancel", "id"}``                                                    the cancelled one's ``error``
``{"request": "shutdown"}``                                                        ``bye``
=================================================================================  ==========================

``id`` is the client's own; each event of a request carries it. ``input`` is what ``covid-multitask analyze``
takes, ``output`` the folder of the results (of the phantom: a volume file); ``engine``, ``bundle``,
``device`` and ``fill_with`` may be absent or null; with ``"overview": false`` no picture is drawn, so that
matplotlib is not needed; ``"evidence": ["uncertainty"]`` asks for maps that an engine gives only on request.
One request runs at a time; ping and cancel are answered meanwhile.

The first event is ``{"event": "hello", "protocol", "version", "process"}``. While a request runs:
``{"event": "progress", "id", "stage", "fraction", "elapsed_s"}`` with the keys of
``COVIDMultitaskLib.progress.STAGES``. A request that fails ends with
``{"event": "error", "id", "message", "exit_code"}``: one sentence, and the exit code that the command
line would have (130: cancelled). Nothing a request holds ends the process. It ends on ``shutdown``, when
its standard input is closed, or after some idle time, with ``{"event": "bye", "reason"}``.

What libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from COVIDMultitaskLib import __version__
from COVIDMultitaskLib.errors import Cancelled, InputError, explain
from COVIDMultitaskLib.progress import Event, Progress

if TYPE_CHECKING:
    from COVIDMultitaskLib.engines.contract import Engine

PROTOCOL = 1
IDLE_S = 900.0

Request = Mapping[str, Any]


class WarmEngine:
    """The engine of the last request, with its models loaded; another choice replaces it."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._choice: tuple[object, ...] = ()

    def get(self, name: str | None, bundle: str | None, device: str, fill_with: str | None = None) -> Engine:
        """The engine as :func:`make_engine` makes it: the bundle's files are checked every time, loaded once."""
        from COVIDMultitaskLib.engines.registry import make_engine

        fresh = make_engine(name, bundle, device, fill_with)  # light: models are loaded when first used
        choice = (fresh.identity, device, fill_with)
        if self._engine is None or self._choice != choice:
            self._engine, self._choice = fresh, choice
        return self._engine


class Worker:
    """Serves the requests of one client.

    :param say: writes one event.
    :param idle_s: how long to wait for the next request before leaving.
    """

    def __init__(self, say: Callable[[dict[str, Any]], None], idle_s: float = IDLE_S) -> None:
        self._say = say
        self._idle_s = idle_s
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._current: Request | None = None
        self._cancelled = threading.Event()
        self._reason = "shutdown"
        self._engine = WarmEngine()
        self._handlers: dict[str, Callable[[Request], dict[str, Any]]] = {
            "analyze": self._analyze,
            "phantom": self._phantom,
            "devices": self._devices,
        }

    def serve(self, lines: Iterable[bytes]) -> None:
        """Answer until told to leave, the lines end, or nothing comes for long."""
        self._say({"event": "hello", "protocol": PROTOCOL, "version": __version__, "process": os.getpid()})
        threading.Thread(target=self._listen, args=(lines,), name="requests", daemon=True).start()
        try:
            while request := self._waiting.get(timeout=self._idle_s):
                self._run(request)
        except queue.Empty:
            self._reason = "idle"
        self._say({"event": "bye", "reason": self._reason})

    def _listen(self, lines: Iterable[bytes]) -> None:
        """Take requests in while another one runs."""
        for line in lines:
            if line.strip():
                self._take(line)
        self._leave("client gone")

    def _take(self, line: bytes) -> None:
        request: Request = {}
        try:
            request = _parse(line)
            self._dispatch(request)
        except InputError as error:
            self._fail(request, error)

    def _dispatch(self, request: Request) -> None:
        name = request["request"]
        if name == "ping":
            self._say({"event": "pong", "id": request.get("id"), "busy": self._current is not None})
        elif name == "cancel":
            self._cancel(request.get("id"))
        elif name == "shutdown":
            self._leave("shutdown")
        elif name in self._handlers:
            self._accept(request)
        else:
            raise InputError(f"There is no request {name!r} in version {PROTOCOL} of the worker's protocol.")

    def _accept(self, request: Request) -> None:
        with self._lock:
            if self._current is not None:
                raise InputError("Another analysis is running; wait for it or cancel it.")
            self._cancelled.clear()
            self._current = request
        self._waiting.put(request)

    def _cancel(self, identifier: object) -> None:
        with self._lock:
            if self._current is not None and identifier in (None, self._current.get("id")):
                self._cancelled.set()

    def _leave(self, reason: str) -> None:
        self._reason = reason
        self._cancelled.set()
        self._waiting.put(None)

    def _run(self, request: Request) -> None:
        try:
            answer = self._handlers[request["request"]](request)
        except Exception as error:
            if not isinstance(error, Cancelled):
                traceback.print_exc()
            answer = _error(error)
        with self._lock:  # before the answer is said: the client may ask again at once
            self._current = None
        self._say({**answer, "id": request.get("id")})

    def _fail(self, request: Request, error: Exception) -> None:
        self._say({**_error(error), "id": request.get("id")})

    def _progress(self, request: Request) -> Progress:
        def tell(event: Event) -> None:
            step = {"stage": event.stage, "fraction": event.fraction, "elapsed_s": round(event.elapsed_s, 3)}
            self._say({"event": "progress", "id": request.get("id"), **step})

        return Progress(tell, self._cancelled.is_set)

    def _analyze(self, request: Request) -> dict[str, Any]:
        from COVIDMultitaskLib.pipeline import analyze_to_folder, read_scan

        scan, output = _text(request, "input"), Path(_text(request, "output"))
        progress = self._progress(request)
        progress.check()
        engine = self._engine.get(
            _option(request, "engine"), _option(request, "bundle"), _device(request), _option(request, "fill_with")
        )
        if hasattr(engine, "evidence"):  # what it gives only on request
            engine.evidence = frozenset(_names(request, "evidence"))
        analyze_to_folder(
            lambda progress: read_scan(scan, engine, progress, _option(request, "series")),
            engine,
            output,
            bool(request.get("overwrite", False)),
            progress,
            bool(request.get("overview", True)),
        )
        return {"event": "done", "output": str(output)}

    def _phantom(self, request: Request) -> dict[str, Any]:
        from COVIDMultitaskLib.phantom import make_phantom
        from COVIDMultitaskLib.writing import write_volume

        output, progress = _text(request, "output"), self._progress(request)
        try:
            z, y, x = (float(s) for s in request.get("spacing_mm") or (2.5, 1.25, 1.25))
            seed = int(request.get("seed", 0))
        except (TypeError, ValueError) as error:
            raise InputError("The phantom's spacing must be three lengths in mm, its seed a whole number.") from error
        with progress.stage("read"):
            phantom = make_phantom(seed, (z, y, x))
        with progress.stage("write"):
            write_volume(phantom.volume, output)
        return {"event": "done", "output": output}

    def _devices(self, request: Request) -> dict[str, Any]:
        from COVIDMultitaskLib.inference.device import list_devices

        return {"event": "devices", "devices": list_devices()}


def _parse(line: bytes) -> Request:
    """:raises InputError: when the line is no request."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError("A line that is no JSON came to the worker; send one JSON object a line.") from error
    if not isinstance(request, dict) or not isinstance(request.get("request"), str):
        raise InputError('A line without a request came to the worker; send {"request": ...}.')
    return request


def _error(error: Exception) -> dict[str, Any]:
    message, exit_code = explain(error)
    return {"event": "error", "message": message, "exit_code": exit_code}


def _text(request: Request, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"The request {request['request']} lacks {key!r}; say where it is.")
    return value


def _option(request: Request, key: str) -> str | None:
    value = request.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{key!r} of the request {request['request']} must be a text or null.")
    return value or None


def _names(request: Request, key: str) -> list[str]:
    value = request.get(key) or []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{key!r} of the request {request['request']} must be a list of names or null.")
    return value


def _device(request: Request) -> str:
    return _option(request, "device") or "auto"


def _claim_output() -> IO[bytes]:
    """Standard output for the protocol alone: whatever else is printed goes to standard error."""
    own = os.fdopen(os.dup(1), "wb")
    sys.stdout.flush()
    os.dup2(2, 1)
    return own


def _speaker(stream: IO[bytes]) -> Callable[[dict[str, Any]], None]:
    lock = threading.Lock()

    def say(record: dict[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode("ascii")
        with lock:
            try:
                stream.write(line)
                stream.flush()
            except OSError:  # nobody listens any more: standard input ends too, which ends the worker
                return

    return say


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``python -m COVIDMultitaskLib.worker``."""
    parser = argparse.ArgumentParser(description="Analyse scans on request; see the module's text for the protocol.")
    parser.add_argument("--idle-s", type=float, default=IDLE_S, help="leave after so many seconds without a request")
    options = parser.parse_args(arguments)
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    Worker(_speaker(_claim_output()), options.idle_s).serve(requests)
    os._exit(0)  # the thread that reads standard input cannot be ended in any other way


if __name__ == "__main__":
    main()

"""What the worker is asked to do for the scene, from the question to the outcome.

The owner calls :meth:`WorkerRun.poll` some ten times a second until ``state`` is no longer ``RUNNING``. Whatever the
outcome, the temporary folder goes with it; the worker stays for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from COVIDMultitaskLib.errors import CovidMultitaskError

from .exchange import ExchangeFolder
from .protocol import DoneMessage, ErrorMessage, ProgressBar, ProgressMessage
from .worker import Job, WorkerClient


class State(Enum):
    """Where a run stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkerRun:
    """One request to the worker; a subclass says which, and takes what came of it.

    :param client: asks the worker.
    :param onProgress: called from :meth:`poll` with every step.
    :param plan: the stages with their probable shares of the time.
    :ivar error: a sentence when ``state`` is ``FAILED``.
    """

    def __init__(
        self, client: WorkerClient, onProgress: Callable[[ProgressMessage], None], plan: Sequence[tuple[str, float]]
    ) -> None:
        self.state = State.RUNNING
        self.error = ""
        self.bar = ProgressBar(plan)
        self._client = client
        self._onProgress = onProgress
        self._folder = ExchangeFolder.create()
        self._job: Job | None = None

    def _request(self) -> tuple[str, dict[str, Any]]:
        """The command and its parameters, once everything that they name is in the folder."""
        raise NotImplementedError

    def _take(self) -> None:
        """Take what the worker has left in the folder. :raises CovidMultitaskError: when that cannot be used."""
        raise NotImplementedError

    def start(self) -> None:
        """Ask the worker.

        :raises CovidMultitaskError: when that is not possible; everything is cleaned up then.
        """
        try:
            command, parameters = self._request()
            self._job = self._client.submit(command, self._step, self._over, **parameters)
        except (CovidMultitaskError, OSError) as error:
            self.state = State.FAILED
            self._folder.remove()
            if isinstance(error, CovidMultitaskError):
                raise
            raise CovidMultitaskError(
                f"Slicer's Python could not be started ({error.strerror}); install Slicer again."
            ) from error

    def poll(self) -> State:
        """Take in what the worker said; returns at once."""
        self._client.poll()
        return self.state

    def cancel(self) -> None:
        """Stop: nothing of the run will appear. The folder goes when the worker has let go of it."""
        if self.state is State.RUNNING:
            self.state = State.CANCELLED
            if self._job is not None:
                self._job.cancel()

    def _step(self, message: ProgressMessage) -> None:
        self.bar.take(message)
        self._onProgress(message)

    def _over(self, outcome: DoneMessage | ErrorMessage) -> None:
        """The worker is through, whatever the outcome: nothing of the run stays on the disk."""
        try:
            if self.state is State.RUNNING:
                self._finish(outcome)
        finally:
            self._folder.remove()

    def _finish(self, outcome: DoneMessage | ErrorMessage) -> None:
        self.state = State.FAILED
        if isinstance(outcome, ErrorMessage):
            self.error = outcome.message
            return
        try:
            self._take()
        except CovidMultitaskError as error:
            self.error = str(error)
        else:
            self.state = State.DONE

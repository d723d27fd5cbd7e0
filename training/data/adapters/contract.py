"""What an adapter is: one published data set, its layout, and how its files become records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from COVIDMultitaskLib.errors import InputError
from training.data.record import Record


@dataclass(frozen=True)
class Collection:
    """What an adapter found.

    :param absent: what the layout promises and is not there, one sentence each.
    """

    records: tuple[Record, ...]
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """Reads one data set.

    :param name: for commands and ``Record.source``.
    :param licence: of the images and labels; the weights trained on them inherit it.
    :param layout: one line: what is expected where, for errors.
    :param recognises: whether a folder (or file) looks like this data set; quick, never raises.
    :param find: the records under a root that was recognised, or that the user says is one.
    """

    name: str
    title: str
    licence: str
    layout: str
    recognises: Callable[[Path], bool]
    find: Callable[..., Collection]

    def collect(self, root: str | Path, **options: str) -> Collection:
        """All records under ``root``.

        :param options: of this adapter, such as ``lobe_convention``.
        :raises InputError: ``root`` is missing or laid out otherwise; the sentence says what was expected.
        """
        root = Path(root).expanduser()
        if not root.exists():
            raise InputError(f"{root} does not exist; give the folder of {self.title}.")
        collection = self.find(root, **options)
        if not collection.records:
            raise InputError(f"{root} holds nothing of {self.title}; expected {self.layout}.")
        return collection

"""The weights that can answer: those that ship and those in the user's own folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from COVIDMultitaskLib.bundles import open_bundle, shipped_bundles
from COVIDMultitaskLib.citations import citation
from COVIDMultitaskLib.engines.registry import DEFAULT_ENGINE, ENGINES, supplied_by
from COVIDMultitaskLib.errors import CovidMultitaskError

from .compat import tr as _

_ANSWERS = {"lobes": "lobes", "lesions": "lesions", "severity": "severity", "diagnosis": "diagnosis"}


@dataclass(frozen=True)
class EngineEntry:
    """One line of the engine list.

    :param bundle: folder of the weights.
    :param title: name and version.
    :param citation: what to cite, one reference a line.
    :param problem: why the weights cannot be used; empty: they can.
    :param isAdded: whether the user added it, and can remove it.
    :param engine: the engine's name; empty: unknown.
    :param supplied: what it does not give and the default engine can supply.
    """

    bundle: str
    title: str
    answers: tuple[str, ...] = ()
    licence: str = ""
    trainedOn: str = ""
    problem: str = ""
    citation: str = ""
    isAdded: bool = False
    engine: str = ""
    supplied: tuple[str, ...] = ()

    @property
    def offer(self) -> str:
        """What to ask the user about ``supplied``; empty: nothing."""
        if not self.supplied:
            return ""
        answers = _(" and ").join(_(_ANSWERS[answer]) for answer in self.supplied)
        return _("Let {engine} supply the {answers}").format(engine=DEFAULT_ENGINE, answers=answers)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What to know before choosing it: title and text of each line."""
        if self.problem:
            return [(_("Not usable"), self.problem)]
        return [
            (_("Answers"), ", ".join(_(_ANSWERS.get(answer, answer)) for answer in self.answers)),
            (_("Trained on"), self.trainedOn),
            (_("Licence"), self.licence),
        ]


def listEngines(extraFolder: str = "") -> list[EngineEntry]:
    """All bundles: the shipped ones, the default engine's first, then those whose folders lie in ``extraFolder``."""
    try:
        folders = list(shipped_bundles())
    except CovidMultitaskError:
        folders = []
    shipped = sorted(map(describe, folders), key=lambda entry: entry.engine != DEFAULT_ENGINE)
    return [*shipped, *(replace(describe(folder), isAdded=True) for folder in _added(extraFolder))]


def _added(folder: str) -> list[Path]:
    """The bundles in a folder; one that cannot be read holds none."""
    if not folder:
        return []
    try:
        found = sorted(path.parent.parent for path in Path(folder).expanduser().glob("*/configs/metadata.json"))
    except OSError:
        return []
    return [path for path in found if not path.name.startswith(".")]


def describe(folder: Path) -> EngineEntry:
    """What a bundle says about itself; its files are checked for it."""
    try:
        identity = open_bundle(folder).identity
    except CovidMultitaskError as error:
        return EngineEntry(str(folder), folder.name, problem=str(error))
    if identity.engine not in ENGINES:
        problem = _("It is for the unknown engine {name}: update COVIDMultitask.").format(name=identity.engine)
        return EngineEntry(str(folder), identity.bundle, problem=problem)
    return EngineEntry(
        str(folder),
        f"{identity.bundle} {identity.version}",
        tuple(sorted(ENGINES[identity.engine].answers)),
        identity.licence,
        identity.trained_on,
        citation=citation(identity.engine, identity.bundle, identity.version),
        engine=identity.engine,
        supplied=supplied_by(DEFAULT_ENGINE, identity.engine),
    )

"""The engines, by name: every module of this package that defines one is found by itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from COVIDMultitaskLib import engines
from COVIDMultitaskLib.bundles import Bundle, open_bundle, shipped_bundle, shipped_bundles
from COVIDMultitaskLib.engines.base import NetworkEngine
from COVIDMultitaskLib.engines.contract import Engine, EngineIdentity
from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.engines.support import MAPS, FilledEngine, Support
from COVIDMultitaskLib.errors import BundleError

DEFAULT_ENGINE = JointEngine.name
LUNG_ENGINE = JointEngine.name
"""Finds the lungs for engines that do not find them by themselves."""


def found_engines() -> dict[str, type[NetworkEngine]]:
    """The engine classes that the modules beside this one define, by name; the default one first."""
    found = sorted(_defined(), key=lambda kind: (kind.name != DEFAULT_ENGINE, kind.name))
    return {kind.name: kind for kind in found}


def _defined() -> Iterator[type[NetworkEngine]]:
    for module in iter_modules(engines.__path__, f"{engines.__name__}."):
        if module.name == __name__:
            continue
        for value in vars(import_module(module.name)).values():
            is_own = isinstance(value, type) and value.__module__ == module.name
            if is_own and issubclass(value, NetworkEngine) and not inspect.isabstract(value):
                yield value


ENGINES: dict[str, type[NetworkEngine]] = found_engines()
"""Engine classes by name."""


def make_engine(
    name: str | None = None, bundle: str | Path | None = None, device: str = "auto", fill_with: str | None = None
) -> Engine:
    """The engine of that name with its shipped weights, or the one a bundle folder is for.

    :param fill_with: engine that supplies lobes and lesions where the chosen one gives none.
    :raises BundleError: unknown name, a bundle that is damaged or for another engine, or nothing to fill.
    :raises InputError: when the device is not there.
    """
    for asked in (name, fill_with):
        if asked is not None and asked not in ENGINES:
            raise BundleError(f"There is no engine {asked!r}; choose one of {', '.join(sorted(ENGINES))}.")
    opened = open_bundle(bundle) if bundle is not None else shipped_bundle(name or DEFAULT_ENGINE)
    kind = _kind(opened, name)
    _refuse_to_fill_nothing(kind, fill_with)
    helpers = {helper: Support(_make(helper, device)) for helper in _helpers(kind, fill_with)}
    engine = kind(opened, device, helpers.get(LUNG_ENGINE) if kind.needs_lungs else None)
    return FilledEngine(engine, helpers[fill_with]) if fill_with else engine


def _make(name: str, device: str) -> Engine:
    return ENGINES[name](shipped_bundle(name), device)


def _kind(opened: Bundle, name: str | None) -> type[NetworkEngine]:
    wanted = name or opened.identity.engine
    if wanted not in ENGINES:
        raise BundleError(
            f"The bundle {opened.identity.bundle} is for the unknown engine {wanted!r}; update COVIDMultitask."
        )
    return ENGINES[wanted]


def _helpers(kind: type[NetworkEngine], fill_with: str | None) -> set[str]:
    return {name for name in (LUNG_ENGINE if kind.needs_lungs else None, fill_with) if name}


def supplied_by(helper: str, name: str) -> tuple[str, ...]:
    """The maps that a helping engine can supply to another one: lobes or lesions that this does not give.

    None where the helping engine does not find the lungs by itself.
    """
    if ENGINES[helper].needs_lungs:
        return ()
    missing = ENGINES[helper].answers - ENGINES[name].answers
    return tuple(answer for answer in MAPS if answer in missing)


def _refuse_to_fill_nothing(kind: type[NetworkEngine], fill_with: str | None) -> None:
    """:raises BundleError: when the helping engine has no map that the other one lacks, or lacks the lungs itself."""
    if fill_with is not None and not supplied_by(fill_with, kind.name):
        helpers = [name for name in ENGINES if supplied_by(name, kind.name)]
        advice = f"fill with {' or '.join(sorted(helpers))}" if helpers else "leave out what fills"
        raise BundleError(f"{fill_with} cannot supply lobes or lesions that {kind.name} lacks; {advice}.")


def engine_rows() -> list[dict[str, Any]]:
    """What is known of each engine, once for each bundle that ships for it, the default engine first.

    ``engine``, ``answers``, ``takes`` and ``needs_lungs`` are always there; ``bundle``, ``version``, ``sha256``,
    ``licence`` and ``trained_on`` are None for an engine without weights; ``quality`` (one line), ``parameters`` and
    ``seconds`` (for the reference scan on two cores) are None where a bundle does not tell them.

    :raises BundleError: when a bundle is damaged.
    """
    bundles = [open_bundle(path) for path in shipped_bundles()]
    bundles.sort(key=lambda bundle: bundle.identity.engine != DEFAULT_ENGINE)
    rows = [_row(bundle.identity.engine, bundle) for bundle in bundles]
    without = sorted(set(ENGINES) - {row["engine"] for row in rows})
    return [*rows, *(_row(name, None) for name in without)]


def _row(name: str, bundle: Bundle | None) -> dict[str, Any]:
    kind = ENGINES.get(name)
    identity = {item.name: getattr(bundle.identity, item.name) if bundle else None for item in fields(EngineIdentity)}
    told = bundle.metadata["covid_multitask"] if bundle else {}
    return {
        **identity,
        "engine": name,
        "answers": sorted(kind.answers) if kind else [],
        "takes": kind.takes if kind else None,
        "needs_lungs": kind.needs_lungs if kind else None,
        **{fact: told.get(fact) for fact in ("quality", "parameters", "seconds")},
    }

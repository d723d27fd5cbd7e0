"""Where the files under ``Resources`` are, in all three lives of the code.

In a source checkout ``Resources`` stands beside ``COVIDMultitaskLib``; in the installed
Slicer extension and in the pip-installed package it lies inside ``COVIDMultitaskLib``.
"""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.errors import CovidMultitaskError

_PACKAGE = Path(__file__).resolve().parent


def resources_dir() -> Path:
    """The folder ``Resources``.

    :raises CovidMultitaskError: when the installation is incomplete.
    """
    for candidate in (_PACKAGE / "Resources", _PACKAGE.parent / "Resources"):
        if (candidate / "Bundles").is_dir():
            return candidate
    raise CovidMultitaskError(
        f"The folder Resources is neither in nor beside {_PACKAGE}; the installation is incomplete: install it again."
    )


def resource(*parts: str) -> Path:
    """A file or folder under ``Resources``, which need not exist."""
    return resources_dir().joinpath(*parts)

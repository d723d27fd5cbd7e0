"""What the library's tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def unprivileged() -> Callable[[Path], AbstractContextManager[None]]:
    """``with unprivileged(folder):`` runs without root's rights, which ignore permissions.

    The folder and those above it that belong to this test run are made passable.
    """
    if not hasattr(os, "geteuid"):
        pytest.skip("permissions are of another kind on Windows")

    @contextmanager
    def act(folder: Path) -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == 0 and "pytest" in str(parent):
                parent.chmod(parent.stat().st_mode | 0o055)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return act


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose network has four channels and random weights. Do not change it: copy it."""
    from Testing.library.tiny_bundle import random_network, write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", network=random_network())


@pytest.fixture(scope="session")
def shipped_bundle() -> Path:
    """The weights that ship, for the few tests that need a network which knows lungs."""
    from COVIDMultitaskLib.bundles import shipped_bundles

    joint = [path for path in shipped_bundles() if path.name == "joint"]
    if not joint:
        pytest.skip("no weights are in Resources/Bundles/joint (training/export.py makes them)")
    return joint[0]

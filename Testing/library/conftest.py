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

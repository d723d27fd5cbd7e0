"""What Slicer installs is what is in the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from Testing.project.update_cmake_lists import LISTS, FileList


@pytest.mark.parametrize("files", LISTS, ids=lambda files: f"{files.folder}-{files.variable}")
def test_cmake_lists_every_file_of_the_tree(files: FileList, repository: Path) -> None:
    listed, existing = files.in_cmake(repository), files.in_tree(repository)
    where = f"in set({files.variable} ...) of {files.folder}/CMakeLists.txt (or run: make cmake-lists)"

    assert not set(existing) - set(listed), f"add {sorted(set(existing) - set(listed))} {where}"
    assert not set(listed) - set(existing), f"remove {sorted(set(listed) - set(existing))} {where}"
    assert len(listed) == len(set(listed)), f"a file stands twice {where}"


def test_a_new_file_is_noticed_and_written(tmp_path: Path) -> None:
    files = FileList("module", "SCRIPTS", "**/*.py")
    (tmp_path / "module" / "parts").mkdir(parents=True)
    for name in ("Module.py", "parts/new.py"):
        (tmp_path / "module" / name).touch()
    cmake = tmp_path / "module" / "CMakeLists.txt"
    cmake.write_text("set(NAME Module)\nset(SCRIPTS\n  ${NAME}.py\n  gone.py\n  )\nset(SCRIPTS_OTHER a.py)\n")
    assert files.in_cmake(tmp_path) == ["Module.py", "gone.py"]

    assert files.write(tmp_path)
    assert files.in_cmake(tmp_path) == ["Module.py", "parts/new.py"]
    assert cmake.read_text().endswith("  )\nset(SCRIPTS_OTHER a.py)\n")
    assert not files.write(tmp_path)

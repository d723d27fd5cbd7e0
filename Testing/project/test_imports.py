"""The library loads quickly, knows nothing of Slicer, and talks to no network."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HEAVY = {"torch", "monai", "SimpleITK", "scipy", "pydicom", "matplotlib", "rich", "safetensors", "pandas", "lightning"}
APPLICATION = {"slicer", "qt", "ctk", "vtk", "vtkmodules", "PyTorchUtils"}
NETWORK = {"socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "xmlrpc"}
DOWNLOADS = {"urlopen", "urlretrieve", "download_url", "downloadFile", "downloadFromURL", "load_state_dict_from_url"}
# A network's layers are classes of torch; the command line draws with rich.
MAY_BE_HEAVY = ("COVIDMultitaskLib/networks/", "COVIDMultitaskLib/cli")


def python_files(repository: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Name and syntax tree of every Python file."""
    for folder in folders:
        for path in sorted((repository / folder).rglob("*.py")):
            yield path.relative_to(repository).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Top-level package and line of every import among the nodes."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], node.lineno


def modules_loaded_by(statement: str) -> dict[str, object]:
    """What a statement loads in a new interpreter, and the processor time that it takes."""
    code = (
        "import json, sys, time; before = set(sys.modules); start = time.process_time()\n"
        f"{statement}\n"
        "seconds = time.process_time() - start\n"
        "packages = sorted({name.split('.')[0] for name in set(sys.modules) - before})\n"
        "print(json.dumps({'seconds': seconds, 'packages': packages}))"
    )
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_importing_the_library_loads_nothing_else() -> None:
    loaded = modules_loaded_by("import COVIDMultitaskLib")
    assert loaded["packages"] == ["COVIDMultitaskLib"]
    assert loaded["seconds"] < 0.2


@pytest.mark.parametrize("module", ["labels", "errors", "progress", "resources", "volume", "engines.contract"])
def test_what_slicer_imports_is_light(module: str) -> None:
    packages = set(modules_loaded_by(f"import COVIDMultitaskLib.{module}")["packages"])
    assert "COVIDMultitaskLib" in packages
    assert not packages & HEAVY


def test_heavy_packages_are_imported_inside_functions(repository: Path) -> None:
    found = [
        f"{name}:{line} imports {package}"
        for name, tree in python_files(repository, "COVIDMultitaskLib")
        if not name.startswith(MAY_BE_HEAVY)
        for package, line in imports(tree.body)
        if package in HEAVY
    ]
    assert not found, "move into the function that needs it: " + "; ".join(found)


def test_library_knows_nothing_of_slicer(repository: Path) -> None:
    found = [
        f"{name}:{line} imports {package}"
        for name, tree in python_files(repository, "COVIDMultitaskLib", "training")
        for package, line in imports(ast.walk(tree))
        if package in APPLICATION
    ]
    assert not found, "; ".join(found)


def test_nothing_talks_to_a_network(repository: Path) -> None:
    trees = list(python_files(repository, "COVIDMultitaskLib", "COVIDMultitask"))
    found = [
        f"{name}:{line} {package}"
        for name, tree in trees
        for package, line in imports(ast.walk(tree))
        if package in NETWORK
    ]
    found += [
        f"{name}:{node.lineno} {node.attr}"
        for name, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in DOWNLOADS
    ]
    assert not found, "; ".join(found)


def test_library_holds_code_only(repository: Path) -> None:
    paths = (path for path in (repository / "COVIDMultitaskLib").rglob("*") if path.is_file())
    others = {path.name for path in paths if path.suffix not in (".py", ".pyc")}
    assert others == {"CMakeLists.txt"}, "data belongs under Resources, where all installations find it"

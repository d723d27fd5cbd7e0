"""Resources are found in all three lives of the code: checkout, installed extension, pip-installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

STAND_IN = Path(__file__).parent / "slicer_stand_in"
MODULES = "lib/Slicer-5.10/qt-scripted-modules"
WHERE = (
    "import COVIDMultitaskLib as library; from COVIDMultitaskLib.resources import resources_dir; "
    "print(library.__file__); print(resources_dir())"
)


def run(*command: str | Path, **environment: str) -> str:
    """What a command prints; it must succeed. A surrounding make does not reach it."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=STAND_IN,  # Python looks here first: a folder without packages
        env={**inherited, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def library_and_resources(path: Path) -> tuple[Path, Path]:
    """The library that Python imports with ``path`` on its path, and the resources that it finds."""
    library, resources = run(sys.executable, "-c", WHERE, PYTHONPATH=str(path)).splitlines()
    return Path(library).parent, Path(resources)


def files_under(folder: Path) -> set[str]:
    """Relative names of all files, compiled ones excepted."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


@pytest.fixture(scope="module")
def extension_build(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension's build tree, made with a stand-in for Slicer and without a compiler."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if cmake is None:
        pytest.skip("cmake is not installed (pip install cmake)")
    build = tmp_path_factory.mktemp("extension")
    compilers = [f"-DCMAKE_{language}_COMPILER{end}" for language in ("C", "CXX") for end in ("=true", "_FORCED=ON")]
    run(cmake, "-S", repository, "-B", build, f"-DSlicer_DIR={STAND_IN}", *compilers)
    run(cmake, "--build", build)
    run(cmake, "--install", build, "--prefix", build / "installed")
    return build


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, repository)
    (path,) = folder.glob("*.whl")
    return path


def test_source_checkout(repository: Path) -> None:
    assert library_and_resources(repository) == (repository / "COVIDMultitaskLib", repository / "Resources")


@pytest.mark.parametrize("tree", [MODULES, f"installed/{MODULES}"], ids=["build tree", "installed"])
def test_slicer_extension(extension_build: Path, repository: Path, tree: str) -> None:
    modules = extension_build / tree
    library = modules / "COVIDMultitaskLib"
    assert library_and_resources(modules) == (library, library / "Resources")
    assert files_under(library / "Resources") == files_under(repository / "Resources")
    assert (modules / "COVIDMultitask.py").is_file()


def test_slicer_extension_imports_what_is_installed(extension_build: Path) -> None:
    path = os.pathsep.join([str(extension_build / "installed" / MODULES), str(Path(__file__).parent)])
    run(sys.executable, "-m", "unittest", "InstalledLibraryTest", PYTHONPATH=path)


def test_slicer_extension_installs_nothing_but_modules(extension_build: Path) -> None:
    installed = {path.name for path in (extension_build / "installed" / MODULES).iterdir()}
    assert installed == {"COVIDMultitask.py", "COVIDMultitaskModule", "COVIDMultitaskLib", "Resources"}
    assert [path.name for path in (extension_build / "installed").iterdir()] == ["lib"]


def test_slicer_extension_describes_itself(extension_build: Path, repository: Path) -> None:
    lines = (extension_build / "COVIDMultitask.s4ext").read_text(encoding="utf-8").splitlines()
    description = dict(line.split(" ", 1) for line in lines)
    assert description["DEPENDS"] == "PyTorch"
    for url in (description["ICONURL"], *description["SCREENSHOTURLS"].split()):
        path = url.split("/main/", 1)[1]
        assert (repository / path).is_file(), f"CMakeLists.txt points to {path}, which is not in the tree"


def test_slicer_extension_has_its_tests(extension_build: Path) -> None:
    tests = (extension_build / "Testing" / "CTestTestfile.cmake").read_text(encoding="utf-8")
    assert "py_InstalledLibraryTest" in tests


def test_pip_installed_package(wheel: Path, repository: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", tmp_path, wheel)
    library = tmp_path / "COVIDMultitaskLib"
    assert library_and_resources(tmp_path) == (library, library / "Resources")
    assert files_under(library / "Resources") == files_under(repository / "Resources")
    assert (tmp_path / "bin" / "covid-multitask").is_file()


def test_wheel_holds_the_library_only(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name.split("-")[0] for name in top} == {"COVIDMultitaskLib", "covid_multitask"}

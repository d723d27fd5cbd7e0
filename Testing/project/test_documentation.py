"""What the documents promise is there."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess

import pytest

from Testing.conftest import REPOSITORY

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
WITH_EXAMPLES = [
    path.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".")
    for path in sorted((REPOSITORY / "COVIDMultitaskLib").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def makefile_targets() -> set[str]:
    names = re.findall(r"^([\w -]+):(?!=)", text_of("Makefile"), flags=re.MULTILINE)
    return {word for line in names for word in line.split()}


@pytest.mark.parametrize("name", [*DOCUMENTS, "Makefile", ".pre-commit-config.yaml"])
def test_make_commands_exist(name: str) -> None:
    named = re.findall(r"(?:^|`|# +|: |=\S+ )make ([a-z][a-z-]+)", text_of(name), flags=re.MULTILINE)
    assert named or name == "CHANGELOG.md"
    assert set(named) <= makefile_targets()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_pictures_exist(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", text_of(name))
    gone = [link for link in links if "://" not in link and not (REPOSITORY / link).exists()]
    assert not gone


def test_command_line_in_the_readme_exists() -> None:
    import typer.main

    from COVIDMultitaskLib.cli import app

    named = set(re.findall(r"^covid-multitask ([a-z]+)", text_of("README.md"), flags=re.MULTILINE))
    assert named
    assert named <= set(typer.main.get_command(app).commands)


def test_readme_explains_every_exit_code() -> None:
    from COVIDMultitaskLib import errors

    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    rows = re.findall(r"^\| (\d+) \|", text_of("README.md"), flags=re.MULTILINE)
    assert {int(row) for row in rows} == {0} | {each.exit_code for each in classes}


def test_help_lists_every_command() -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^make ([a-z-]+)", done.stdout, flags=re.MULTILINE))
    assert listed == makefile_targets() - {"help", "set-up-demo", "set-up-test", ".PHONY"}


def test_versions_agree() -> None:
    from COVIDMultitaskLib import __version__

    assert f"version: {__version__}\n" in text_of("CITATION.cff")


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_hold(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0

"""Write the files of the tree into the CMake lists that Slicer installs from.

A file missing from its list works in a checkout and fails when installed. Run it as
``make cmake-lists``; ``test_cmake_lists.py`` says when it is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class FileList:
    """One ``set(variable files...)`` in a folder's CMakeLists.txt and the files that belong into it."""

    folder: str
    variable: str
    pattern: str

    def cmake_file(self, repository: Path) -> Path:
        """The CMakeLists.txt that holds the list."""
        return repository / self.folder / "CMakeLists.txt"

    def in_tree(self, repository: Path) -> list[str]:
        """The files that exist, relative to the folder."""
        root = repository / self.folder
        files = (path for path in root.glob(self.pattern) if path.is_file())
        return sorted(path.relative_to(root).as_posix() for path in files if "__pycache__" not in path.parts)

    def in_cmake(self, repository: Path) -> list[str]:
        """The files that CMake lists, relative to the folder."""
        text = self.cmake_file(repository).read_text(encoding="utf-8")
        return [expanded(word, text) for word in self._match(text).group(2).split()]

    def write(self, repository: Path) -> bool:
        """Replace the list by what is in the tree; whether that changed anything."""
        path = self.cmake_file(repository)
        text = path.read_text(encoding="utf-8")
        match = self._match(text)
        files = "".join(f"  {name}\n" for name in self.in_tree(repository))
        new = f"{text[: match.start(2)]}\n{files}  {text[match.end(2) :]}"
        path.write_text(new, encoding="utf-8")
        return new != text

    def _match(self, text: str) -> re.Match[str]:
        match = re.search(rf"(set\({self.variable}\b)([^)]*)\)", text)
        if match is None:
            raise ValueError(f"{self.folder}/CMakeLists.txt has no set({self.variable} ...)")
        return match


LISTS = (
    FileList("COVIDMultitaskLib", "LIBRARY_PYTHON_SCRIPTS", "**/*.py"),
    FileList("COVIDMultitask", "MODULE_PYTHON_SCRIPTS", "**/*.py"),
    FileList("COVIDMultitask", "MODULE_PYTHON_RESOURCES", "Resources/**/*"),
)


def expanded(word: str, text: str) -> str:
    """A word of a CMake file with the variables that the same file sets to one plain word put in."""
    for name, value in re.findall(r"set\((\w+) ([\w.]+)\)", text):
        word = word.replace(f"${{{name}}}", value)
    return word


def main() -> None:
    """Update all lists of this checkout."""
    for files in LISTS:
        state = "updated" if files.write(REPOSITORY) else "up to date"
        print(f"{files.folder}/CMakeLists.txt {files.variable}: {state}")


if __name__ == "__main__":
    main()

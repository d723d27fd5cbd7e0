"""Tables (CSV or Excel) whose mistakes are told with the file's name and the row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from COVIDMultitaskLib.errors import InputError


@dataclass(frozen=True)
class Row:
    """One row of a table.

    :param number: as a spreadsheet shows it; the header is row 1.
    :param values: cells by column name in lower case, stripped; empty cells are left out.
    """

    file: str
    number: int
    values: Mapping[str, str]

    def get(self, column: str) -> str | None:
        """A cell; ``None`` when it is empty or the column is not there."""
        return self.values.get(column.lower())

    def need(self, column: str) -> str:
        """A cell that must be filled. :raises InputError: when it is not."""
        value = self.get(column)
        if value is None:
            raise self.error(f'the column "{column}" is empty or missing; fill it')
        return value

    def integer(self, column: str) -> int | None:
        """A whole number, however the spreadsheet wrote it. :raises InputError: when it is none."""
        value = self.get(column)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            raise self.error(f'"{value}" in the column "{column}" is no number') from None
        if number != int(number):
            raise self.error(f'"{value}" in the column "{column}" is no whole number')
        return int(number)

    def error(self, what: str) -> InputError:
        """The sentence for a mistake in this row."""
        return InputError(f"{self.file}, row {self.number}: {what}.")


def read_table(path: Path) -> list[Row]:
    """The rows of a CSV (comma, semicolon or tab) or Excel file (first sheet); empty ones are left out.

    :raises InputError: missing, unreadable, or without a header.
    """
    if not path.is_file():
        raise InputError(f"The table {path} does not exist; check the path.")
    lines = _excel_lines(path) if path.suffix.lower() == ".xlsx" else _csv_lines(path)
    try:
        header = [name.strip().lower() for name in next(lines)]
    except StopIteration:
        raise InputError(f"{path.name} is empty; its first row must name the columns.") from None
    rows = []
    for number, cells in enumerate(lines, start=2):
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            raise InputError(f"{path.name}, row {number}: {len(cells)} cells but {len(header)} columns in the header.")
        values = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}
        if values:
            rows.append(Row(path.name, number, values))
    return rows


def _csv_lines(path: Path) -> Iterator[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not text in UTF-8; save it as CSV in UTF-8.") from error
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    return csv.reader(text.splitlines(), delimiter=delimiter)


def _excel_lines(path: Path) -> Iterator[list[str]]:
    import zipfile

    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise InputError(f"{path.name} is not an Excel file or is damaged; save it again as .xlsx or CSV.") from error
    sheet = book.worksheets[0]
    for cells in sheet.iter_rows(values_only=True):
        yield ["" if cell is None else str(cell) for cell in cells]

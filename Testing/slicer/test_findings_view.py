"""The findings in words and rows."""

from __future__ import annotations

import dataclasses

from COVIDMultitaskModule.findings import COLUMNS, FindingsView
from slicer_host.chest import findings

from COVIDMultitaskLib.findings import LobeFindings


def lines(record: dict) -> dict[str, str]:
    return {line.title: line.text for line in FindingsView(record).lines}


def test_summary_says_each_answer_most_probable_diagnosis_first():
    text = lines(findings())
    assert text["Diagnosis"] == "COVID-19 80 %, Other pneumonia 15 %, No pneumonia 5 %"
    assert text["Severity"] == "severe 20 %"
    assert text["Worse lung"] == "13.2 %"
    assert text["CT severity score"] == "10 / 25"
    assert text["CT grade"] == "CT-1"


def test_what_an_engine_does_not_assess_is_said():
    record = {**findings(), "severity": None, "diagnosis": None, "worst_lung_percent": None, "total": None}
    text = lines(record)
    for title in ("Diagnosis", "Severity", "Worse lung", "Affected lung"):
        assert text[title] == "not assessed by this engine"
    assert len(FindingsView(record).rows) == 5


def test_empty_findings_are_shown_without_fuss():
    view = FindingsView({})
    assert view.rows == [] and view.warnings == [] and view.origin == ""
    assert set(lines({}).values()) == {"not assessed by this engine"}
    assert "research" in view.notice


def test_rows_are_the_lobes_and_the_total():
    rows = FindingsView(findings()).rows
    assert [row.name for row in rows][-2:] == ["Right lower lobe", "Both lungs"]
    titles = [column.key for column in COLUMNS]
    assert rows[0].values[titles.index("mean_lesion_hu")] is None
    assert rows[-1].values[titles.index("volume_ml")] == 4515.0
    assert [row.values[titles.index("score")] for row in rows] == [2, 2, 2, 2, 2, 10], "the total of five lobes"


def test_columns_are_those_that_the_library_writes():
    assert {column.key for column in COLUMNS} <= {field.name for field in dataclasses.fields(LobeFindings)}


def test_only_warnings_are_warned_about():
    record = {**findings(), "quality": [{"level": "info", "message": "a"}, {"level": "warning", "message": "b"}]}
    assert FindingsView(record).warnings == ["b"]

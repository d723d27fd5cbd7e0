"""The shipped comparison of all five engines, run to the end on its smoke budget."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from COVIDMultitaskLib.engines.registry import ENGINES
from training.compare.__main__ import main
from training.compare.findings import Verdict
from training.compare.measures import MEASURES

pytestmark = pytest.mark.usefixtures("one_thread")

SHIPPED = Path("training", "configs", "compare_engines.yaml")

TOLD = {
    "joint": {"lobes", "lesions", "severity", "diagnosis", "covid"},
    "m2unet": {"lobes", "severity"},
    "deepsc-covid": {"lesions", "diagnosis", "covid"},
    "triage": {"lesions", "covid"},
    "amyar": {"lesions", "covid"},
}
"""What each engine can be measured by."""


class Compared(NamedTuple):
    """What was compared, and where it was written."""

    content: dict[str, Any]
    output: Path

    @property
    def report(self) -> str:
        return (self.output / "report.md").read_text(encoding="utf-8")

    @property
    def findings(self) -> dict[str, Any]:
        return json.loads((self.output / "findings.json").read_text(encoding="utf-8"))

    def rows(self, heading: str) -> dict[str, list[str]]:
        """Cells of the first table under a heading of the report, by their first one."""
        table = re.search(r"(^\|.*\n)+", self.report.split(f"\n## {heading}\n")[1], re.MULTILINE)
        assert table is not None
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.group().splitlines()]
        return {first: rest for first, *rest in cells[2:]}


def of_each_engine(content: dict[str, Any]) -> dict[str, Any]:
    """The arms named as their engines are, and for each of the published four what its first claim compares it with."""
    arms = set(ENGINES)
    for engine in ENGINES:
        arms |= {claim["against"] for claim in [one for one in content["claims"] if one["arm"] == engine][:1]}
    kept = {name: arm for name, arm in content["arms"].items() if name in arms}
    claims = [claim for claim in content["claims"] if {claim["arm"], claim["against"]} <= arms]
    return {**content, "arms": kept, "claims": claims}


@pytest.fixture(scope="module")
def compared(repository: Path, anatomy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp("engines")
    content = of_each_engine(yaml.safe_load((repository / SHIPPED).read_text(encoding="utf-8")))
    (folder / SHIPPED.name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    simulation = "shared.data.synthetic"
    changes = {
        "seeds": "[0]",
        f"{simulation}.folder": folder / "cases",
        f"{simulation}.anatomies": anatomy_cache,
        f"{simulation}.material": folder / "nothing",
        "shared.data.cache": folder / "prepared",
    }
    options = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    assert main([str(folder / SHIPPED.name), "--smoke", "--output", str(folder / "out"), *options]) == 0
    return Compared(content, folder / "out")


def test_every_engine_is_an_arm_that_claims_are_made_of(compared: Compared) -> None:
    """Else the tests below are of nothing; the joint network is compared elsewhere with one for each task."""
    assert set(ENGINES) == set(TOLD) <= set(compared.content["arms"])
    assert {claim["arm"] for claim in compared.content["claims"]} == set(ENGINES) - {"joint"}


def test_every_arm_was_trained_and_asked_about_the_same_scans(compared: Compared) -> None:
    runs = {path.parent.relative_to(compared.output).as_posix() for path in compared.output.rglob("held_out.json")}
    assert runs == {f"{arm}/seed_0" for arm in compared.content["arms"]}
    read = [json.loads((compared.output / run / "held_out.json").read_text())["scans"] for run in runs]
    asked = {tuple(scan["answers"]["id"] for scan in scans) for scans in read}
    assert len(asked) == 1 and len(asked.pop()) == compared.content["smoke"]["shared"]["data"]["synthetic"]["val"]


def test_every_arm_has_the_figures_that_its_engine_can_be_measured_by(compared: Compared) -> None:
    figures = compared.findings["figures"]
    assert list(figures) == list(compared.content["arms"])
    for arm, told in TOLD.items():
        assert set(figures[arm]) == set(compared.content["measures"])
        for overlap in ("lobes", "lesions"):
            assert (figures[arm][overlap] is not None) == (overlap in told), (arm, overlap)
        for name in ("severity.roc_auc", "diagnosis.roc_auc", "covid.roc_auc"):
            assert figures[arm][name] is None or name.partition(".")[0] in told, (arm, name)


def test_the_report_holds_every_arm_and_every_claim_with_its_verdict(compared: Compared) -> None:
    found, arms = compared.findings, compared.content["arms"]
    figures, budget, result = (compared.rows(heading) for heading in ("Figures", "Budget", "Result"))
    assert list(figures) == list(budget) == [arm["title"] for arm in arms.values()]
    for name, arm in arms.items():
        for cell, figure in zip(figures[arm["title"]], found["figures"][name].values(), strict=True):
            assert cell.startswith("-" if figure is None else f"{figure['interval']['value']:.3f} ("), (name, cell)
        parameters, scans, _ = budget[arm["title"]]
        assert int(parameters.replace(",", "")) > 1000 and scans == "4"
    assert [claim["says"] for claim in found["claims"]] == [claim["says"] for claim in compared.content["claims"]]
    assert len(result) == len(found["claims"]) >= 4
    for claim in found["claims"]:
        source, measure, difference, _, verdict = result[claim["says"]]
        assert (source, measure) == (claim["source"], MEASURES[claim["measure"]])
        assert verdict == f"**{Verdict(claim['verdict']).value}**" and verdict.startswith("**undecided")  # one seed
        told = claim["difference"]
        assert difference == ("-" if told is None else f"{told['value']:+.3f}")
    assert any(claim["difference"] is not None for claim in found["claims"])
    assert "--smoke" in compared.report and "All scans are simulated" in compared.report
    assert not re.search(r"{{|{%|None|\bnan\b", compared.report)


def test_the_page_holds_the_same_with_both_plots(compared: Compared) -> None:
    import base64
    import html

    page = (compared.output / "report.html").read_text(encoding="utf-8")
    plots = [(compared.output / f"{name}.png").read_bytes() for name in ("figures", "differences")]
    assert all(plot.startswith(b"\x89PNG") and base64.b64encode(plot).decode() in page for plot in plots)
    text = html.unescape(page)
    for claim in compared.findings["claims"]:
        assert claim["says"] in text and claim["source"] in text
    cells = re.findall(r"<td>(.*?)</td>", text)
    for arm in compared.content["arms"].values():
        assert cells.count(arm["title"]) == 2
    assert len(re.findall(r"<strong>undecided[^<]*</strong></td>", text)) == len(compared.content["claims"])

"""The model card tells the simulation as the code draws it, and of which version the scans are."""

from __future__ import annotations

import re
from typing import Any

import pytest

from Testing.conftest import REPOSITORY
from training.configuration import read_experiment
from training.export import card_template
from training.synthesis.appearance import HELD_OUT, TRAIN, shares_between
from training.synthesis.chest import SIMULATOR
from training.synthesis.facts import simulation_facts

SIMULATED = {"name": "synthetic", "licence": "CC-BY-4.0", "records": 4, "simulated": True, "from": "real lobe shapes"}
REAL = {"name": "hospital", "licence": "CC-BY-4.0", "records": 2, "simulated": False, "labels": {"lesions": 2}}


def told(*sources: dict[str, Any]) -> str:
    """The card's section on the simulation, on one line."""
    template = card_template(read_experiment(REPOSITORY / "training/configs/joint.yaml"), "base.md.j2")
    context = template.new_context({"data": {"sources": sources}, "simulation": simulation_facts()})
    return " ".join("".join(template.blocks["simulation"](context)).split())


def test_the_card_tells_the_simulators_numbers() -> None:
    card = told(REAL, {**SIMULATED, "simulator": SIMULATOR})
    for words in (
        f"Version {SIMULATOR} of the simulation",
        "scaled by 0.78 to 1.30 along each axis",
        "aorta moved to the left in 50 %",
        "Tissue of -935 to -800 HU on average",
        "as trees that divide in two",
        "one end in every 1 to 2.6 ml",
        "COVID-19 (45 % of scans) in four patterns: mild (37 % of these), up to 110 opacities",
        "20 to 92 % of the lungs",
        "effusion in 29 % (of COVID-19 in 5 %, without pneumonia in 8 %)",
        "ground-glass, which has -690 to -560 or -520 to -400 HU in its middle and at least 110 HU more",
        "consolidation -70 to 5 or 20 to 60 HU",
        "Slices 0.5 to 10 mm apart",
        "noise of 4 to 13 or 17 to 38 HU",
        "50 expert masks of MosMedData (Morozov et al., arXiv 2005.06465; CC-BY-NC-ND-3.0): a median of 16.5 pieces",
        "Of its numbers 40 to 75 %, by setting, lie between ranges that are trained on",
    ):
        assert words in card
    assert "another version" not in card and "Phantoms" not in card


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lungs.PARENCHYMA_HU", (-900.0, -850.0), "Tissue of -900 to -850 HU"),
        ("acquisition.ROUND_FIELD_CHANCE", 0.9, "radius in 90 %"),
        ("shape.ENLARGED", {"artery": (0.1, 1, 2), "heart": (0.2, 1, 2)}, "wider in 10 %, the heart larger in 20 %"),
        ("disease.MODERATE_COUNT", (3, 5), "3 to 5 opacities drawn"),
        ("chest.SIMULATOR", 77, "Version 77 of the simulation"),
    ],
)
def test_its_numbers_are_those_that_scans_are_drawn_with(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, words: str
) -> None:
    monkeypatch.setattr(f"training.synthesis.{name}", value)
    assert words in told({**SIMULATED, "simulator": SIMULATOR})


def test_a_network_that_learned_from_other_scans_does_not_claim_these() -> None:
    assert told(REAL) == ""
    for other in (SIMULATED, {**SIMULATED, "simulator": SIMULATOR - 1}):
        assert "are of another version" in told(other)
    assert "Phantoms" in told({**SIMULATED, "simulator": SIMULATOR, "from": "phantoms"})


def test_the_licence_of_the_measured_masks_is_that_of_their_data_set() -> None:
    from training.data.adapters.mosmed import LICENCE

    assert LICENCE in told(SIMULATED)


def test_held_out_numbers_lie_between_those_trained_on_or_beyond() -> None:
    """As counted in many draws."""
    from training.synthesis.draw import Draw

    for name, share in shares_between().items():
        draw, limits = Draw(1), [one for pair in getattr(TRAIN, name) for one in pair]
        drawn = [draw.within(getattr(HELD_OUT, name)) for _ in range(2000)]
        between = sum(min(limits) <= one <= max(limits) for one in drawn) / len(drawn)
        assert between == pytest.approx(share, abs=0.05), name
    assert set(shares_between()) == set(vars(TRAIN)) - {"tables"}


def test_every_card_tells_the_version_of_its_scans() -> None:
    """In the table of sources, and that it is unknown of runs from before there was one."""
    text = (REPOSITORY / "training/cards/base.md.j2").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| {{ source.name }}: "))
    experiment = read_experiment(REPOSITORY / "training/configs/joint.yaml")
    environment = card_template(experiment, "base.md.j2").environment
    rows = [environment.from_string(row).render(source=one) for one in (SIMULATED, {**SIMULATED, "simulator": 7})]
    assert [re.search(r"simulator version (\w+) \|", line)[1] for line in rows] == ["unknown", "7"]  # type: ignore[index]

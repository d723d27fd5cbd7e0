"""Numbers the simulated disease is made to match, each with its source.

Those of mild COVID-19 are measured on the 50 expert masks of MosMedData (Morozov et al., arXiv
2005.06465; CC BY-NC-ND 3.0; all of grade CT-1) by ``python -m training.synthesis.measure_masks``; only these statistics
of the masks are kept here, and no scan or mask comes with the project.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MaskStatistics:
    """Of the lesion masks of a group of patients; each is the median over patients unless said otherwise.

    :param components: 26-connected pieces of more than 0.05 ml, on 8 mm slices.
    :param components_spread: deviation of the logarithm of their number.
    :param total_ml: volume of all lesions, with quartiles.
    :param total_spread: deviation of its logarithm.
    :param median_ml: volume of a patient's median piece.
    :param largest_ml: volume of the largest.
    :param largest_share: of the total.
    :param bilateral: share of patients with lesions of 5 % or more on both sides.
    :param height: where along the scan the middle of the lesions lies, 0 its lower end to 1.
    :param depth: where between front (0) and back (1) of the image it lies.
    """

    components: float
    components_spread: float
    total_ml: float
    total_quartiles_ml: tuple[float, float]
    total_spread: float
    median_ml: float
    largest_ml: float
    largest_share: float
    bilateral: float
    height: float
    depth: float

    def volumes_ml(self, rng: np.random.Generator) -> np.ndarray:
        """Volumes of one patient's lesions, log-normal in number, total and size."""
        apart = self.components * np.exp(rng.normal(0, self.components_spread))
        count = int(np.clip(round(MERGING * apart), 1, LARGEST_COUNT))
        total = self.total_ml * np.exp(rng.normal(0, self.total_spread))
        spread = np.log(self.largest_ml / self.median_ml) / EXPECTED_LARGEST
        sizes = np.exp(rng.normal(0, spread, count))
        return total * sizes / sizes.sum()


LARGEST_COUNT = 110
"""Lesions that a patient is drawn with at most."""

MERGING = 1.4
"""How many more lesions are drawn than pieces are wanted: some run together, some fall outside (by trial)."""

EXPECTED_LARGEST = 1.77
"""Deviations above the mean of the largest of 16 normal numbers, on average (Harter 1961)."""

MILD_COVID = MaskStatistics(
    components=16.5,
    components_spread=0.98,
    total_ml=66.0,
    total_quartiles_ml=(26.4, 108.9),
    total_spread=1.18,
    median_ml=0.48,
    largest_ml=25.4,
    largest_share=0.55,
    bilateral=0.72,
    height=0.43,
    depth=0.61,
)
"""MosMedData, masks of grade CT-1."""

MASKS_MEASURED = 50
MASKS_LICENCE = "CC-BY-NC-ND-3.0"
"""Of those masks, as the adapter ``mosmed`` has it: a licence of the masks, which are not passed on."""

COVID_BILATERAL = 0.875
COVID_PERIPHERAL = 0.76
COVID_POSTERIOR = 0.804
COVID_CONSOLIDATION = 0.318
"""Shares of patients: Salehi et al., AJR 2020;215:87-93 (systematic review, 919 patients)."""

REAL_HU: dict[str, tuple[float, float]] = {
    "ground_glass": (-700.0, -300.0),
    "consolidation": (-100.0, 100.0),
}
"""Where the middle of these lies on CT: between lung and soft tissue without hiding vessels, and
hiding them (Hansell et al., Fleischner glossary, Radiology 2008;246:697-722); the numbers are ours."""


def consolidation_chance(share: float) -> float:
    """How likely a patient with this share of lung affected has consolidation: more with more disease.

    Bernheim et al., Radiology 2020;295:200463: consolidation in few early and most late and severe scans;
    COVID_CONSOLIDATION is the mean of mild disease.
    """
    return float(np.clip(COVID_CONSOLIDATION + 1.6 * share, 0.0, 0.9))

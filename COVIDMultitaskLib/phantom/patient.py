"""What differs from one made-up patient to the next."""

from __future__ import annotations

from dataclasses import dataclass

from COVIDMultitaskLib.phantom.fields import stream


@dataclass(frozen=True)
class Patient:
    """Proportions drawn from a seed, in canonical millimetres unless said otherwise.

    :param scale: true millimetres per canonical millimetre along (z, y, x).
    :param dome_right: height of the right diaphragm's dome above the deepest recess.
    :param fissure_right: how far the right major fissure lies above its usual place.
    :param fat: thickness of the fat under the skin.
    :param heart: size of the heart as a share of the usual one.
    :param lung_hu: density of the aerated lung at mid depth.
    :param gravity_hu: how much denser the back of the lung is than its front.
    :param blood_hu: density of unenhanced blood.
    :param noise_hu: standard deviation of the noise in the body.
    """

    seed: int
    scale: tuple[float, float, float]
    dome_right: float
    dome_left: float
    fissure_right: float
    fissure_left: float
    minor_fissure: float
    fat: float
    heart: float
    lung_hu: float
    gravity_hu: float
    blood_hu: float
    noise_hu: float


def draw_patient(seed: int) -> Patient:
    """The patient of a seed; ranges keep lungs between about 3.3 and 5.5 litres."""
    uniform = stream(seed, "patient").uniform
    overall = uniform(0.95, 1.04)
    return Patient(
        seed=seed,
        scale=(overall * uniform(0.96, 1.05), overall * uniform(0.97, 1.04), overall * uniform(0.97, 1.04)),
        dome_right=uniform(82, 96),
        dome_left=uniform(70, 82),
        fissure_right=uniform(-8, 8),
        fissure_left=uniform(-8, 8),
        minor_fissure=uniform(126, 138),
        fat=uniform(8, 20),
        heart=uniform(0.92, 1.06),
        lung_hu=uniform(-900, -865),
        gravity_hu=uniform(45, 85),
        blood_hu=uniform(38, 48),
        noise_hu=uniform(11, 17),
    )

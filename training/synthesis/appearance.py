"""How scans may look: ranges of protocol and rendering, one set to train on and one held out.

The two sets do not overlap in kernel, dose, contrast, table and the look of lesions, and share all else:
shapes, bodies, disease, slices, and how each of these is rendered. Most held-out numbers lie between ranges
that are trained on (``shares_between``), the others just beyond them. So what is measured on the held-out
set tells how a network bears somewhat other settings of this simulator; of other scanners it tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from COVIDMultitaskLib.errors import InputError

Ranges = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Appearance:
    """Ranges to draw from.

    :param kernel: 0 smoothest to 1 sharpest, with enhanced edges.
    :param noise_hu: standard deviation in soft tissue on voxels of about 2 mm.
    :param enhancement_hu: what contrast medium adds to the blood.
    :param tables: of ``body.TABLES``.
    :param glass_hu: attenuation in the middle of ground-glass.
    :param glass_grain_mm: size of its texture.
    :param solid_hu: attenuation of consolidation.
    :param softness: width of a lesion's edge as a share of its radius.
    """

    kernel: Ranges
    noise_hu: Ranges
    enhancement_hu: Ranges
    tables: tuple[str, ...]
    glass_hu: Ranges
    glass_grain_mm: Ranges
    solid_hu: Ranges
    softness: Ranges


TRAIN = Appearance(
    kernel=((0.0, 0.55), (0.75, 0.9)),
    noise_hu=((4, 13), (17, 38)),
    enhancement_hu=((40, 150), (200, 320)),
    tables=("foam", "shell", "flat", "hollow", "hammock"),
    glass_hu=((-690, -560), (-520, -400)),
    glass_grain_mm=((6, 10), (13, 18)),
    solid_hu=((-70, 5), (20, 60)),
    softness=((0.03, 0.07), (0.10, 0.16)),
)

HELD_OUT = Appearance(
    kernel=((0.55, 0.75), (0.9, 1.0)),
    noise_hu=((13, 17), (38, 44)),
    enhancement_hu=((150, 200), (320, 360)),
    tables=("cradle", "vacuum_cushion"),
    glass_hu=((-560, -520), (-400, -370)),
    glass_grain_mm=((10, 13), (4, 6)),
    solid_hu=((5, 20), (60, 70)),
    softness=((0.07, 0.10), (0.02, 0.03)),
)


def _joined(*parts: Appearance) -> Appearance:
    return Appearance(**{f.name: sum((getattr(part, f.name) for part in parts), ()) for f in fields(Appearance)})


APPEARANCES: dict[str, Appearance] = {"train": TRAIN, "held_out": HELD_OUT, "all": _joined(TRAIN, HELD_OUT)}


def appearance(name: str) -> Appearance:
    """The ranges of that name.

    :raises InputError: when there are none.
    """
    if name not in APPEARANCES:
        raise InputError(f"There is no appearance {name}; choose one of {', '.join(APPEARANCES)}.")
    return APPEARANCES[name]


def shares_between() -> dict[str, float]:
    """By name of each range the share, 0 to 1, of held-out draws that lie between the ranges trained on.

    The other draws lie beyond all of them. Tables, which are no numbers, are left out.
    """
    shares = {}
    for name in (field.name for field in fields(Appearance) if field.name != "tables"):
        trained = [limit for limits in getattr(TRAIN, name) for limit in limits]
        held_out = getattr(HELD_OUT, name)
        between = sum(high - low for low, high in held_out if min(trained) <= low and high <= max(trained))
        shares[name] = between / sum(high - low for low, high in held_out)
    return shares

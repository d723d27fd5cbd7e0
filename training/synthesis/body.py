"""Attenuation of everything that is not lung: chest wall, organs, table, air around."""

from __future__ import annotations

import numpy as np
import torch

from training.synthesis.anatomy import TISSUE_VALUES
from training.synthesis.appearance import Appearance
from training.synthesis.draw import Draw, dilated
from training.synthesis.shape import Shape

AIR_HU = -1000.0

ORGAN_HU: dict[str, tuple[float, float]] = {
    "muscle": (35, 70),
    "heart": (30, 50),
    "artery": (30, 50),
    "vein": (30, 50),
    "esophagus": (0, 50),
    "liver": (10, 85),
    "spleen": (35, 70),
    "kidney": (15, 60),
    "gland": (0, 60),
    "cord": (10, 50),
    "cartilage": (60, 250),
}
"""Ranges of mean attenuation without contrast; Barrett and Keat 2004, Lamba 2014, widened."""

CONTRAST_CHANCE = 0.4
"""How often contrast medium was given."""

FAT_MM = (5.0, 45.0)
"""Thickness of the fat under the skin."""

BLOOD = ("heart", "artery", "vein")
BONES = ("bone", "vertebra", "arm")


def blood_hu(look: Appearance, draw: Draw) -> tuple[float, float]:
    """Attenuation of blood, and how much of it contrast medium adds (0 in most scans)."""
    added = draw.within(look.enhancement_hu) if draw.chance(CONTRAST_CHANCE) else 0.0
    return draw.uniform(*ORGAN_HU["heart"]) + added, added


def render_body(shape: Shape, blood: float, added: float, look: Appearance, draw: Draw) -> torch.Tensor:
    """HU (z, y, x) of the scan without its lungs, which are left as soft tissue.

    :param blood: HU of the blood, of which contrast medium ``added`` a part.
    """
    hu = torch.full(shape.size, AIR_HU, device=draw.device)
    body, skin_mm = _body_mask(shape, draw)
    hu = torch.where(body, _wall(shape, skin_mm, draw), hu)
    hu = _with_hila(hu, shape, blood, draw)
    hu = _with_organs(hu, shape, blood, added, draw)
    hu = _with_bowel_gas(hu, shape, draw)
    hu = _with_gas_below_the_diaphragm(hu, body, shape, draw)
    airway = shape.tissue == TISSUE_VALUES["airway"]
    hu = torch.where(airway, torch.full_like(hu, draw.uniform(-1000, -930)), hu)
    # The structures come from a coarser grid; this takes off their steps.
    hu = shape.blurred(hu, 1.1)
    return _with_surroundings(hu, body, shape, look, draw)


def _body_mask(shape: Shape, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    """The body, and each voxel's depth in mm under the skin (negative outside)."""
    fat_mm = draw.log_uniform(*FAT_MM)
    uneven = 1 + 0.35 * shape.smooth(draw, 60)
    back = (shape.y / 100).clamp(-1, 1)
    thickness = fat_mm * uneven * (1 - draw.uniform(-0.3, 0.5) * back).clamp(0.4, 2)
    depth = thickness.clamp(min=4.0) - shape.hull_mm
    body = depth > 0
    if draw.chance(0.5):
        arm = (shape.tissue == TISSUE_VALUES["arm"]).float()
        reach = shape.voxels(draw.uniform(7, 15))
        body = body | (shape.blurred(dilated(arm, reach), 3.5) > 0.5)
    return body, depth


def _wall(shape: Shape, skin_mm: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Skin, fat, muscle layers and the fatty spaces between organs."""
    fat = draw.uniform(-120, -80) + 12 * shape.smooth(draw, 8)
    muscle = draw.uniform(30, 65) + 12 * shape.smooth(draw, 8)
    # Between the ribs and the fat lie muscles, with fatty streaks; inside the hull lies more fat.
    muscular_mm = draw.uniform(3, 22)
    inner = shape.smooth(draw, draw.uniform(8, 25)) > draw.uniform(-1.2, 0.7)
    layer = (shape.hull_mm < muscular_mm) & (shape.smooth(draw, 9) > draw.uniform(-1.6, -0.4))
    is_muscle = torch.where(shape.hull_mm > 0, layer, inner)
    near_lung = shape.blurred(shape.lung, 3.0) > 0.12
    is_muscle = is_muscle | (near_lung & (shape.smooth(draw, 10) > draw.uniform(-1.5, 0.3)))
    hu = torch.where(is_muscle, muscle, fat)
    return torch.where((skin_mm < 2.5) & (skin_mm > 0), torch.full_like(hu, draw.uniform(-20, 40)), hu)


def _with_hila(hu: torch.Tensor, shape: Shape, blood: float, draw: Draw) -> torch.Tensor:
    """Lobe maps leave out the large vessels at the hilum: what lies between the lobes there is mostly those."""
    if draw.chance(0.2):
        return hu
    among_lobes = shape.blurred(shape.lung, draw.uniform(7, 12)) > draw.uniform(0.35, 0.5)
    vessel = among_lobes & (shape.hull_mm <= 0) & (shape.smooth(draw, 8) > draw.uniform(-2.0, -0.5))
    return torch.where(vessel, blood + 6 * shape.smooth(draw, 6), hu)


def _with_organs(hu: torch.Tensor, shape: Shape, blood: float, added: float, draw: Draw) -> torch.Tensor:
    table = torch.full((len(TISSUE_VALUES),), float("nan"), device=draw.device)
    for name, (low, high) in ORGAN_HU.items():
        table[TISSUE_VALUES[name]] = draw.uniform(low, high)
    for name in BLOOD:
        table[TISSUE_VALUES[name]] = blood - added * draw.uniform(0.0, 0.6)
    for name in ("liver", "spleen", "kidney"):
        table[TISSUE_VALUES[name]] += min(added, 120) * draw.uniform(0.2, 0.9)
    organ = table[shape.tissue]
    hu = torch.where(organ.isnan(), hu, organ + 9 * shape.smooth(draw, 6))
    return _with_bones(hu, shape, draw)


def _with_bones(hu: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Bones with a dense rim and marrow of their own."""
    is_bone = torch.zeros_like(shape.lung, dtype=torch.bool)
    for name in BONES:
        is_bone |= shape.tissue == TISSUE_VALUES[name]
    core = shape.blurred(is_bone.float(), 2.0)
    marrow = draw.uniform(40, 280) + 60 * shape.smooth(draw, 6)
    cortex = draw.uniform(350, 1100)
    return torch.where(is_bone, torch.where(core > 0.85, marrow, torch.full_like(hu, cortex)), hu)


def _with_bowel_gas(hu: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Stomach and bowel: fluid, food and gas; the gas is no lung."""
    for name, chance in (("stomach", 0.85), ("bowel", 0.75)):
        inside = shape.tissue == TISSUE_VALUES[name]
        content = draw.uniform(-10, 50) + 40 * shape.smooth(draw, 10)
        hu = torch.where(inside, content, hu)
        if draw.chance(chance):
            # Gas rises to the front (small y) of a lying patient.
            level = draw.uniform(-60, 40)
            blobs = shape.smooth(draw, draw.uniform(15, 50)) > draw.uniform(-1.2, 0.7)
            gas = inside & blobs & ((shape.y < level) | draw.chance(0.3))
            hu = torch.where(gas, torch.full_like(hu, draw.uniform(-1000, -850)), hu)
    return hu


def _with_gas_below_the_diaphragm(hu: torch.Tensor, body: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """A wide stomach or bend of the colon, full of gas and food, a wall away from the lung's base."""
    if not draw.chance(0.45):
        return hu
    lung = shape.side("left" if draw.chance(0.8) else "right")
    if not lung.any():
        return hu
    base = _base_of(lung, shape, draw)
    near = shape.blurred(shape.lung, draw.uniform(1.2, 3.0)) > 0.04
    room = body & (shape.hull_mm <= 0) & ~near & (hu > -200) & (hu < 140)
    inside = torch.zeros_like(room)
    for _ in range(draw.integer(1, 4)):
        middle = base + draw.scalars.normal(0, 1, 3) * (14, 30, 26) - (draw.uniform(5, 45), 10, 0)
        radii = draw.scalars.uniform(12, 48, 3)
        axes = zip((shape.z, shape.y, shape.x), middle, radii, strict=True)
        distance = sum(((axis - float(m)) / float(r)) ** 2 for axis, m, r in axes)
        inside |= distance + 0.15 * shape.smooth(draw, 25) < 1
    inside &= room
    wall = shape.blurred(inside.float(), 1.5) < 0.75
    food = draw.uniform(-60, 60) + draw.uniform(20, 150) * shape.smooth(draw, 7)
    gas = (shape.y < float(base[1]) + draw.uniform(-25, 60)) & (shape.smooth(draw, 14) < draw.uniform(0.5, 3.0))
    content = torch.where(gas, torch.full_like(hu, draw.uniform(-1000, -880)), food)
    content = torch.where(wall, torch.full_like(hu, draw.uniform(10, 60)), content)
    return torch.where(inside, content, hu)


def _base_of(lung: torch.Tensor, shape: Shape, draw: Draw) -> np.ndarray:
    """Position (z, y, x) in mm of the middle of a lung's dome: its lower surface."""
    seen = lung.any(0)
    lowest = shape.z.flatten()[lung.float().argmax(0)[seen]]
    places = torch.nonzero(seen)
    y, x = shape.y.flatten()[places[:, 0]], shape.x.flatten()[places[:, 1]]
    return np.array([float(torch.quantile(lowest[::7], draw.uniform(0.3, 0.6))), float(y.mean()), float(x.mean())])


def _with_surroundings(
    hu: torch.Tensor, body: torch.Tensor, shape: Shape, look: Appearance, draw: Draw
) -> torch.Tensor:
    """Blanket, clothes and table around the body, each often absent."""
    if draw.chance(0.5):
        cloth = shape.smooth(draw, 12)
        near = (shape.hull_mm < 60) & ~body & ((cloth.abs() < 0.12) | ((cloth > 1.4) & (shape.y > 20)))
        hu = torch.where(near, draw.uniform(-950, -650) + 40 * draw.white(shape.size), hu)
    if draw.chance(0.2):
        hu = _with_arms(hu, body, shape, draw)
    if draw.chance(0.8):
        name = str(draw.scalars.choice(look.tables))
        hu = _with_table(hu, body, shape, TABLES[name], draw)
    return hu


TABLES: dict[str, dict[str, tuple[float, float]]] = {
    "foam": {"curve": (0.0, 0.0012), "mattress_mm": (12, 40), "shell_mm": (2, 5), "gap_mm": (10, 60)},
    "shell": {"curve": (0.0006, 0.0016), "mattress_mm": (3, 10), "shell_mm": (2, 4), "gap_mm": (8, 30)},
    "flat": {"curve": (0.0, 0.0001), "mattress_mm": (5, 25), "shell_mm": (2, 8), "gap_mm": (20, 60)},
    "hollow": {"curve": (0.0002, 0.0008), "mattress_mm": (8, 25), "shell_mm": (1.5, 3), "gap_mm": (50, 90)},
    "hammock": {"curve": (0.0012, 0.002), "mattress_mm": (10, 30), "shell_mm": (2, 4), "gap_mm": (5, 15)},
    "cradle": {"curve": (0.0022, 0.0032), "mattress_mm": (5, 15), "shell_mm": (3, 6), "gap_mm": (10, 25)},
    "vacuum_cushion": {"curve": (0.0, 0.0006), "mattress_mm": (40, 65), "shell_mm": (1, 2), "gap_mm": (60, 100)},
}
"""Tables by curvature (1/mm), mattress, shell and the distance between a hollow one's two shells."""


def _with_table(
    hu: torch.Tensor, body: torch.Tensor, shape: Shape, kind: dict[str, tuple[float, float]], draw: Draw
) -> torch.Tensor:
    """A mattress of foam on a shell, the shell hollow or filled."""
    rows = body.any(dim=0).any(dim=1).nonzero()
    bottom = float(shape.y.flatten()[int(rows.max()) if len(rows) else -1])
    top = bottom - draw.uniform(0, 25) - draw.uniform(*kind["curve"]) * shape.x**2
    outside = (shape.x.abs() < draw.uniform(140, 260)) & ~body
    mattress_mm, shell_mm, gap_mm = (draw.uniform(*kind[key]) for key in ("mattress_mm", "shell_mm", "gap_mm"))
    inside = shape.y - top
    foam = outside & (inside > 0) & (inside < mattress_mm)
    hu = torch.where(foam, draw.uniform(-990, -780) + draw.uniform(5, 60) * draw.white(hu.shape), hu)
    inside = inside - mattress_mm
    for start in (0.0, gap_mm):
        shell = outside & (inside > start) & (inside < start + shell_mm)
        hu = torch.where(shell, torch.full_like(hu, draw.uniform(-500, 300)), hu)
    core = outside & (inside > shell_mm) & (inside < gap_mm)
    return torch.where(core, torch.full_like(hu, draw.uniform(-1000, -880)), hu) if draw.chance(0.7) else hu


def _with_arms(hu: torch.Tensor, body: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Arms beside the trunk: a rod of flesh with a bone."""
    for side in (-1, 1):
        centre_x = side * draw.uniform(150, 200) + shape.z * draw.uniform(-0.2, 0.2)
        centre_y = draw.uniform(-40, 60) + shape.z * draw.uniform(-0.3, 0.3)
        distance = ((shape.x - centre_x) ** 2 + (shape.y - centre_y) ** 2).sqrt()
        for radius, value in (
            (draw.uniform(28, 48), draw.uniform(-100, 60)),
            (24.0, 50.0),
            (11.0, 700.0),
            (6.0, 100.0),
        ):
            hu = torch.where((distance < radius) & ~body, torch.full_like(hu, value), hu)
    return hu

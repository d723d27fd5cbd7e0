"""Attenuation of everything that is not lung: chest wall, organs, table, air around."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from training.synthesis.anatomy import TISSUE_VALUES
from training.synthesis.draw import Draw, gaussian_blur
from training.synthesis.shape import Shape

AIR_HU = -1000.0

ORGAN_HU: dict[str, tuple[float, float]] = {
    "muscle": (35, 70),
    "heart": (20, 60),
    "artery": (20, 60),
    "vein": (20, 60),
    "esophagus": (0, 50),
    "liver": (10, 85),
    "spleen": (35, 70),
    "kidney": (15, 60),
    "gland": (0, 60),
    "cord": (10, 50),
    "cartilage": (60, 250),
}
"""Ranges of mean attenuation without contrast; Barrett and Keat 2004, Lamba 2014, widened."""


def render_body(shape: Shape, draw: Draw) -> torch.Tensor:
    """HU (z, y, x) of the scan without its lungs, which are left as soft tissue."""
    hu = torch.full(shape.size, AIR_HU, device=draw.device)
    body, skin_mm = _body_mask(shape, draw)
    hu = torch.where(body, _wall(shape, skin_mm, draw), hu)
    hu = _with_organs(hu, shape, draw)
    hu = _with_bowel_gas(hu, shape, draw)
    hu = torch.where(shape.tissue == TISSUE_VALUES["airway"], torch.full_like(hu, draw.uniform(-1000, -930)), hu)
    return _with_surroundings(hu, body, shape, draw)


def _body_mask(shape: Shape, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    """The body, and each voxel's depth in mm under the skin (negative outside)."""
    fat_mm = draw.log_uniform(5.0, 45.0)
    uneven = 1 + 0.35 * draw.smooth(shape.size, 60 / shape.spacing_mm)
    back = shape.points_mm[..., 1] / 100
    front_heavy = draw.uniform(-0.3, 0.5)
    thickness = fat_mm * uneven * (1 - front_heavy * back.clamp(-1, 1)).clamp(0.4, 2)
    depth = thickness.clamp(min=4.0) - shape.hull_mm
    body = depth > 0
    if draw.chance(0.5):
        arm = (shape.tissue == TISSUE_VALUES["arm"]).float()[None, None]
        reach = 2 * round(draw.uniform(15, 30) / shape.spacing_mm / 2) + 1
        body = body | (gaussian_blur(F.max_pool3d(arm, reach, 1, reach // 2)[0, 0], (1.5, 1.5, 1.5)) > 0.5)
    return body, depth


def _wall(shape: Shape, skin_mm: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Skin, fat, muscle layers and the fatty spaces between organs."""
    size, spacing = shape.size, shape.spacing_mm
    fat = draw.uniform(-120, -80) + 12 * draw.smooth(size, 8 / spacing)
    muscle = draw.uniform(30, 65) + 12 * draw.smooth(size, 8 / spacing)
    # Between the ribs and the fat lie muscles, with fatty streaks; inside the hull lies more fat.
    muscular_mm = draw.uniform(3, 22)
    inner = draw.smooth(size, draw.uniform(8, 25) / spacing) > draw.uniform(-0.6, 0.9)
    layer = (shape.hull_mm < muscular_mm) & (draw.smooth(size, 9 / spacing) > draw.uniform(-1.6, -0.4))
    is_muscle = torch.where(shape.hull_mm > 0, layer, inner)
    near_lung = gaussian_blur(shape.lung, (3.0 / spacing,) * 3) > 0.12
    is_muscle = is_muscle | (near_lung & (draw.smooth(size, 10 / spacing) > draw.uniform(-1.5, 0.3)))
    hu = torch.where(is_muscle, muscle, fat)
    return torch.where((skin_mm < 2.5) & (skin_mm > 0), torch.full_like(hu, draw.uniform(-20, 40)), hu)


def _with_organs(hu: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    table = torch.full((len(TISSUE_VALUES),), float("nan"), device=draw.device)
    enhanced = draw.uniform(60, 320) if draw.chance(0.4) else 0.0
    for name, (low, high) in ORGAN_HU.items():
        table[TISSUE_VALUES[name]] = draw.uniform(low, high)
    for name in ("heart", "artery", "vein"):
        table[TISSUE_VALUES[name]] += enhanced * draw.uniform(0.3, 1.0)
    for name in ("liver", "spleen", "kidney"):
        table[TISSUE_VALUES[name]] += min(enhanced, 120) * draw.uniform(0.2, 0.9)
    organ = table[shape.tissue]
    hu = torch.where(organ.isnan(), hu, organ + 9 * draw.smooth(shape.size, 6 / shape.spacing_mm))
    return _with_bones(hu, shape, draw)


def _with_bones(hu: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Bones with a dense rim and marrow of their own."""
    is_bone = torch.zeros_like(shape.lung, dtype=torch.bool)
    for name in ("bone", "vertebra", "arm"):
        is_bone |= shape.tissue == TISSUE_VALUES[name]
    core = gaussian_blur(is_bone.float(), (2.0 / shape.spacing_mm,) * 3)
    marrow = draw.uniform(40, 280) + 60 * draw.smooth(shape.size, 6 / shape.spacing_mm)
    cortex = draw.uniform(350, 1100)
    return torch.where(is_bone, torch.where(core > 0.85, marrow, torch.full_like(hu, cortex)), hu)


def _with_bowel_gas(hu: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Stomach and bowel: fluid, food and gas; the gas is no lung."""
    for name, chance in (("stomach", 0.85), ("bowel", 0.75)):
        inside = shape.tissue == TISSUE_VALUES[name]
        content = draw.uniform(-10, 50) + 40 * draw.smooth(shape.size, 10 / shape.spacing_mm)
        hu = torch.where(inside, content, hu)
        if draw.chance(chance):
            # Gas rises to the front (small y) of a lying patient.
            level = draw.uniform(-60, 40)
            blobs = draw.smooth(shape.size, draw.uniform(15, 50) / shape.spacing_mm) > draw.uniform(-1.2, 0.7)
            gas = inside & blobs & ((shape.points_mm[..., 1] < level) | draw.chance(0.3))
            hu = torch.where(gas, torch.full_like(hu, draw.uniform(-1000, -850)), hu)
    return hu


def _with_surroundings(hu: torch.Tensor, body: torch.Tensor, shape: Shape, draw: Draw) -> torch.Tensor:
    """Blanket, clothes and table around the body, each often absent."""
    z, y, x = shape.points_mm.unbind(-1)
    if draw.chance(0.5):
        cloth = draw.smooth(shape.size, 12 / shape.spacing_mm)
        near = (shape.hull_mm < 60) & ~body & ((cloth.abs() < 0.12) | ((cloth > 1.4) & (y > 20)))
        hu = torch.where(near, draw.uniform(-950, -650) + 40 * draw.white(shape.size), hu)
    if draw.chance(0.75):
        hu = _with_table(hu, body, x, y, draw)
    if draw.chance(0.2):
        hu = _with_arms(hu, body, z, y, x, draw)
    return hu


def _with_table(hu: torch.Tensor, body: torch.Tensor, x: torch.Tensor, y: torch.Tensor, draw: Draw) -> torch.Tensor:
    """A curved mattress of foam on a shell, the shell hollow or filled."""
    rows = body.any(dim=0).any(dim=1).nonzero()
    bottom = y[0, int(rows.max()) if len(rows) else -1, 0]
    top = bottom - draw.uniform(0, 25) - draw.uniform(0, 0.0012) * x**2
    width = x.abs() < draw.uniform(140, 260)
    mattress_mm, shell_mm, gap_mm = draw.uniform(5, 35), draw.uniform(2, 5), draw.uniform(8, 60)
    inside = y - top
    foam = width & ~body & (inside > 0) & (inside < mattress_mm)
    hu = torch.where(foam, draw.uniform(-990, -780) + draw.uniform(5, 60) * draw.white(hu.shape), hu)
    inside = inside - mattress_mm
    for start in (0.0, gap_mm):
        shell = width & ~body & (inside > start) & (inside < start + shell_mm)
        hu = torch.where(shell, torch.full_like(hu, draw.uniform(-500, 300)), hu)
    core = width & ~body & (inside > shell_mm) & (inside < gap_mm)
    return torch.where(core, torch.full_like(hu, draw.uniform(-1000, -880)), hu) if draw.chance(0.7) else hu


def _with_arms(
    hu: torch.Tensor, body: torch.Tensor, z: torch.Tensor, y: torch.Tensor, x: torch.Tensor, draw: Draw
) -> torch.Tensor:
    """Arms beside the trunk: a rod of flesh with a bone."""
    for side in (-1, 1):
        centre_x = side * draw.uniform(150, 200) + z * draw.uniform(-0.2, 0.2)
        centre_y = draw.uniform(-40, 60) + z * draw.uniform(-0.3, 0.3)
        distance = ((x - centre_x) ** 2 + (y - centre_y) ** 2).sqrt()
        for radius, value in (
            (draw.uniform(28, 48), draw.uniform(-100, 60)),
            (24.0, 50.0),
            (11.0, 700.0),
            (6.0, 100.0),
        ):
            hu = torch.where((distance < radius) & ~body, torch.full_like(hu, value), hu)
    return hu

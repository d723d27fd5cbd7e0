"""From smooth anatomy to Hounsfield units on a fine grid, slab by slab."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.phantom import skeleton
from COVIDMultitaskLib.phantom.anatomy import Anatomy
from COVIDMultitaskLib.phantom.disease import Disease, opacify
from COVIDMultitaskLib.phantom.fields import Field, Grid, texture
from COVIDMultitaskLib.phantom.shapes import coverage, paint
from COVIDMultitaskLib.phantom.thorax import lobes_of
from COVIDMultitaskLib.phantom.trees import Tree, draw

AIR_HU, FAT_HU, MUSCLE_HU, SKIN_HU = -1000.0, -103.0, 52.0, 15.0
LIVER_HU, SPLEEN_HU, HEART_HU = 58.0, 50.0, 42.0
RIM_HU, MARROW_HU, CARTILAGE_HU = 580.0, 210.0, 95.0
AIRWAY_WALL_MM = 1.3
SPINE_LOW, SPINE_HIGH = (-1e3, 90.0, -75.0), (1e3, 240.0, 75.0)
CHEST_LOW, CHEST_HIGH = (-1e3, -10.0, -150.0), (1e3, 215.0, 150.0)
"""Ends (z, y, x) of the space that holds the spine, and of that which holds the lungs and what lies between."""


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn.

    :param textures: smooth noise by name: "soft" and "fine" grain of tissues, "planes" of fat between muscles,
        "reticulation" and "patches" of diseased lung.
    """

    anatomy: Anatomy
    arteries: Tree
    veins: Tree
    bronchi: Tree
    disease: Disease | None
    textures: dict[str, Field]


def make_textures(seed: int) -> dict[str, Field]:
    """The random textures of one patient."""
    scales = {"soft": 9.0, "fine": 3.0, "planes": 26.0, "reticulation": 7.0, "patches": 24.0}
    return {name: texture(seed, name, scale) for name, scale in scales.items()}


def render_slab(scene: Scene, grid: Grid, edge_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU (float32), lobes and lesions (uint8) of one slab, before blur and noise."""
    image = np.full(grid.shape, AIR_HU, np.float32)
    paint_table(image, grid, scene.textures["fine"])
    paint_body(image, scene, grid, edge_mm)
    spine = grid.window(SPINE_LOW, SPINE_HIGH)
    skeleton.paint_spine(image[spine], grid.part(spine), edge_mm)
    lobes, lesions = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    window = grid.window(CHEST_LOW, CHEST_HIGH)
    lobes[window], lesions[window] = paint_chest(image[window], scene, grid.part(window), edge_mm)
    return image, lobes, lesions


def paint_table(image: np.ndarray, grid: Grid, fine: Field) -> None:
    """A mattress on a curved carbon shell filled with foam."""
    _, y, x = grid.mesh()
    depth = y - (243 - 0.0007 * x**2) + np.zeros(grid.shape, np.float32)
    inside = np.abs(x) < 205
    foam = -935 + 14 * fine.on(grid)
    image[:] = np.where(inside & (depth > 0) & (depth < 11), foam, image)
    image[:] = np.where(inside & (depth > 13), -968, image)
    paint(image, coverage(np.abs(depth - 12.5) - 0.8, 1.0) * inside, -260.0)
    paint(image, coverage(np.abs(y - 280) - 0.8, 1.0) * inside, -260.0)


def paint_body(image: np.ndarray, scene: Scene, grid: Grid, edge_mm: float) -> None:
    """Skin, fat, muscles with the fat between them, ribs, abdomen, and the fat in the chest."""
    anatomy, textures = scene.anatomy, scene.textures
    body, cage = anatomy.on("body", grid), anatomy.on("cage", grid)
    soft, planes = textures["soft"].on(grid), textures["planes"].on(grid)
    tissue = MUSCLE_HU + 11 * soft
    between = np.maximum(np.abs(planes) * 10 - 2.2, 12.5 - cage)
    layer = np.abs(cage - 14 - 2.5 * planes) - 0.9 - 0.8 * np.maximum(planes, 0)
    under_skin = -(body + anatomy.patient.fat + 3.5 * planes)
    fat = np.minimum(np.minimum(between, layer), under_skin)
    paint(tissue, coverage(fat, 2.0 * edge_mm), FAT_HU + 6 * soft)
    paint(tissue, coverage(-1.8 - body, edge_mm), SKIN_HU)
    low_neck = np.clip((grid.z[:, None, None] - 238) / 20, 0, 1)
    paint(tissue, coverage(cage, 3.0) * (1 - low_neck), FAT_HU + 12 * soft + 10)
    if grid.z[0] < 110:
        paint_abdomen(tissue, scene, grid, edge_mm, cage)
    paint_bones(tissue, scene, grid, edge_mm, cage)
    paint(image, coverage(body, edge_mm), tissue)


def paint_bones(tissue: np.ndarray, scene: Scene, grid: Grid, edge_mm: float, cage: np.ndarray) -> None:
    """Ribs with their cartilages, shoulders and sternum, each with a dense rim."""
    ribs, cartilage = skeleton.ribs(grid, cage)
    paint(tissue, coverage(ribs, edge_mm), RIM_HU + (CARTILAGE_HU - RIM_HU) * cartilage)
    paint(tissue, coverage(ribs + 1.6, edge_mm), MARROW_HU + (CARTILAGE_HU - MARROW_HU) * cartilage)
    bones = scene.anatomy.on("bones", grid)
    paint(tissue, coverage(bones, edge_mm), RIM_HU)
    paint(tissue, coverage(bones + 2.0, edge_mm), MARROW_HU)


def paint_abdomen(tissue: np.ndarray, scene: Scene, grid: Grid, edge_mm: float, cage: np.ndarray) -> None:
    """Diaphragm, liver, spleen, stomach with its gas above the fluid, bowel."""
    anatomy, textures = scene.anatomy, scene.textures
    below = anatomy.on("diaphragm", grid)
    bowel = np.maximum(0.35 - textures["planes"].on(grid), (grid.z[:, None, None] - 12) / 30)
    paint(tissue, coverage(np.maximum(8 * bowel, np.maximum(cage + 10, below + 8)), 3.0), 30.0)
    paint(tissue, coverage(np.maximum(np.abs(below + 1.2) - 1.4, cage), edge_mm), 48.0)
    for name, value in (("liver", LIVER_HU), ("spleen", SPLEEN_HU), ("stomach", 38.0)):
        paint(tissue, coverage(anatomy.on(name, grid), edge_mm), value)
    content = anatomy.on("stomach", grid) + 4
    paint(tissue, coverage(content, edge_mm), 22.0 + 9 * textures["fine"].on(grid))
    paint(tissue, coverage(np.maximum(content, grid.y[None, :, None] - 58), edge_mm), -985.0)


def paint_chest(image: np.ndarray, scene: Scene, grid: Grid, edge_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Heart, vessels and lungs with their contents; returns lobes and lesions."""
    anatomy = scene.anatomy
    paint_mediastinum(image, scene, grid, edge_mm)
    lung, lumen = anatomy.on("lungs", grid), anatomy.on("lumen", grid)
    major, minor = anatomy.on("major", grid), anatomy.on("minor", grid)
    air = parenchyma(scene, grid, major, minor)
    inside = (lung < 0) & (lumen > AIRWAY_WALL_MM)
    lobes = lobes_of(major, minor, grid.x) * inside
    lesions = np.zeros(grid.shape, np.uint8)
    if scene.disease is not None:
        lesions, score, dense = scene.disease.labels_on(grid, inside)
        weave, patches = scene.textures["reticulation"].on(grid), scene.textures["patches"].on(grid)
        opacify(air, score, dense, weave, patches)
    paint_trees(air, scene, grid, edge_mm)
    paint(image, coverage(lung, edge_mm), air)
    paint(image, coverage(lumen - AIRWAY_WALL_MM, edge_mm), 20.0)
    paint(image, coverage(lumen, edge_mm), -985.0)
    return lobes.astype(np.uint8), lesions


def paint_mediastinum(image: np.ndarray, scene: Scene, grid: Grid, edge_mm: float) -> None:
    """Heart, great vessels and oesophagus in their fat."""
    anatomy = scene.anatomy
    soft = scene.textures["soft"].on(grid)
    paint(image, coverage(anatomy.on("nodes", grid), edge_mm), 38.0)
    paint(image, coverage(anatomy.on("heart", grid), edge_mm), HEART_HU + 3 * soft)
    paint(image, coverage(anatomy.on("vessels", grid), edge_mm), anatomy.patient.blood_hu)
    gullet = anatomy.on("oesophagus", grid)
    paint(image, coverage(gullet, edge_mm), 38.0)
    gas = np.maximum(gullet + 4.2, 0.6 - scene.textures["planes"].on(grid))
    paint(image, coverage(gas, edge_mm), -700.0)


def parenchyma(scene: Scene, grid: Grid, major: np.ndarray, minor: np.ndarray) -> np.ndarray:
    """Aerated lung: denser towards the back, finely uneven, with thin and partly missing fissures."""
    patient, textures = scene.anatomy.patient, scene.textures
    weight = (grid.y[None, :, None] - 97) / 195
    air = (patient.lung_hu + patient.gravity_hu * weight).astype(np.float32)
    air = air + 20 * textures["soft"].on(grid) + 20 * textures["fine"].on(grid) + 12 * textures["planes"].on(grid)
    present = np.clip((textures["planes"].on(grid) + 1.0) * 3, 0, 1)
    right = (grid.x < 0)[None, None, :]
    nearest = np.where(right & (major > 0), np.minimum(np.abs(major), np.abs(minor)), np.abs(major))
    air += 200 * present * np.clip(1.4 - nearest / 0.9, 0, 1)
    return air.astype(np.float32)


def paint_trees(air: np.ndarray, scene: Scene, grid: Grid, edge_mm: float) -> None:
    """Vessels and bronchi in the lung."""
    blood = np.float32(scene.anatomy.patient.blood_hu)
    for tree in (scene.arteries, scene.veins):
        share = draw(tree, grid, edge_mm)
        air += share * np.maximum(blood - air, 0)
    wall = scene.bronchi.with_radius(1.18 * scene.bronchi.radius + 0.45)
    paint(air, 0.9 * draw(wall, grid, edge_mm), -60.0)
    paint(air, draw(scene.bronchi, grid, edge_mm), -975.0)

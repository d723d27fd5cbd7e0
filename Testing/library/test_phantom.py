"""The phantom: the same every time, anatomically plausible, with a truth that fits its image."""

from __future__ import annotations

import numpy as np
import pytest

from COVIDMultitaskLib.labels import LEFT_LOWER, LEFT_UPPER, LUNGS, RIGHT_LOWER, RIGHT_MIDDLE, RIGHT_UPPER
from COVIDMultitaskLib.phantom import Phantom, make_phantom

COARSE = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def covid() -> Phantom:
    return make_phantom(seed=3, spacing_mm=COARSE, disease="covid_19", extent=0.2)


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return make_phantom(seed=3, spacing_mm=COARSE, disease="no_pneumonia")


def centre_mm(phantom: Phantom, mask: np.ndarray) -> np.ndarray:
    """LPS centre (x, y, z) of a mask."""
    index = np.append(np.argwhere(mask).mean(0), 1.0)
    return (phantom.volume.geometry.affine @ index)[:3]


def test_same_arguments_give_the_same_scan(covid: Phantom) -> None:
    again = make_phantom(seed=3, spacing_mm=COARSE, disease="covid_19", extent=0.2)
    assert np.array_equal(again.volume.array, covid.volume.array)
    assert np.array_equal(again.lobes, covid.lobes)
    assert np.array_equal(again.lesions, covid.lesions)


def test_everything_lies_on_one_grid(covid: Phantom) -> None:
    volume = covid.volume
    assert volume.array.shape == covid.lobes.shape == covid.lesions.shape == volume.geometry.shape
    assert volume.geometry.spacing_mm == COARSE
    assert (volume.array.dtype, covid.lobes.dtype, covid.lesions.dtype) == (np.int16, np.uint8, np.uint8)
    assert volume.provenance.format == "phantom"


def test_each_seed_gives_a_patient_of_plausible_size() -> None:
    patients = []
    for seed in range(3):
        phantom = make_phantom(seed, spacing_mm=(4, 4, 4), disease="no_pneumonia")
        litres = np.bincount(phantom.lobes.ravel(), minlength=6)[1:] * phantom.volume.geometry.voxel_ml / 1000
        assert 3 < litres.sum() < 6
        assert np.all(litres > (0.6, 0.6, 0.6, 0.2, 0.5))
        assert litres.argmin() + 1 == RIGHT_MIDDLE
        assert litres[[2, 3, 4]].sum() > litres[[0, 1]].sum()
        patients.append(tuple(litres.round(3)))
    assert len(set(patients)) == 3


def test_lobes_lie_where_they_belong(healthy: Phantom) -> None:
    centre = {lobe: centre_mm(healthy, healthy.lobes == lobe) for lobe in range(1, 6)}
    assert all(centre[lobe][0] < -20 for lobe in LUNGS["right"])  # LPS: right is negative
    assert all(centre[lobe][0] > 20 for lobe in LUNGS["left"])
    assert centre[LEFT_UPPER][2] > centre[LEFT_LOWER][2] + 20
    assert centre[RIGHT_UPPER][2] > centre[RIGHT_LOWER][2] + 20
    assert centre[RIGHT_UPPER][2] > centre[RIGHT_MIDDLE][2] + 20
    assert centre[RIGHT_MIDDLE][1] < centre[RIGHT_LOWER][1] - 20  # the middle lobe lies in front
    assert centre[LEFT_UPPER][1] < centre[LEFT_LOWER][1] - 20


def test_each_lobe_is_one_piece(healthy: Phantom) -> None:
    from scipy.ndimage import label

    for lobe in range(1, 6):
        pieces, _ = label(healthy.lobes == lobe)
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() > 0.98 * sizes.sum()


def test_densities_are_those_of_a_chest(healthy: Phantom) -> None:
    from scipy.ndimage import binary_erosion

    hu = healthy.volume.array
    lung = binary_erosion(healthy.lobes > 0, iterations=2)
    assert -900 < np.median(hu[lung]) < -820
    assert 0.005 < (hu[lung] > -500).mean() < 0.10  # vessels
    back = np.arange(hu.shape[1])[None, :, None] > np.argwhere(lung)[:, 1].mean()
    assert np.median(hu[lung & back]) > np.median(hu[lung & ~back]) + 15  # gravity
    body = (hu > -200) & (hu < 1000)
    assert 0.1 < (body & (hu < -60)).sum() / body.sum() < 0.5  # fat
    assert 0.3 < (body & (hu > 0) & (hu < 100)).sum() / body.sum() < 0.8  # muscle and organs
    assert 0.01 < (body & (hu > 200)).sum() / body.sum() < 0.12  # bone
    assert np.median(hu[:, :4]) < -950  # air in front of the patient


@pytest.mark.parametrize(("disease", "extent"), [("covid_19", 0.03), ("covid_19", 0.6), ("other_pneumonia", 0.5)])
def test_the_wanted_share_of_the_lungs_is_diseased(disease: str, extent: float) -> None:
    phantom = make_phantom(5, spacing_mm=(4, 4, 4), disease=disease, extent=extent)
    assert phantom.affected_fraction == pytest.approx(extent, abs=0.01 + 0.05 * extent)
    assert not phantom.lesions[phantom.lobes == 0].any()
    assert set(np.unique(phantom.lesions)) == {0, 1, 2}


def test_lesions_are_where_the_density_was_raised(covid: Phantom, healthy: Phantom) -> None:
    rise = covid.volume.array.astype(int) - healthy.volume.array
    lesion = covid.lesions > 0
    assert rise[lesion].mean() > 150
    beside = np.zeros_like(lesion)
    beside[1:-1] = lesion[:-2] | lesion[2:]  # slices blend with their neighbours
    lung = covid.lobes > 0
    beside[1:-1] |= ~(lung[:-2] & lung[2:])  # the pleura too
    healthy_lung = lung & ~lesion & ~beside
    assert healthy_lung.sum() > 0.5 * lung.sum()
    assert np.abs(rise[healthy_lung]).max() == 0
    assert np.array_equal(covid.lobes, healthy.lobes)


def test_consolidation_is_denser_than_ground_glass(covid: Phantom) -> None:
    hu = covid.volume.array
    assert -720 < np.median(hu[covid.lesions == 1]) < -420
    assert np.median(hu[covid.lesions == 2]) > -250


def test_covid_is_bilateral_and_dorsal(covid: Phantom) -> None:
    lesion = covid.lesions > 0
    for lung in LUNGS.values():
        mask = np.isin(covid.lobes, lung)
        assert (lesion & mask).sum() > 0.05 * mask.sum()
    assert centre_mm(covid, lesion)[1] > centre_mm(covid, covid.lobes > 0)[1] + 5


def test_other_pneumonia_prefers_one_lobe() -> None:
    phantom = make_phantom(1, spacing_mm=(4, 4, 4), disease="other_pneumonia", extent=0.1)
    per_lobe = np.bincount(phantom.lobes[phantom.lesions == 2], minlength=6)[1:]
    assert per_lobe.max() > 0.95 * per_lobe.sum()


def test_no_pneumonia_has_no_lesions(healthy: Phantom) -> None:
    assert not healthy.lesions.any()
    assert healthy.affected_fraction == 0


def test_a_flipped_scan_shows_the_same_patient(healthy: Phantom) -> None:
    flipped = make_phantom(seed=3, spacing_mm=COARSE, disease="no_pneumonia", flipped=(True, False, True))
    assert np.array_equal(flipped.volume.array[::-1, :, ::-1], healthy.volume.array)
    assert np.allclose(
        centre_mm(flipped, flipped.lobes == RIGHT_LOWER), centre_mm(healthy, healthy.lobes == RIGHT_LOWER)
    )


def test_an_oblique_scan_shows_the_same_patient(healthy: Phantom) -> None:
    oblique = make_phantom(seed=3, spacing_mm=COARSE, disease="no_pneumonia", oblique_degrees=(12, -5, 8))
    direction = oblique.volume.geometry.direction
    assert not np.allclose(direction, healthy.volume.geometry.direction, atol=0.05)
    assert np.linalg.det(direction) == pytest.approx(np.linalg.det(healthy.volume.geometry.direction))
    for lobe in range(1, 6):
        distance = centre_mm(oblique, oblique.lobes == lobe) - centre_mm(healthy, healthy.lobes == lobe)
        assert np.abs(distance).max() < 3
    assert (oblique.lobes > 0).sum() == pytest.approx((healthy.lobes > 0).sum(), rel=0.02)


def test_slices_of_any_thickness_show_the_same_patient(healthy: Phantom) -> None:
    thick = make_phantom(seed=3, spacing_mm=(9, 4, 4), disease="no_pneumonia")
    ml = [(p.lobes > 0).sum() * p.volume.geometry.voxel_ml for p in (thick, healthy)]
    assert ml[0] == pytest.approx(ml[1], rel=0.02)


@pytest.mark.parametrize(
    "wrong", [{"disease": "flu"}, {"extent": 0.9}, {"extent": -0.1}, {"spacing_mm": (0, 1, 1)}, {"spacing_mm": (1, 1)}]
)
def test_wrong_arguments_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"must"):
        make_phantom(**wrong)

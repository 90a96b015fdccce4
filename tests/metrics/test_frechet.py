"""The distance equals the closed form, scipy's matrix root and the reference values, from features and from sums."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from flexivid.metrics.frechet import Moments, frechet_distance, frechet_from_moments

pytestmark = pytest.mark.filterwarnings("ignore:got .* videos; expected at least")


def feats(seed, n, d, scale=1.0, shift=0.0):
    mix = np.random.RandomState(7).standard_normal((d, d)) / np.sqrt(d)
    return (np.random.RandomState(seed).standard_normal((n, d)) @ mix * scale + shift).astype(np.float32)


def from_sums(x, y):
    return frechet_from_moments(*(Moments.of(torch.as_tensor(features)) for features in (x, y)))


def standardised(n, d, seed=0):
    """Data whose mean is 0 and whose covariance is the identity, exactly."""
    x = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(x - x.mean(0)).Q * (n - 1) ** 0.5


@pytest.mark.parametrize("compute", [frechet_distance, from_sums])
@pytest.mark.parametrize(
    ("case", "x", "y"),
    [
        ("N=2048 d=400 same dist", (1, 2048, 400), (2, 2048, 400)),
        ("N=64 d=400 (rank deficient)", (1, 64, 400), (3, 64, 400, 1.1, 0.1)),
        ("N=64 identical sets", (1, 64, 400), (1, 64, 400)),
        ("N=2 d=400", (1, 2, 400), (3, 2, 400, 1, 0)),
    ],
)
def test_reference_values(golden_numbers, compute, case, x, y):
    truth = golden_numbers["frechet"][case]
    assert compute(feats(*x), feats(*y)) == pytest.approx(truth, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("compute", [frechet_distance, from_sums])
@pytest.mark.parametrize(("n", "m"), [(50, 70), (7, 70), (7, 5)])
def test_scipy_agrees(compute, n, m):
    x, y = feats(1, n, 24).astype(float), feats(2, m, 24, 1.5, 0.2).astype(float)
    covariances = np.cov(x.T), np.cov(y.T)
    root = sqrtm(covariances[0] @ covariances[1]).real
    truth = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    exact = min(n, m) > 24  # of a singular product scipy's root is good to half the digits
    assert compute(x, y) == pytest.approx(truth, rel=1e-9 if exact else 1e-5)


@pytest.mark.parametrize("compute", [frechet_distance, from_sums])
def test_closed_form_of_gaussians_with_common_axes(compute):
    scales = torch.linspace(0.1, 3, 12, dtype=torch.float64)
    shift = torch.linspace(-1, 1, 12, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
    x, y = standardised(40, 12, 1) @ axes, standardised(30, 12, 2) * scales @ axes + shift
    assert compute(x, y) == pytest.approx(float((shift**2).sum() + ((1 - scales) ** 2).sum()), rel=1e-11)


def test_a_distance_is_symmetric_and_ignores_rotations_and_order():
    x, y = torch.from_numpy(feats(1, 90, 16)).double(), torch.from_numpy(feats(2, 60, 16, 2, 1)).double()
    axes = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    truth = frechet_distance(x, y)
    assert frechet_distance(y, x) == pytest.approx(truth, rel=1e-12)
    assert frechet_distance(x @ axes + 5, y @ axes + 5) == pytest.approx(truth, rel=1e-12)
    assert frechet_distance(x.flip(0), y) == pytest.approx(truth, rel=1e-12)


def test_copies_of_features_change_nothing_for_want_of_videos():
    """Rank 6 in 400 columns: the distance is that of the columns that matter."""
    x, y = (torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    padded = [torch.cat([features, torch.zeros(7, 397)], dim=1) for features in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(x, y), rel=1e-12)


def test_means_far_from_zero_cost_no_digits():
    x, y = torch.from_numpy(feats(1, 64, 16)).double(), torch.from_numpy(feats(2, 64, 16)).double()
    assert frechet_distance(x + 1e6, y + 1e6) == pytest.approx(frechet_distance(x, y), rel=1e-6)
    assert from_sums(x + 100, y + 100) == pytest.approx(frechet_distance(x, y), rel=1e-6)


def test_sums_of_parts_are_sums_of_the_whole():
    x, y = torch.from_numpy(feats(1, 31, 8)), torch.from_numpy(feats(2, 20, 8))
    parts = [Moments.of(part) for part in x.split(7)]
    whole = Moments(*(torch.stack(sums).sum(0) for sums in zip(*parts, strict=True)))
    assert frechet_from_moments(whole, Moments.of(y)) == pytest.approx(frechet_distance(x, y), rel=1e-10)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(0, 4), torch.zeros(5, 4), "got 0 and 5 videos; expected at least 2"),
        (torch.zeros(5, 4), torch.zeros(1, 4), "got 5 and 1 videos; expected at least 2"),
        (torch.zeros(5, 4), torch.zeros(5, 3), r"got features \(5, 4\) and \(5, 3\); expected"),
        (torch.zeros(5), torch.zeros(5), r"got features \(5,\) and \(5,\); expected"),
        (torch.zeros(5, 4), torch.tensor([[0.0] * 4, [np.nan] * 4, [np.inf] * 4]), "for 2 of 3 videos, first at row 1"),
    ],
)
def test_what_has_no_distance_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)


def test_sums_without_a_covariance_are_refused():
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match="got 1 and 3 videos"):
        frechet_from_moments(Moments.of(x[:1]), Moments.of(x))
    with pytest.raises(ValueError, match="got sums with NaN"):
        frechet_from_moments(Moments.of(x * torch.nan), Moments.of(x))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("compute", [frechet_distance, from_sums])
def test_fewer_videos_than_features_warn(compute, recwarn):
    compute(feats(1, 400, 400), feats(2, 400, 400))
    assert not recwarn.list
    with pytest.warns(UserWarning, match="got 399 videos; expected at least 400"):
        compute(feats(1, 399, 400), feats(2, 400, 400))

"""Likeness to the full-compute sample falls as a sample departs from it; equal ones have the best of each score."""

import math

import pytest
import torch

from flexivid.metrics.fidelity import fidelity


@pytest.fixture
def full():
    return torch.rand(3, 3, 4, 16, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def mean_colour(videos):
    return videos.mean((2, 3, 4))


def test_equal_videos(full):
    assert fidelity(full, full, mean_colour) == pytest.approx((100, 1, 0))


def test_likeness_falls_with_noise(full):
    noise = torch.randn(full.shape, generator=torch.Generator().manual_seed(1))
    found = [fidelity(full + sigma * noise, full, mean_colour) for sigma in (0.05, 0.1, 0.3)]
    assert found[0].psnr > found[1].psnr > found[2].psnr
    assert found[0].ssim > found[1].ssim > found[2].ssim


def test_decibels_of_a_known_error_and_mean_over_videos():
    full = torch.zeros(2, 3, 2, 16, 16)
    videos = full + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1, 1)  # a tenth and a hundredth of the range
    assert fidelity(videos, full, mean_colour).psnr == pytest.approx((20 + 40) / 2, rel=1e-5)
    assert fidelity(videos, full, mean_colour).perceptual == pytest.approx(3**0.5 * (0.2 + 0.02) / 2, rel=1e-5)


def test_ssim_depends_on_contrast_as_seen_and_on_every_frame(full):
    """Black, not grey, is nothing to SSIM: a dark picture with a small error is less like than a bright one."""
    dark, bright = torch.full_like(full, -0.95), torch.full_like(full, 0.9)
    assert fidelity(dark + 0.1, dark).ssim < fidelity(bright + 0.1, bright).ssim - 0.05
    one_bad = full.clone()
    one_bad[:, :, 0] *= -1
    assert 0.4 < fidelity(one_bad, full).ssim < 0.8


def test_values_outside_the_range_count_as_white(full):
    assert fidelity(torch.full_like(full, 3.0), torch.ones_like(full)).psnr == 100


def test_what_cannot_be_told_is_nan(full):
    found = fidelity(full[..., :8, :8], full[..., :8, :8])
    assert math.isnan(found.ssim)
    assert math.isnan(found.perceptual)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v[:, :, :3], r"got videos \(3, 3, 3, 16, 20\) and \(3, 3, 4, 16, 20\); expected one shape"),
        (lambda v: v * torch.nan, "got videos with NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(full, spoil, message):
    with pytest.raises(ValueError, match=message):
        fidelity(spoil(full), full)


def test_no_videos_are_refused(full):
    with pytest.raises(ValueError, match="b not 0"):
        fidelity(full[:0], full[:0])

"""Likeness to the full-compute sample falls as a sample departs from it; equal ones have the best of each score."""

import pytest
import torch

from flexivid.metrics.fidelity import Fidelity, likeness


@pytest.fixture
def full():
    return torch.rand(3, 3, 4, 16, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_equal_videos(full):
    torch.testing.assert_close(likeness(full, full), torch.tensor([[100.0, 1.0]] * 3, dtype=torch.float64))
    assert Fidelity._fields[:2] == ("psnr", "ssim")  # the columns


def test_likeness_falls_with_noise(full):
    noise = torch.randn(full.shape, generator=torch.Generator().manual_seed(1))
    values = torch.stack([likeness(full + sigma * noise, full) for sigma in (0.05, 0.1, 0.3)])
    assert (values.diff(dim=0) < 0).all()


def test_decibels_of_a_known_error():
    full = torch.zeros(2, 3, 2, 16, 16)
    videos = full + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1, 1)  # a tenth and a hundredth of the range
    assert likeness(videos, full)[:, 0].tolist() == pytest.approx([20, 40], rel=1e-5)


def test_ssim_depends_on_contrast_as_seen_and_on_every_frame(full):
    """Black, not grey, is nothing to SSIM: a dark picture with a small error is less like than a bright one."""
    dark, bright = torch.full_like(full, -0.95), torch.full_like(full, 0.9)
    assert (likeness(dark + 0.1, dark)[:, 1] < likeness(bright + 0.1, bright)[:, 1] - 0.05).all()
    one_bad = full.clone()
    one_bad[:, :, 0] *= -1
    ssim = likeness(one_bad, full)[:, 1].mean()
    assert 0.4 < ssim < 0.8


def test_frames_smaller_than_the_window_have_no_ssim(full):
    assert likeness(full[..., :8, :8], full[..., :8, :8])[:, 1].isnan().all()


def test_other_shapes_are_refused(full):
    with pytest.raises(ValueError, match=r"got videos \(3, 3, 3, 16, 20\) and \(3, 3, 4, 16, 20\); expected one shape"):
        likeness(full[:, :, :3], full)

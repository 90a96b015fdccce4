"""The kernel distance equals a sum over pairs and torchmetrics' estimate, and has no bias."""

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from flexivid.metrics import pairs as kernel
from flexivid.metrics.pairs import kernel_distance


def draw(n, d=6, seed=0, shift=0.0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def test_equals_the_sum_over_pairs():
    x, y = draw(5), draw(4, seed=1, shift=0.5)

    def k(a, b):
        return (float(a @ b) / 6 + 1) ** 3

    own = [sum(k(a, b) for a in s for b in s if a is not b) / (len(s) * (len(s) - 1)) for s in (list(x), list(y))]
    both = sum(k(a, b) for a in x for b in y) / 20
    assert kernel_distance(x, y) == pytest.approx(own[0] + own[1] - 2 * both, rel=1e-12)


def test_blocks_change_nothing_and_torchmetrics_agrees(monkeypatch):
    x, y = draw(50), draw(50, seed=1, shift=0.2)
    whole = kernel_distance(x, y)
    monkeypatch.setattr(kernel, "ROWS", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)
    assert poly_mmd(x, y).item() == pytest.approx(whole, rel=1e-10)


def test_its_mean_is_zero_for_one_distribution_however_few_videos():
    found = torch.tensor([kernel_distance(draw(6, seed=i), draw(9, seed=1000 + i)) for i in range(400)])
    assert abs(found.mean()) < 3 * found.std() / 20
    assert 0.3 < (found < 0).double().mean() < 0.8


def test_one_video_is_refused():
    with pytest.raises(ValueError, match="got 1 and 4 videos"):
        kernel_distance(draw(1), draw(4))

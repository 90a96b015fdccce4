"""The discrepancy is the textbook's, near 0 for equal distributions and larger the further they are apart."""

from __future__ import annotations

import math

import pytest
import torch

from flexivid.diffusion.loss import SCALES, maximum_mean_discrepancy


def slow(samples, real):
    """Gretton et al. (2012), eq. 5, term by term."""
    points = [*samples, *real]
    far = [[float((a - b).square().sum()) for b in points] for a in points]
    count, everyone = len(samples), len(points)
    width = sum(map(sum, far)) / (everyone * (everyone - 1))

    def kernel(i, j):
        return sum(math.exp(-far[i][j] / (2 * scale * width)) for scale in SCALES) / len(SCALES)

    terms = [
        kernel(i, j) + kernel(count + i, count + j) - kernel(i, count + j) - kernel(j, count + i)
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    return sum(terms) / (count * (count - 1))


def test_equals_the_formula():
    source = torch.Generator().manual_seed(0)
    samples = torch.randn(5, 2, 3, generator=source)
    real = torch.randn(5, 2, 3, generator=source) + 0.5
    assert maximum_mean_discrepancy(samples, real).item() == pytest.approx(slow(samples, real), abs=1e-5)


def test_is_unbiased_and_grows_with_distance():
    source = torch.Generator().manual_seed(0)
    found = {shift: [] for shift in (0.0, 0.3, 0.6)}
    for _ in range(200):
        samples, real = torch.randn(2, 16, 8, generator=source)
        for shift, values in found.items():
            values.append(maximum_mean_discrepancy(samples + shift, real))
    means = [torch.stack(values).mean().item() for values in found.values()]
    error = torch.stack(found[0.0]).std().item() / math.sqrt(200)
    assert abs(means[0]) < 4 * error
    assert 4 * error < means[1] < means[2]


def test_the_gradient_draws_samples_to_the_real_ones():
    source = torch.Generator().manual_seed(0)
    samples = (torch.randn(16, 8, generator=source) + 1).requires_grad_()
    maximum_mean_discrepancy(samples, torch.randn(16, 8, generator=source)).backward()
    assert samples.grad.mean() > 0  # descent lowers the mean


def test_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match=r"got samples \(3, 4\) and real \(2, 4\); expected equal shapes"):
        maximum_mean_discrepancy(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="expected equal shapes of at least two"):
        maximum_mean_discrepancy(torch.zeros(1, 4), torch.zeros(1, 4))

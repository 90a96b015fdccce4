"""The floor is the distance that videos of the real distribution would have: simulated, where it can be."""

import math

import pytest
import torch

from flexivid.metrics.floor import frechet_floor, part_size
from flexivid.metrics.frechet import frechet_distance

D = 8
SCALES = torch.logspace(0, -1, D, dtype=torch.float64)  # few directions hold most of the variance


def draw(count, seed, *, heavy=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, D, dtype=torch.float64, generator=generator)
    if heavy:  # no Gaussian, of the same covariance
        x = x * (torch.rand(count, 1, dtype=torch.float64, generator=generator) * 3).sqrt() / 1.5**0.5
    return x * SCALES + 3


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize(("num_generated", "num_real"), [(100, 100), (40, 200), (400, 100), (20, 20)])
def test_it_is_what_a_perfect_generator_scores(num_generated, num_real, heavy):
    scores = [
        frechet_distance(draw(num_generated, 2 * i, heavy=heavy), draw(num_real, 2 * i + 1, heavy=heavy))
        for i in range(400)
    ]
    floors = [frechet_floor(draw(num_real, 1000 + i, heavy=heavy), num_generated, seed=i) for i in range(60)]
    assert sum(floors) / 60 == pytest.approx(sum(scores) / 400, rel=0.08)


def test_one_set_of_real_videos_tells_it():
    floors = torch.tensor([frechet_floor(draw(100, i), 100, seed=i) for i in range(60)])
    scores = torch.tensor([frechet_distance(draw(100, 2 * i), draw(100, 2 * i + 1)) for i in range(60)])
    assert floors.std() < 0.4 * scores.std()  # a mean over parts varies less than the score of a perfect generator


@pytest.mark.parametrize(("num_generated", "num_real"), [(10, 400), (100, 400), (133, 400)])
def test_parts_have_the_bias_of_the_sets_where_there_are_enough(num_generated, num_real):
    first = part_size(num_generated, num_real)
    asked = 1 / num_generated + 1 / num_real
    assert 1 / first + 1 / (num_real - first) == pytest.approx(asked, rel=0.03)


@pytest.mark.parametrize("num_generated", [134, 400, 10**6])
def test_else_they_are_halves(num_generated):
    assert part_size(num_generated, 400) == 200


def test_more_videos_lower_it():
    real = draw(200, 0)
    floors = [frechet_floor(real, count) for count in (20, 50, 200, 1000, 10**9)]
    assert floors == sorted(floors, reverse=True)
    assert floors[-1] == pytest.approx(floors[2] / 2, rel=1e-6)  # endless videos still meet a finite reference


def test_the_seed_decides():
    real = draw(50, 0)
    assert frechet_floor(real, 50) == frechet_floor(real, 50) != frechet_floor(real, 50, seed=1)


def test_too_few_videos_have_none():
    assert math.isnan(frechet_floor(draw(3, 0), 100))
    assert math.isnan(frechet_floor(draw(100, 0), 1))
    assert frechet_floor(draw(4, 0), 2) > 0

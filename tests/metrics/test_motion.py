"""The shipped network: any size, unit scale, and distances that grow with every kind of damage to a video."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from flexivid.metrics.extractors.motion import NUM_FEATURES, WEIGHTS, fit_frames, load_motion_net
from flexivid.metrics.frechet import frechet_distance

NUM_CLIPS = 120  # of each half


@pytest.fixture(scope="module")
def network():
    return load_motion_net()


@pytest.fixture(scope="module")
def halves(load_script):
    """Two sets of held-out digits, (n, 3, 8, 32, 32) in [-1, 1]."""
    digits = load_script("data/moving_digits.py")
    scans, recipe = digits.split_scans(0)["held_out"], digits.Recipe(num_frames=8)
    clips = [digits.render_clip(scans, recipe, split="held_out", index=index) for index in range(2 * NUM_CLIPS)]
    videos = torch.from_numpy(np.stack(clips)).float() / 127.5 - 1
    return videos[:, None].expand(-1, 3, -1, -1, -1).split(NUM_CLIPS)


@pytest.fixture(scope="module")
def distance(network, halves):
    """Distance of changed clips to the other, untouched half."""
    reference = network(halves[1])
    return lambda videos: frechet_distance(network(videos), reference)


def noisy(videos, strength):
    return videos + strength * torch.randn(videos.shape, generator=torch.Generator().manual_seed(0))


def blurred(videos, sigma):
    return gaussian_blur(videos.transpose(1, 2), [15, 15], [sigma, sigma]).transpose(1, 2)


def shuffled(videos, share):
    generator, videos = torch.Generator().manual_seed(0), videos.clone()
    for video in videos:
        chosen = torch.randperm(8, generator=generator)[: int(8 * share)]
        video[:, chosen] = video[:, chosen.roll(1)]
    return videos


def cut(videos, share):
    """Let the first clips end as other clips of the same class do."""
    videos, num_cut = videos.clone(), int(share * len(videos))
    videos[:num_cut, :, 4:] = videos.roll(10, 0)[:num_cut, :, 4:]
    return videos


@pytest.mark.parametrize(
    ("worsen", "strengths"),
    [(noisy, (0.05, 0.1, 0.2, 0.4)), (blurred, (0.5, 1, 2)), (shuffled, (0.25, 0.5, 1)), (cut, (0.25, 0.5, 1))],
)
def test_the_worse_the_farther(distance, halves, worsen, strengths):
    distances = [distance(halves[0]), *(distance(worsen(halves[0], strength)) for strength in strengths)]
    assert distances == sorted(distances)
    assert distances[-1] > 2 * distances[0]


def test_playing_backwards_is_no_damage_where_motion_has_no_direction(distance, halves):
    assert distance(halves[0].flip(2)) < 1.2 * distance(halves[0])


def test_missing_classes_cost(distance, halves):
    few, even = halves[0][torch.arange(NUM_CLIPS) % 10 < 5], halves[0][: NUM_CLIPS // 2]
    assert distance(few.repeat(2, 1, 1, 1, 1)) > 1.5 * distance(even.repeat(2, 1, 1, 1, 1))


def test_stopped_motion_costs(distance, halves):
    assert distance(halves[0][:, :, :1].expand(-1, -1, 8, -1, -1)) > 2 * distance(halves[0])


def test_features_have_about_unit_scale(network, halves):
    deviations = network(torch.cat(halves)).std(0)
    assert 0.5 < deviations.median() < 1.5
    assert deviations.max() < 2 < 50 * deviations.min()


def test_colour_matters(network, halves):
    grey, red = halves[0][:4], halves[0][:4].clone()
    red[:, 1:] = -1
    assert (network(grey) - network(red)).norm(dim=1).min() > 3


@pytest.mark.parametrize("size", [(4, 32, 32), (5, 64, 64), (9, 90, 160), (17, 20, 300)])
def test_takes_any_size_and_each_video_alone(network, size):
    videos = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = network(videos)
    assert features.shape == (3, NUM_FEATURES)
    torch.testing.assert_close(network(videos[1:2]), features[1:2], rtol=1e-4, atol=1e-4)


def test_a_larger_picture_of_the_same_is_nearly_the_same(network, halves):
    videos = halves[0][:8]
    large = F.interpolate(videos.flatten(1, 2), (256, 256), mode="bilinear").unflatten(1, (3, 8))
    near, far = (network(videos) - network(large)).norm(dim=1), torch.cdist(network(videos), network(videos))
    assert near.max() < 0.5 * far[far > 0].min()


def test_shrinking_averages_and_enlarging_interpolates_between_pixel_centres():
    fine = torch.arange(256).remainder(2).float().expand(1, 1, 1, 256, 256)  # stripes narrower than a pixel of 64
    assert (fit_frames(fine) - 0.5).abs().max() < 0.05
    ramp = torch.arange(32.0).expand(1, 1, 1, 32, 32)
    expected = (torch.arange(64) + 0.5) / 2 - 0.5
    torch.testing.assert_close(fit_frames(ramp)[0, 0, 0, 0], expected.clamp(0, 31))


def test_the_network_is_frozen_small_and_in_float32(network):
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in network.parameters())
    assert WEIGHTS.stat().st_size < 2_000_000

"""A weak token stands at the mean of the native tokens it covers, and its angles say so."""

import itertools

import pytest
import torch

from flexivid.patching.position import axis_angles, patch_centres
from flexivid.patching.shapes import PatchMode, Size3, axis_split, grid_of

NATIVE = PatchMode("1x2x2")


@pytest.mark.parametrize("mode", ["1x2x2", "2x2x2", "1x4x4", "2x4x4", "3x6x2"])
@pytest.mark.parametrize("size", [(6, 12, 12), (12, 24, 12)])
def test_centre_is_the_mean_of_the_native_centres_covered(mode, size):
    mode = PatchMode(mode)
    native, grid = patch_centres(grid_of(size, NATIVE), NATIVE, NATIVE), grid_of(size, mode)
    ratio = [large // small for large, small in zip(mode, NATIVE, strict=True)]
    covered = native.view(*grid_of(size, NATIVE), 3)
    for axis, (count, times) in enumerate(zip(grid, ratio, strict=True)):
        covered = covered.unflatten(axis, (count, times)).mean(axis + 1)
    torch.testing.assert_close(patch_centres(grid, mode, NATIVE), covered.flatten(0, 2), rtol=0, atol=1e-5)


def test_native_centres_are_the_token_numbers_frames_slowest():
    grid = Size3(3, 2, 4)
    assert patch_centres(grid, NATIVE, NATIVE).tolist() == [
        list(place) for place in itertools.product(*map(range, grid))
    ]


def test_centres_of_a_padded_grid_go_on_past_the_edge():
    """21 frames in pairs: the last pair is half padding, and keeps its distance from the others."""
    frames = patch_centres(grid_of((21, 2, 2), PatchMode("2x2x2")), PatchMode("2x2x2"), NATIVE)[:, 0]
    assert frames.tolist() == [2 * i + 0.5 for i in range(11)]


@pytest.mark.parametrize("width", [6, 16, 32, 64, 72])
@pytest.mark.parametrize("base", [100.0, 10000.0])
def test_angles_are_positions_times_falling_frequencies(width, base):
    centres = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [0.5, 1.5, 2.5]])
    angles = axis_angles(centres, width, base=base)
    assert angles.shape == (3, width // 2)
    shares = angles.split([share // 2 for share in axis_split(width)], dim=-1)
    for axis, share in enumerate(shares):
        frequencies = torch.tensor([base ** (-i / share.shape[1]) for i in range(share.shape[1])])
        torch.testing.assert_close(share, centres[:, axis, None] * frequencies)


def test_fractional_angles_are_the_mean_of_their_neighbours():
    native = axis_angles(patch_centres(Size3(2, 4, 4), NATIVE, NATIVE), 32, base=100.0).view(2, 4, 4, -1)
    weak = PatchMode("2x4x4")
    angles = axis_angles(patch_centres(Size3(1, 2, 2), weak, NATIVE), 32, base=100.0)
    mean = native.unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean((0, 2, 4))
    torch.testing.assert_close(angles, mean.flatten(0, 1))

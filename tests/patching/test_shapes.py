"""Modes read and write alike, grids cover the latent, features are shared among the axes."""

import copy
import itertools
import pickle

import pytest

from flexivid.patching.shapes import PatchMode, Size3, axis_split, grid_of, num_tokens, underlying_patch

MODES = [PatchMode(*sides) for sides in itertools.product((1, 2, 3, 4), (1, 2, 4), (1, 2, 16))]


@pytest.mark.parametrize("mode", MODES)
def test_every_form_is_the_same_mode(mode):
    assert PatchMode(str(mode)) == PatchMode(f" {mode} ") == PatchMode(tuple(mode)) == PatchMode(list(mode)) == mode
    assert mode == tuple(mode)
    assert hash(mode) == hash(tuple(mode))
    for copied in (pickle.loads(pickle.dumps(mode)), copy.deepcopy(mode), PatchMode(mode), eval(repr(mode))):
        assert (copied, type(copied)) == (mode, PatchMode)


@pytest.mark.parametrize("wrong", ["", "2x4", "2x4x4x4", "2x4x", "ax2x2", "2*4*4", "-1x2x2", "0x2x2", "2x2.0x2"])
def test_wrong_text_is_named(wrong):
    with pytest.raises(ValueError, match=r"^got patch mode .*; expected .*; write it like '2x4x4'$"):
        PatchMode(wrong)


@pytest.mark.parametrize("wrong", [(0, 2, 2), (1, 2), (1, 2, 2, 2), (1, -2, 2), (1, 2.0, 2), ("1", "2", "2"), ()])
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(ValueError, match=r"^got patch mode \(.*\); expected three whole numbers >= 1; write"):
        PatchMode(wrong)
    with pytest.raises(ValueError, match="got patch mode"):
        PatchMode(2)


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 8, 8), (21, 15, 26), (8, 16, 16)])
def test_grid_is_the_least_that_covers(size):
    for mode in MODES:
        grid = grid_of(size, mode)
        for side, patch, count in zip(size, mode, grid, strict=True):
            assert (count - 1) * patch < side <= count * patch
        assert isinstance(grid, Size3)
        assert num_tokens(size, mode) == grid.volume == len(list(itertools.product(*map(range, grid))))


@pytest.mark.parametrize("size", [(0, 8, 8), (8, 8), (8, 8, -1), (1, 1, 1, 1)])
def test_wrong_size_is_named(size):
    with pytest.raises(ValueError, match=r"got latent size .*; expected \(t, h, w\)"):
        grid_of(size, PatchMode("1x2x2"))


def test_underlying_patch_holds_every_mode_and_no_more():
    for modes in itertools.combinations(MODES[::5], 3):
        whole = underlying_patch(modes)
        assert all(side <= most for mode in modes for side, most in zip(mode, whole, strict=True))
        assert all(side in sides for side, sides in zip(whole, zip(*modes, strict=True), strict=True))


def test_features_are_shared_as_even_numbers():
    for width in range(6, 400, 2):
        t, h, w = axis_split(width)
        assert t + h + w == width
        assert h == w <= t < h + 6
        assert min(t, h) >= 2
        assert t % 2 == h % 2 == 0


@pytest.mark.parametrize("width", [-2, 0, 4, 7, 65])
def test_too_few_or_odd_features_are_named(width):
    with pytest.raises(ValueError, match=f"got {width} features for three axes; expected an even number >= 6"):
        axis_split(width)


@pytest.mark.parametrize("bad", [2.5, None, (1, 2), [1, 2.5, 2]])
def test_a_patch_mode_of_the_wrong_type_is_one_clear_error(bad):
    with pytest.raises(ValueError, match="write it like '2x4x4'"):
        PatchMode(bad)

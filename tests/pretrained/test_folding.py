"""Folding and unfolding are inverse up to the crop; folded channels carry the cells in the stated order."""

import pytest
import torch

from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.families.folding import Fold, pool_times

NATIVE = PatchMode("1x2x2")


@pytest.mark.parametrize("size", [(4, 8, 8), (5, 6, 10), (1, 3, 7)])
@pytest.mark.parametrize("growth", [(1, 2, 2), (2, 1, 1), (2, 3, 2)])
def test_unfold_undoes_fold(size, growth) -> None:
    latent = torch.randn(2, 3, *size)
    fold = Fold(Size3(*growth), NATIVE)
    folded = fold.apply(latent)
    assert all(side % patch == 0 for side, patch in zip(folded.shape[2:], NATIVE, strict=True))
    assert torch.equal(fold.undo(folded, Size3(*size)), latent)


def test_channels_are_outermost_then_frames_rows_columns() -> None:
    latent = torch.arange(2 * 2 * 4 * 4.0).view(1, 2, 2, 4, 4)
    folded = Fold(Size3(2, 2, 2), NATIVE).apply(latent)
    assert folded[0, :, 0, 0, 0].tolist() == [0, 1, 4, 5, 16, 17, 20, 21, 32, 33, 36, 37, 48, 49, 52, 53]


def test_padding_repeats_the_last_frame_row_and_column() -> None:
    latent = torch.randn(1, 1, 3, 4, 4)
    folded = Fold(Size3(2, 1, 1), NATIVE).apply(latent)
    assert torch.equal(folded[:, 0, 1], latent[:, 0, 2])
    assert torch.equal(folded[:, 1, 1], latent[:, 0, 2])


def test_the_largest_time_of_those_replaced_counts() -> None:
    times = torch.zeros(1, 3 * 2 * 3)
    times[:, 6:] = 7.0  # all frames but the first are noisy
    assert pool_times(times, Size3(2, 2, 2), Size3(3, 2, 3)).tolist() == [[7.0, 7.0, 7.0, 7.0]]
    assert pool_times(times, Size3(1, 2, 2), Size3(3, 2, 3)).tolist() == [[0.0, 0.0, 7.0, 7.0, 7.0, 7.0]]


def test_a_mode_must_be_a_multiple() -> None:
    assert Fold.between(PatchMode("2x6x2"), NATIVE).growth == (2, 3, 1)
    with pytest.raises(ValueError, match="none smaller; pass for example 1x4x4"):
        Fold.between(PatchMode("1x1x4"), NATIVE)

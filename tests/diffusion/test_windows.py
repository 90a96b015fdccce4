"""Windows of long videos: every frame is in one, and what agrees everywhere is not changed by blending."""

from itertools import pairwise

import pytest
import torch

from flexivid.diffusion.windows import blend, cut
from flexivid.patching.shapes import Size3
from flexivid.sampling.options import Settings


def starts_of(frames, trained, window="auto"):
    shape = {"size": Size3(frames, 8, 8), "solver": "euler", "shift": 1.0, "guidance": "ordinary", "window": window}
    return Settings(num_inference_steps=4, guidance_scale=1.0, **shape).windowed(Size3(trained, 8, 8)).window_starts


@pytest.mark.parametrize("trained", [1, 2, 4, 5])
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 13])
def test_windows_cover_a_video_and_overlap(frames, trained):
    starts = starts_of(frames, trained)
    length = min(frames, trained)
    assert {start + i for start in starts for i in range(length)} == set(range(frames))
    assert len(set(starts)) == len(starts)
    assert all(second - first <= max(1, length // 2) for first, second in pairwise(starts))
    x = torch.randn(2, 3, frames, 2, 2)
    torch.testing.assert_close(blend(cut(x, starts, length), starts, frames), x)


def test_only_longer_videos_have_windows():
    assert starts_of(4, 4) == starts_of(3, 4) == starts_of(9, 4, "none") == [0]


def test_a_frame_counts_more_in_the_window_whose_middle_it_is_nearer_to():
    windows = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1).expand(2, 1, 4, 1, 1)
    mixed = blend(windows, [0, 2], 6).flatten()
    assert mixed[:2].tolist() == [0, 0]
    assert mixed[4:].tolist() == [1, 1]
    torch.testing.assert_close(mixed[2:4], torch.tensor([1 / 3, 2 / 3]))

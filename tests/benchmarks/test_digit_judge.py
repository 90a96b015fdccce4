"""The judge counts as it says, whatever the size of the frames; trained, it knows digits that it has never seen."""

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def judging(load_script):
    return load_script("benchmarks/digit_judge.py")


class Brightness(torch.nn.Module):
    """Stands for a network that names digits: a frame of grey 0.3 is a 3."""

    def forward(self, frames):
        digits = (10 * frames.mean((1, 2, 3))).round().long()
        return torch.nn.functional.one_hot(digits, 10).float()


def clips(digits):
    """Clips whose frames are evenly grey, by the digits of their frames (n, t)."""
    grey = 2 * torch.tensor(digits) / 10 - 1
    return grey[:, None, :, None, None].expand(-1, 3, -1, 16, 16)


def test_clips_and_frames_are_counted(judging):
    judge = judging.Judge(Brightness())
    videos = clips([[3, 3, 3, 8], [5, 5, 5, 5], [1, 7, 7, 7], [2, 2, 6, 6]])
    assert judge.classes(videos).tolist() == [[3, 3, 3, 8], [5, 5, 5, 5], [1, 7, 7, 7], [2, 2, 6, 6]]
    look = judge.look(videos, torch.tensor([3, 5, 1, 2]))
    assert look == judging.Look(accuracy=3 / 4, frame_accuracy=10 / 16, consistency=12 / 16)
    assert judge.accuracy(videos, torch.tensor([8, 5, 7, 2])) == 3 / 4
    assert judge.frame_accuracy(videos, torch.tensor([8, 5, 7, 2])) == 10 / 16
    assert judge.consistency(videos) == 12 / 16


def test_frames_of_any_size_and_range_are_taken(judging):
    large = torch.rand(2, 3, 4, 64, 64) * 4 - 2
    frames = judging.frames_of(large)
    assert frames.shape == (8, 1, 32, 32)
    assert 0 <= frames.min() < frames.max() <= 1
    network = judging.build_network().eval()
    assert judging.Judge(network).classes(large).shape == (2, 4)


def test_held_out_clips_are_those_of_the_data_set(judging):
    videos, digits = judging.held_out_clips(12, (8, 32, 32))
    assert digits.tolist() == [*range(10), 0, 1]
    scans = judging.data.split_scans(0)["held_out"]
    drawn = judging.data.render_clip(scans, judging.data.Recipe(), split="held_out", index=11)
    assert np.abs(videos[11, 0].numpy() * 127.5 + 127.5 - drawn[:8]).max() < 1e-3
    assert torch.equal(videos[:, 0], videos[:, 2])
    assert judging.held_out_clips(1, (4, 64, 64))[0].shape == (1, 3, 4, 64, 64)


def test_the_training_frames_hold_every_class_alike(judging):
    frames, digits = judging.draw_frames(0)
    assert frames.shape[1:] == (1, 32, 32)
    assert len(frames) == 2 * judging.PLACES * sum(map(len, judging.data.split_scans(0)["train"]))
    assert np.bincount(digits).min() > 0.95 * len(digits) / 10


@pytest.mark.slow
def test_real_clips_of_scans_that_it_has_not_seen_are_named(judging):
    before = torch.get_rng_state()
    judge = judging.train_judge(0)
    assert torch.equal(torch.get_rng_state(), before)
    look = judge.look(*judging.held_out_clips(500, (8, 32, 32)))
    assert look.accuracy >= 0.98
    assert look.frame_accuracy >= 0.97
    assert look.consistency >= 0.98

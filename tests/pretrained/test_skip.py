"""The way around the transformer knows the time of every token, however it comes."""

import pytest
import torch
from torch import nn

from flexivid.pretrained.flexify import flexify, set_mode
from flexivid.pretrained.weak_modes.layers import Skip, hidden_width
from tests.pretrained.families import CASES, build, call, output

WAN = CASES[0]


def disturbed(first: nn.Module, outputs: int) -> Skip:
    torch.manual_seed(0)
    skip = Skip(first, outputs)
    nn.init.normal_(skip.last.weight)
    return skip


def test_is_zero_at_first() -> None:
    skip = Skip(nn.Linear(4, hidden_width(4, 3)), 3)
    assert torch.equal(skip(torch.randn(2, 6, 4), torch.tensor([10.0, 900.0])), torch.zeros(2, 6, 3))


@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 3), (2, 6), (2, 1, 3, 1, 1)])
def test_equal_times_in_every_form_are_the_same(shape: tuple[int, ...]) -> None:
    skip, patches = disturbed(nn.Linear(4, 8), 3), torch.randn(2, 6, 4)
    torch.testing.assert_close(skip(patches, torch.full(shape, 500.0)), skip(patches, torch.full((2,), 500.0)))


def test_a_time_changes_its_own_tokens_only() -> None:
    skip, patches = disturbed(nn.Linear(4, 8), 3), torch.randn(2, 6, 4)
    plain, times = skip(patches, torch.full((2, 3), 500)), torch.full((2, 3), 500)
    times[1, 2] = 100
    changed = (skip(patches, times) != plain).any(-1)
    assert changed.tolist() == [[False] * 6, [False] * 4 + [True] * 2]


def test_frames_in_the_batch_share_the_time_of_their_sample() -> None:
    skip, frames = disturbed(nn.Conv2d(2, 8, 2, 2), 3), torch.randn(6, 2, 4, 4)
    made = skip(frames, torch.tensor([500, 100]))  # two samples of three frames
    assert made.shape == (6, 4, 3)
    torch.testing.assert_close(made[:3], skip(frames[:3], torch.tensor([500])))
    torch.testing.assert_close(made[3:], skip(frames[3:], torch.tensor([100])))


def test_a_model_tells_its_skip_the_time() -> None:
    model, arguments = flexify(build(WAN), ["1x4x4"], rank=0, skip=True), call(WAN, WAN.even)
    seen = []
    model.flexi.modes["1x4x4"].embed.skip.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    output(set_mode(model, "1x4x4"), arguments)
    assert torch.equal(seen[0], arguments["timestep"])
    output(set_mode(model, "native"), arguments)
    assert len(seen) == 1

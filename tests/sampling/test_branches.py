"""One call or several, in parts or not: the outputs are the same, and the batch suits the mode."""

import pytest
import torch

from flexivid import Condition, PatchMode, Step
from flexivid.diffusion.guidance import Branch
from flexivid.model.flops import CallCounter
from flexivid.sampling.branches import PACKED_TOKENS, batch_of, branch_network

NATIVE, WEAK = PatchMode("1x2x2"), PatchMode("2x4x4")


@pytest.mark.parametrize("modes", [(NATIVE, NATIVE), (NATIVE, WEAK), (WEAK, WEAK)])
def test_one_call_equals_two(model, modes):
    x, time = torch.randn(3, 3, 4, 8, 8), torch.tensor([0.2, 0.5, 0.9])
    branches = [Branch(Condition(torch.tensor([0, 1, 2])), modes[0]), Branch(Condition(), modes[1])]
    made = {}
    for packing, calls in (("always", 1), ("never", 2)):
        with CallCounter(model) as counter:
            made[packing] = branch_network(model, packing)(x, time, branches)
        assert counter.calls == calls
    for one, two in zip(made["always"], made["never"], strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_few_tokens_are_packed_and_many_are_not(model):
    branches = [Branch(Condition(), NATIVE), Branch(Condition(), NATIVE)]
    most = PACKED_TOKENS["cpu"] // (2 * 64)
    for count, calls in ((most, 1), (most + 1, 2)):
        with CallCounter(model) as counter:
            branch_network(model)(torch.zeros(count, 3, 4, 8, 8), torch.ones(count), branches)
        assert counter.calls == calls


def test_batches_hold_equal_tokens_up_to_a_limit():
    size = (8, 32, 32)
    assert batch_of(NATIVE, size, NATIVE, 16) == 16
    assert batch_of(WEAK, size, NATIVE, 16) == 128
    assert batch_of(PatchMode("8x32x32"), size, NATIVE, 16) == 128
    assert batch_of(Step(WEAK, NATIVE), size, NATIVE, 16) == 16  # the native branch decides

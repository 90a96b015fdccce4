"""While weights are frozen, the network gives the same outputs, and never those of weights that it had before."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from flexivid import Condition, FlexiDiT, FlexiDiTConfig
from flexivid.model.block import Packed
from flexivid.model.conditioning import Frames, Text
from flexivid.model.flops import CallCounter
from flexivid.model.frozen import frozen
from flexivid.patching.shapes import PatchMode

MODES = ("1x2x2", "2x2x2", "2x4x4")


def build(**changes) -> FlexiDiT:
    shape = {"width": 32, "depth": 3, "num_heads": 2, "modes": MODES, "num_classes": 3, **changes}
    model = FlexiDiT(FlexiDiTConfig(**shape))
    for parameter in model.parameters():  # nothing stays at zero, where half of the layers would do nothing
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def call(model: FlexiDiT, mode="2x4x4", dtype: torch.dtype | None = None, size=(3, 6, 10)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, model.config.in_channels, *size, generator=generator)
    time = torch.rand(4, generator=generator)
    label = torch.arange(4) % 4 if model.config.num_classes else None
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        return model(x, time, Condition(label), mode)


@pytest.mark.parametrize("mode", [None, *MODES, Packed(map(PatchMode, MODES[:2]))], ids=str)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "changes", [{}, {"attention": "factorised"}, {"output_conv": True}, {"num_classes": 0}], ids=str
)
@torch.no_grad()
def test_outputs_are_the_same(mode, dtype, changes) -> None:
    model = build(**changes)
    plain = call(model, mode, dtype)
    with frozen(model, dtype):
        answers = [call(model, mode, dtype) for _ in range(2)]
        assert model.stand_ins
    assert not model.stand_ins
    assert answers[0].dtype == plain.dtype
    assert torch.equal(*answers)
    error = (answers[0] - plain).float().abs().max() / plain.float().abs().max()
    assert error < (1e-6 if dtype is None else 2e-2)


@torch.no_grad()
def test_any_sizes_in_turn() -> None:
    model = build()
    sizes = [(2, 4, 4), (3, 6, 10), (2, 4, 4), (1, 5, 7)]
    with frozen(model):
        answers = [call(model, size=size) for size in sizes]
    for answer, size in zip(answers, sizes, strict=True):
        torch.testing.assert_close(answer, call(model, size=size))


@pytest.mark.parametrize("by_data", [False, True])
@torch.no_grad()
def test_changed_weights_are_seen(by_data: bool) -> None:
    model = build()
    with frozen(model):
        before = call(model)
    for parameter in model.parameters():
        (parameter.data if by_data else parameter).mul_(1.1)
    with frozen(model):
        after = call(model)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, call(model))


@torch.no_grad()
def test_hooks_run() -> None:
    model, seen = build(), []
    model.register_forward_pre_hook(lambda module, args: seen.append("model"))
    with frozen(model):
        call(model)
    model.blocks[1].mlp_in.register_forward_hook(lambda module, args, output: seen.append("layer"))
    with frozen(model):
        assert not model.stand_ins
        call(model)
    assert seen == ["model", "model", "layer"]


def test_layers_of_others_and_gradients_are_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = build()
    with frozen(model):
        assert not model.stand_ins
        assert call(model).requires_grad
    width = model.config.width
    model.blocks[0].attention.q = Doubled(width, width, bias=False)
    with torch.no_grad(), frozen(model):
        assert not model.stand_ins


@torch.no_grad()
def test_the_model_is_what_it_was() -> None:
    model = build()
    names = list(model.state_dict())
    with frozen(model):
        call(model)
        assert list(model.state_dict()) == names
        assert len(list(model.modules())) == len(list(build().modules()))
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("mode", [None, "2x4x4", Packed(map(PatchMode, MODES[:2]))], ids=str)
@pytest.mark.parametrize("is_read", [False, True])
@torch.no_grad()
def test_text_and_given_frames(mode, is_read) -> None:
    model, x = build(text_channels=16, given_frames=True), torch.randn(4, 3, 3, 6, 10)
    text = Text(torch.randn(4, 5, 16), torch.rand(4, 5) > 0.3)
    frames = Frames(torch.randn_like(x), (torch.rand_like(x[:, :1]) > 0.5).float())
    condition, time = Condition(torch.arange(4) % 3, text, frames), torch.rand(4)
    condition = model.prepare(condition, 4) if is_read else condition
    plain = model(x, time, condition, mode)
    with CallCounter(model) as counter, frozen(model):
        assert model.stand_ins
        answer = model(x, time, condition, mode)
    with CallCounter(model) as outside:
        model(x, time, condition, mode)
    assert (answer - plain).abs().max() < 1e-5 * plain.abs().max()
    assert counter.macs == outside.macs

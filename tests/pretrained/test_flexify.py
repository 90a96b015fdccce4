"""The native mode is the original, bit for bit; weak modes give the right shape and learn; errors say what to do."""

import copy
from dataclasses import replace

import accelerate
import pytest
import torch
from diffusers import FirstBlockCacheConfig
from torch import nn

from flexivid import FlexiDiT, FlexiDiTConfig
from flexivid.pretrained.flexify import adapter_parameters, current_mode, flexify, set_mode, unflexify
from flexivid.pretrained.signature import first_output
from tests.pretrained.families import CASES, VARIANTS, build, by_family, call, disturb, output

WAN = CASES[0]


def train_a_step(model: nn.Module, arguments: dict) -> None:
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=1e-2)
    first_output(model, arguments).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@by_family
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_native_is_the_original_before_during_and_after(case, dtype) -> None:
    model = build(case, dtype)
    names = list(model.state_dict())
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    calls = [call(case, size, batch=batch, dtype=dtype) for size, batch in ((case.even, 1), (case.odd, 2))]
    before = [output(model, arguments) for arguments in calls]

    def same() -> bool:
        return all(torch.equal(output(model, a), b) for a, b in zip(calls, before, strict=True))

    assert flexify(model, case.modes, rank=2, skip=True) is model
    assert same()
    for mode in case.modes:
        train_a_step(set_mode(model, mode), calls[0])
        assert not torch.equal(output(model, calls[0]), before[0])
    set_mode(model, "native")
    assert same()
    assert [name for name in model.state_dict() if not name.startswith("flexi.")] == names
    set_mode(model, case.modes[-1])
    assert unflexify(model) is model
    assert same()
    assert list(model.state_dict()) == names
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not hasattr(model, "flexi")


@by_family
def test_every_mode_gives_the_shape_of_the_native_output(case) -> None:
    model = flexify(build(case), case.modes, rank=2)
    for size, batch in ((case.even, 2), (case.odd, 1)):
        arguments = call(case, size, batch=batch)
        native = output(set_mode(model, "native"), arguments)
        for mode in case.modes:
            weak = output(set_mode(model, mode), arguments)
            assert weak.shape == native.shape
            assert weak.dtype == native.dtype
            assert weak.isfinite().all()


@by_family
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_all_of_the_mode_and_nothing_else(case, checkpointing) -> None:
    model = flexify(build(case), case.modes, rank=2, skip=True)
    disturb(model)
    model.train()
    if checkpointing and hasattr(model, "enable_gradient_checkpointing"):
        model.enable_gradient_checkpointing()
    elif checkpointing:
        model.config = replace(model.config, gradient_checkpointing=True)
    for mode in case.modes:
        for parameter in adapter_parameters(model):
            parameter.grad = None
        first_output(set_mode(model, mode), call(case, case.odd)).square().mean().backward()
        reached = {name for name, parameter in model.flexi.named_parameters() if parameter.grad is not None}
        assert reached == {f"modes.{mode}.{name}" for name, _ in model.flexi.modes[mode].named_parameters()}
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.flexi.modes[mode].parameters())


@by_family
def test_a_fresh_skip_and_fresh_lora_change_nothing(case) -> None:
    plain = flexify(build(case), case.modes, rank=0)
    full = flexify(build(case), case.modes, rank=2, skip=True)
    for mode in case.modes:
        arguments = call(case, case.odd)
        weak = output(set_mode(full, mode), arguments)
        torch.testing.assert_close(weak, output(set_mode(plain, mode), arguments), rtol=1e-5, atol=1e-6)


@by_family
def test_positional_arguments_and_dictionaries_come_out_the_same(case) -> None:
    model = set_mode(flexify(build(case), case.modes, rank=2), case.modes[0])
    arguments = call(case, case.even)
    named = output(model, arguments)
    first = arguments.pop(next(iter(arguments)))
    with torch.no_grad():
        made = model(first, **arguments)
        assert torch.equal(made if torch.is_tensor(made) else made.sample, named)
        if not torch.is_tensor(made):
            assert torch.equal(model(first, **arguments, return_dict=False)[0], named)


@by_family
def test_a_copy_is_independent(case) -> None:
    model = set_mode(flexify(build(case), case.modes, rank=2), case.modes[0])
    arguments = call(case, case.even)
    before = output(model, arguments)
    twin = copy.deepcopy(model)
    disturb(twin)
    assert torch.equal(output(model, arguments), before)
    assert not torch.equal(output(twin, arguments), before)
    assert torch.equal(output(set_mode(twin, "native"), arguments), output(set_mode(model, "native"), arguments))


@pytest.mark.slow
@pytest.mark.parametrize("offload", [accelerate.cpu_offload, accelerate.cpu_offload_with_hook])
def test_offloading_works_in_every_mode(offload) -> None:
    model = flexify(build(WAN), WAN.modes, rank=2, skip=True)
    disturb(model)
    arguments = call(WAN, WAN.odd)
    modes = ["native", *WAN.modes]
    expected = {mode: output(set_mode(model, mode), arguments) for mode in modes}
    set_mode(model, WAN.modes[0])
    offload(model, execution_device=torch.device("cpu"))
    for mode in [*modes, *modes]:
        assert torch.equal(output(set_mode(model, mode), arguments), expected[mode])


def test_a_cache_starts_anew_with_the_mode() -> None:
    model = flexify(build(WAN), ["1x4x4"], rank=2)
    arguments = call(WAN, WAN.even)
    expected = {mode: output(set_mode(model, mode), arguments) for mode in ("1x4x4", "native")}
    model.enable_cache(FirstBlockCacheConfig(threshold=100.0))  # everything but a first step is taken from the cache
    for mode in ("native", "1x4x4", "1x4x4", "native"):
        set_mode(model, mode)
        with model.cache_context("cond"):
            torch.testing.assert_close(output(model, arguments), expected[mode])


def test_a_lora_of_somebody_else_works_in_every_mode_and_leaves_no_trace() -> None:
    model = flexify(build(WAN), ["1x4x4"], rank=2)
    arguments = call(WAN, WAN.even)
    before = {mode: output(set_mode(model, mode), arguments) for mode in ("1x4x4", "native")}
    style = {f"blocks.0.attn1.to_q.lora_{part}.weight": torch.ones(*shape) for part, shape in
             (("A", (1, 24)), ("B", (24, 1)))}  # fmt: skip
    model.load_lora_adapter(style, prefix=None, adapter_name="style")
    changed = {mode: output(set_mode(model, mode), arguments) for mode in ("1x4x4", "native")}
    assert not any(torch.equal(changed[mode], before[mode]) for mode in before)
    model.unload_lora()
    assert all(torch.equal(output(set_mode(model, mode), arguments), before[mode]) for mode in before)


@pytest.mark.slow
def test_compiled_modes_give_the_same() -> None:
    model = flexify(build(WAN), ["1x4x4"], rank=2)
    arguments = call(WAN, WAN.odd)
    expected = {mode: output(set_mode(model, mode), arguments) for mode in ("1x4x4", "native")}
    compiled = torch.compile(model, backend="eager")
    for mode in ("native", "1x4x4", "native"):
        set_mode(model, mode)
        torch.testing.assert_close(output(compiled, arguments), expected[mode])


def test_the_native_mode_goes_by_its_written_form_too() -> None:
    model = flexify(build(WAN), ["1x2x2", "2x2x2"], rank=1)
    assert list(model.flexi.modes) == ["2x2x2"]
    assert current_mode(set_mode(set_mode(model, "2x2x2"), "1x2x2")) == "native"


def part_compiled() -> nn.Module:
    model = build(WAN)
    model.blocks[1] = torch.compile(model.blocks[1])
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: flexify(nn.Linear(2, 2), ["1x4x4"]), "class Linear; expected one of CogVideoX"),
        (
            lambda: flexify(torch.compile(build(WAN)), ["1x4x4"]),
            "OptimizedModule around a Wan.*; flexify it first, then",
        ),
        (
            lambda: flexify(nn.DataParallel(build(WAN)), ["1x4x4"]),
            "DataParallel around a WanTransformer3DModel; expected",
        ),
        (lambda: flexify(part_compiled(), ["1x4x4"]), "with blocks.1 compiled; expected none; flexify it first"),
        (
            lambda: flexify(accelerate.cpu_offload(build(WAN), torch.device("cpu")), ["1x4x4"]),
            "that is offloaded; expected",
        ),
        (lambda: flexify(build(WAN), ["1x1x1"]), "expected a whole multiple"),
        (lambda: flexify(build(WAN), ["1x3x4"]), "expected a whole multiple"),
        (lambda: flexify(build(WAN), ["1x2x2"]), "expected one weak mode"),
        (lambda: flexify(build(VARIANTS[-1]), ["2x2x2"]), "expected one larger along h w only"),
        (lambda: flexify(build(WAN), ["4x4"]), "expected FRAMESxROWSxCOLUMNS"),
        (lambda: flexify(flexify(build(WAN), ["1x4x4"]), ["2x2x2"]), "a model with weak modes"),
        (lambda: set_mode(flexify(build(WAN), ["1x4x4"], rank=1), "2x4x4"), "expected one of native, 1x4x4"),
        (lambda: set_mode(build(WAN), "native"), "call flexify first"),
    ],
)
def test_bad_input_gets_one_clear_error(make, says) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_what_weak_modes_cannot_work_with_is_refused_by_name() -> None:
    model = flexify(build(WAN), ["1x4x4"], rank=1)
    model.fuse_qkv_projections()
    with pytest.raises(ValueError, match="fused projections"):
        set_mode(model, "1x4x4")
    model.unfuse_qkv_projections()
    assert current_mode(set_mode(model, "1x4x4")) == "1x4x4"
    set_mode(model, "native")._parallel_config = object()
    with pytest.raises(ValueError, match="parallelism"):
        set_mode(model, "1x4x4")


def test_a_refused_mode_leaves_the_model_as_it_was() -> None:
    model = build(WAN)
    with pytest.raises(ValueError, match="whole multiple"):
        flexify(model, ["1x4x4", "1x3x3"])
    assert not hasattr(model, "flexi")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_own_modes_of_a_flexidit_stay_what_they_are() -> None:
    model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"))).eval()
    nn.init.normal_(model.out.weight)
    x, time = torch.randn(1, 3, 4, 8, 8), torch.tensor([0.5])
    before = output(model, {"x": x, "time": time, "mode": "2x4x4"})
    with pytest.raises(ValueError, match="got mode 2x4x4 for a FlexiDiT that was trained with it"):
        flexify(model, ["1x4x4", "2x4x4"])
    set_mode(flexify(model, ["1x4x4"]), "1x4x4")
    with pytest.raises(ValueError, match="got mode 2x4x4 while a mode of flexify is set"):
        model(x, time, mode="2x4x4")
    with pytest.raises(ValueError, match=r"expected \(b, 12, t, h, w\)"):
        model(x[:, :2], time)
    assert torch.equal(output(set_mode(model, "native"), {"x": x, "time": time, "mode": "2x4x4"}), before)


def test_a_flexidit_with_a_convolution_over_its_output_takes_no_modes() -> None:
    model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2",), output_conv=True))
    with pytest.raises(ValueError, match=r"got mode 1x4x4 for a FlexiDiT with output_conv, .*; expected one without; "):
        flexify(model, ["1x4x4"])


def test_a_fresh_mode_of_a_flexidit_is_close_to_one_that_it_has() -> None:
    """Both are resized from the native kernel: the same embedding, but for what the adapters' bilinear output is."""
    model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "1x4x4"))).eval()
    other = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2",))).eval()
    with torch.no_grad():
        nn.init.normal_(other.out.weight)
        other.out.weight.copy_(other.out.weight.mean((2, 3, 4), keepdim=True).expand_as(other.out.weight))
        state = other.state_dict()
        for part in ("embed", "out"):
            lifted = getattr(model, part).lift(state[f"{part}.weight"])
            state[f"{part}.weight"] = lifted
        state["out.bias"] = model.out.bias
        for name in ("mode_embedding", "conditioning.mode"):
            state[name] = state[name].repeat(2, 1)
    model.load_state_dict(state)
    arguments = {"x": torch.randn(1, 3, 2, 8, 8), "time": torch.tensor([0.5])}
    weak = output(set_mode(flexify(other, ["1x4x4"], rank=0), "1x4x4"), arguments)
    torch.testing.assert_close(weak, output(model, arguments | {"mode": "1x4x4"}), rtol=1e-3, atol=1e-4)

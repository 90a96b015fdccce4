"""Between calls a flexified model is the native one to whoever looks at it or changes it, in every mode."""

import json
import threading
import time

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn

from flexivid.pretrained.adapter import fingerprint, load_adapter, save_adapter
from flexivid.pretrained.flexify import (
    adapter_parameters,
    current_mode,
    flexify,
    register,
    set_mode,
    unflexify,
)
from flexivid.pretrained.merged import merge_lora
from flexivid.pretrained.signature import first_output
from tests.pretrained.families import CASES, build, by_family, call, disturb, output

WAN = CASES[0]


def flexible(mode="1x4x4", case=WAN):
    model = flexify(build(case), case.modes, rank=2, skip=True)
    disturb(model)
    return set_mode(model, mode)


def style(config=None):
    return config or LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False)


@by_family
def test_nothing_of_ours_is_found_and_all_of_it_trains(case) -> None:
    plain, model = build(case), flexible(case.modes[0], case)
    for kind in ("modules", "parameters", "buffers", "children"):
        assert len(list(getattr(model, kind)())) == len(list(getattr(plain, kind)()))
    assert list(model.state_dict()) == list(plain.state_dict())
    ours = adapter_parameters(model)
    assert not {id(p) for p in ours} & {id(p) for p in model.parameters()}
    count = len(list(model.parameters()))
    arguments = call(case, case.even)
    expected = output(model, arguments)
    assert len(list(register(model).parameters())) == count + len(ours)
    assert torch.equal(output(model, arguments), expected)
    assert len(list(unflexify(model).parameters())) == count


@pytest.mark.parametrize("mode", ["native", "1x4x4"])
def test_an_adapter_on_all_linears_is_on_native_ones_alone(mode) -> None:
    plain, model = build(WAN), flexible(mode)
    for one in (plain, model):
        torch.manual_seed(0)
        one.add_adapter(style())
    found = [[path for path, m in one.named_modules() if isinstance(m, LoraLayer)] for one in (plain, model)]
    assert found[0] == found[1]
    arguments = call(WAN, WAN.even)
    assert torch.equal(output(set_mode(model, "native"), arguments), output(plain, arguments))


def test_peft_around_the_model_calls_its_forward_in_the_mode_that_is_set() -> None:
    model, arguments = flexible("native"), call(WAN, WAN.even)
    around = get_peft_model(model, LoraConfig(r=2, target_modules=["to_q"]))  # no effect at first
    for mode in ("1x4x4", "native"):
        expected = output(flexible(mode), arguments)
        set_mode(model, mode)
        torch.testing.assert_close(output(around, arguments), expected)
        assert torch.equal(first_output(model.forward, arguments), output(model, arguments))


def test_what_is_saved_is_native_and_loads_without_us(tmp_path) -> None:
    plain, model = build(WAN), flexible()
    model.save_pretrained(tmp_path)
    loaded, info = type(plain).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]
    state = loaded.state_dict()
    assert all(torch.equal(state.pop(name), value) for name, value in plain.state_dict().items())
    assert not state


def test_an_adapter_is_saved_beside_a_lora_of_somebody_else(tmp_path) -> None:
    plain, model = build(WAN), flexible()
    save_adapter(model, tmp_path / "before")
    model.add_adapter(style())
    save_adapter(model, tmp_path / "with")
    for name in ("flexivid.json", *(f"{mode}.safetensors" for mode in WAN.modes)):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    arguments = call(WAN, WAN.even)
    loaded = set_mode(load_adapter(plain, tmp_path / "with"), "1x4x4")
    assert torch.equal(output(loaded, arguments), output(flexible(), arguments))
    load_adapter(model, tmp_path / "with")  # its own, with the LoRA still there


def test_a_fused_lora_is_no_native_weight(tmp_path) -> None:
    model = flexible()
    expected = fingerprint(model)
    model.add_adapter(style())
    model.fuse_lora()
    with pytest.raises(ValueError, match=r"got an adapter fused into .*; expected native weights; unfuse it first"):
        save_adapter(model, tmp_path)
    model.unload_lora()  # weights keep it
    assert fingerprint(model) != expected
    loaded = load_adapter(build(WAN), save_adapter(flexible(), tmp_path))
    loaded.add_adapter(style())
    loaded.fuse_lora()
    loaded.unload_lora()
    settings = json.loads((save_adapter(loaded, tmp_path / "again") / "flexivid.json").read_text())
    assert settings["native_sha256"] == expected  # of the model that it was made for
    assert load_file(tmp_path / "again" / "1x4x4.safetensors").keys()


def test_projections_fused_in_a_weak_mode_are_refused_in_the_call_and_harmless() -> None:
    plain, model, arguments = build(WAN), flexible(), call(WAN, WAN.even)
    weak = output(model, arguments)
    for one in (plain, model):
        one.fuse_qkv_projections()
    with pytest.raises(ValueError, match="got fused projections; expected q, k, v apart in weak modes"):
        output(model, arguments)
    assert torch.equal(output(set_mode(model, "native"), arguments), output(plain, arguments))
    model.unfuse_qkv_projections()
    assert torch.equal(output(set_mode(model, "1x4x4"), arguments), weak)


@pytest.mark.parametrize("change", ["replace", "cast", "prune"])
def test_parts_that_change_in_a_weak_mode_change_natively(change) -> None:
    plain, model, arguments = build(WAN), flexible(), call(WAN, WAN.even)
    for one in (plain, model):
        torch.manual_seed(5)
        if change == "replace":
            one.blocks[0].attn1.to_q = nn.Linear(24, 24)
        elif change == "cast":
            one.to(torch.bfloat16)
            arguments = call(WAN, WAN.even, dtype=torch.bfloat16)
        else:
            del one.blocks[-1]
    if change == "prune":
        with pytest.raises(
            ValueError, match=r"without blocks\.1.*expected the modules that it had when it was flexified"
        ):
            output(model, arguments)
    else:
        assert output(model, arguments).isfinite().all()
    assert torch.equal(output(set_mode(model, "native"), arguments), output(plain, arguments))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_call_that_ends_early_leaves_native_modules(error) -> None:
    model, arguments = flexible(), call(WAN, WAN.even)
    weak, tree = output(model, arguments), [vars(module).copy() for module in model.modules()]

    def stop(*_):
        raise error

    hook = model.blocks[1].norm2.register_forward_pre_hook(stop)
    with pytest.raises(error):
        output(model, arguments)
    hook.remove()
    assert [vars(module) for module in model.modules()] == tree
    assert model.flexi.modes["1x4x4"].embed.skipped is None
    assert torch.equal(output(model, arguments), weak)
    assert torch.equal(output(set_mode(model, "native"), arguments), output(build(WAN), arguments))


@by_family
def test_a_backward_pass_is_that_of_the_modes_of_its_calls(case) -> None:
    """Checkpointed blocks run again in the mode of their call, whatever was set since."""
    if not hasattr(build(case), "enable_gradient_checkpointing"):
        pytest.skip("keeps its setting in the configuration")
    gradients = []
    for later in (False, True):
        model, arguments = flexible(case.modes[0], case), call(case, case.even)
        model.enable_gradient_checkpointing()
        model.train()
        loss = first_output(model, arguments).square().mean()
        if later:
            loss = loss + first_output(set_mode(model, case.modes[-1]), arguments).square().mean()
            set_mode(model, "native")
        else:
            loss.backward()
            loss = first_output(set_mode(model, case.modes[-1]), arguments).square().mean()
        loss.backward()
        gradients.append([p.grad for p in adapter_parameters(model) if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_calls_in_threads_wait_for_each_other() -> None:
    model, arguments = flexible("native"), call(WAN, WAN.even)
    native, weak, found = output(model, arguments), output(flexible(), arguments), {}
    inside = threading.Event()

    def linger(*_: object) -> None:
        if current_mode(model) != "native":
            inside.set()
            time.sleep(0.3)

    hook = model.blocks[0].register_forward_pre_hook(linger)

    def run(mode: str) -> None:
        found[mode] = output(set_mode(model, mode), arguments)

    threads = [threading.Thread(target=run, args=(mode,)) for mode in ("1x4x4", "native")]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join()
    hook.remove()
    assert torch.equal(found["native"], native)
    assert torch.equal(found["1x4x4"], weak)


def test_what_is_merged_follows_a_cast() -> None:
    model = flexible()
    merge_lora(model)
    model.to(torch.bfloat16)
    weak = output(model, call(WAN, WAN.even, dtype=torch.bfloat16))
    assert weak.dtype == torch.bfloat16
    assert weak.isfinite().all()


def test_the_class_is_the_one_from_before_without_modes() -> None:
    kind = type(build(WAN))
    model = flexible()
    assert isinstance(model, kind)
    assert type(model) in (kind, str)  # as from_pipe asks
    assert type(model) not in {kind: 0}  # a table of classes keeps them apart
    assert (type(model).__name__, type(model).__module__) == (kind.__name__, kind.__module__)
    assert type(unflexify(model)) is kind
    model.add_adapter(style())
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".lora_" in name for name in trainable)


def test_taking_modes_away_leaves_adapters_of_others_as_they_are() -> None:
    model = flexible()
    model.add_adapter(style())
    unflexify(model)
    assert all(
        parameter.requires_grad for parameter in model.parameters()
    )  # native ones as before, theirs as they were


def test_modes_are_not_taken_from_what_is_around_a_transformer() -> None:
    compiled = torch.compile(flexible(), backend="eager")
    with pytest.raises(ValueError, match="got a OptimizedModule around a transformer; expected the transformer"):
        unflexify(compiled)
    assert current_mode(set_mode(compiled, "2x2x2")) == "2x2x2"

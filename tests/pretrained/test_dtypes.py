"""Every mode works in whatever dtype the plain model runs in, however its weights are stored, in any order."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import pytest
import torch
from diffusers.hooks import apply_layerwise_casting
from peft import LoraConfig
from torch import Tensor, nn

from flexivid.pipelines.budget import apply_budget
from flexivid.pipelines.report import flexify_and_compare, report
from flexivid.pretrained.adapter import load_adapter, save_adapter
from flexivid.pretrained.flexify import adapter_parameters, flexify, set_mode
from flexivid.pretrained.merged import merge_lora
from flexivid.pretrained.signature import first_output
from tests.pretrained.families import CASES, Case, build, by_family, call, disturb, output
from tests.pretrained.pipelines import PIPELINES
from tests.pretrained.quantised import Int8Linear, ScaledLinear, quantise, quantise_weights

WAN = CASES[0]
BF16, FP16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def stored(model: nn.Module, dtype: torch.dtype, compute: torch.dtype) -> nn.Module:
    model = model.to(compute)
    model.enable_layerwise_casting(storage_dtype=dtype, compute_dtype=compute)
    return model


class Recipe(NamedTuple):
    """What is done to a model, the dtype it is called in, and how far its output may be from that in float32."""

    change: Callable[[nn.Module], nn.Module]
    dtype: torch.dtype
    tolerance: float
    autocast: torch.dtype | None = None
    never: tuple[str, ...] = ()  # families whose plain model fails

    def context(self) -> AbstractContextManager:
        return torch.autocast("cpu", self.autocast) if self.autocast else nullcontext()

    def output(self, model: nn.Module, case: Case) -> Tensor:
        with self.context():
            return output(model, call(case, case.odd, batch=2, dtype=self.dtype))


OWN = ("flexidit", "flexidit-factorised")  # reads weights of its linears directly
COSMOS = ("cosmos", "cosmos-video")
RECIPES = {
    "bf16": Recipe(lambda model: model.to(BF16), BF16, 0.03),
    "fp16": Recipe(lambda model: model.half(), FP16, 0.004),
    "float64": Recipe(lambda model: model.double(), F64, 1e-5, never=COSMOS),
    "e4m3": Recipe(partial(stored, dtype=E4M3, compute=BF16), BF16, 0.1, never=OWN),
    "e5m2": Recipe(partial(stored, dtype=E5M2, compute=F32), F32, 0.15, never=OWN),
    "bf16 stored": Recipe(partial(stored, dtype=BF16, compute=F32), F32, 0.01, never=OWN),
    "autocast bf16": Recipe(lambda model: model, F32, 0.03, BF16),
    "autocast fp16": Recipe(lambda model: model, F32, 0.004, FP16),
    "int8": Recipe(partial(quantise, kind=Int8Linear), F32, 0.03, never=OWN),
    "int8 tensors": Recipe(lambda model: quantise_weights(model.to(BF16)), BF16, 0.05, never=OWN),
    "scaled float8": Recipe(partial(quantise, kind=ScaledLinear), F32, 0.15, never=OWN),
}
QUANTISED = ("int8", "int8 tensors", "scaled float8")
by_recipe = pytest.mark.parametrize("name", RECIPES)
stored_only = pytest.mark.parametrize("name", ["e4m3", "e5m2", "bf16 stored"])


def flexible(case: Case, model: nn.Module | None = None) -> nn.Module:
    """With weak modes whose new values are always the same."""
    reference = flexify(build(case), case.modes, rank=2, skip=True)
    disturb(reference)
    if model is None:
        return reference
    flexify(model, case.modes, rank=2, skip=True)
    model.flexi.load_state_dict(reference.flexi.state_dict())
    return model


def distance(output: Tensor, expected: Tensor) -> float:
    return float((output.float() - expected.float()).norm() / expected.float().norm())


@by_recipe
@by_family
def test_every_mode_works_in_every_order(case: Case, name: str) -> None:
    recipe = RECIPES[name]
    if case.name in recipe.never:
        pytest.skip("the plain model does not run so")
    native = recipe.output(recipe.change(build(case)).requires_grad_(False), case)
    reference = flexible(case)
    expected = {mode: output(set_mode(reference, mode), call(case, case.odd, batch=2)) for mode in case.modes}
    last = flexible(case, recipe.change(build(case)))
    models = [last, recipe.change(flexible(case))]
    if name not in QUANTISED:  # which puts other layers into the model, not another dtype
        models.append(recipe.change(set_mode(flexible(case), case.modes[0])))
    for model in models:
        for mode in case.modes:
            weak = recipe.output(set_mode(model, mode), case)
            assert weak.dtype == native.dtype
            assert distance(weak, expected[mode]) < recipe.tolerance
        assert torch.equal(recipe.output(set_mode(model, "native"), case), native)


@by_family
@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_trees_that_keep_some_weights_in_float32(case: Case, dtype: torch.dtype, tmp_path) -> None:
    if case.name in OWN:
        pytest.skip("not loaded by diffusers")
    build(case).save_pretrained(tmp_path)
    model = type(build(case)).from_pretrained(tmp_path, dtype=dtype).eval()
    assert flexify_and_compare(copy.deepcopy(model), case.modes, rank=2, skip=True) == 0
    expected = set_mode(flexible(case), case.modes[0])
    weak = output(set_mode(flexible(case, model), case.modes[0]), call(case, case.odd, dtype=dtype))
    assert weak.dtype == dtype
    assert distance(weak, output(expected, call(case, case.odd))) < 0.03


@by_recipe
def test_new_weights_keep_their_precision_and_learn(name: str) -> None:
    recipe = RECIPES[name]
    model = flexible(WAN, recipe.change(build(WAN)))
    before = {key: value.clone() for key, value in model.flexi.state_dict().items()}
    with recipe.context():
        first_output(
            set_mode(model, "1x4x4"), call(WAN, WAN.odd, dtype=recipe.dtype)
        ).float().square().mean().backward()
    for key, parameter in model.flexi.modes["1x4x4"].named_parameters():
        assert parameter.dtype == (F64 if recipe.dtype == F64 else F32)
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key
    assert all(torch.equal(value, before[key]) for key, value in model.flexi.state_dict().items())


@stored_only
def test_casting_layer_by_layer_leaves_an_adapter_as_it_was_trained(name: str, tmp_path) -> None:
    recipe = RECIPES[name]
    model = recipe.change(flexible(WAN)) if recipe.dtype == F32 else flexible(WAN, recipe.change(build(WAN)))
    for mode in WAN.modes:
        recipe.output(set_mode(model, mode), WAN)
    save_adapter(model, tmp_path)
    loaded = load_adapter(build(WAN), tmp_path, check=False)
    expected = flexible(WAN).flexi.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.flexi.state_dict().items())
    assert list(load_adapter(recipe.change(build(WAN)), tmp_path).flexi.modes) == list(WAN.modes)


def test_casting_the_whole_model_leaves_the_adapter_precise_and_a_cast_adapter_is_not_written(tmp_path) -> None:
    model = flexible(WAN, build(WAN, BF16))
    apply_layerwise_casting(model, E4M3, BF16, skip_modules_pattern=None)  # the model as one layer, without ours
    assert all(parameter.dtype == torch.float32 for parameter in adapter_parameters(model))
    model.flexi.to(E4M3)
    with pytest.raises(
        ValueError, match=r"stored in torch.float8_e4m3fn, its precision lost; .* before the whole model"
    ):
        save_adapter(model, tmp_path)


@by_family
@stored_only
def test_merged_copies_compute_in_what_the_model_computes_in(case: Case, name: str) -> None:
    recipe = RECIPES[name]
    if case.name in OWN:
        pytest.skip("the plain model does not run so")
    last, first = flexible(case, recipe.change(build(case))), flexible(case)
    merge_lora(last)
    merge_lora(first)
    expected = output(set_mode(flexible(case), case.modes[-1]), call(case, case.odd, batch=2))
    for model in (last, recipe.change(first)):
        assert distance(recipe.output(set_mode(model, case.modes[-1]), case), expected) < recipe.tolerance


@pytest.mark.parametrize("kind", [Int8Linear, ScaledLinear])
def test_quantised_linears_are_not_merged(kind) -> None:
    model = flexible(WAN, quantise(build(WAN), kind))
    with pytest.raises(
        ValueError, match=rf"got a {kind.__name__} at blocks.0.attn1.to_q of Parameter, torch\.\w+; expected a linear"
    ):
        merge_lora(model)
    model = flexible(WAN)
    merge_lora(model)
    with pytest.raises(ValueError, match=rf"got a {kind.__name__} at .* after merge_lora; .* call unmerge_lora first"):
        set_mode(quantise(model, kind), "1x4x4")


def test_weights_that_hold_integers_are_not_merged(tmp_path) -> None:
    model = flexible(WAN, quantise_weights(build(WAN)))
    with pytest.raises(ValueError, match=r"got a Linear at blocks.0.attn1.to_q of Int8Tensor, torch.float32; expected"):
        merge_lora(model)
    save_adapter(model, tmp_path)
    assert list(load_adapter(quantise_weights(build(WAN)), tmp_path).flexi.modes) == list(WAN.modes)
    model = flexible(WAN)
    merge_lora(model)
    with pytest.raises(ValueError, match=r"got a Linear at blocks.0.attn1.to_q after merge_lora; expected the linear"):
        set_mode(quantise_weights(model), "1x4x4")


def test_nothing_that_is_new_is_found_by_those_who_look_for_layers() -> None:
    model = flexible(WAN)
    merge_lora(model)
    assert not [part for part in model.flexi.modules() if isinstance(part, (nn.Linear, nn.Conv2d, nn.Conv3d))]
    model.add_adapter(LoraConfig(r=1, target_modules="all-linear"))
    assert not [name for name, _ in model.named_parameters() if "flexi." in name and "default" in name]


@by_recipe
def test_the_report_of_a_model_that_is_stored_otherwise(name: str) -> None:
    recipe = RECIPES[name]
    if recipe.autocast:
        pytest.skip("nothing is stored otherwise")
    model = recipe.change(build(WAN))
    assert flexify_and_compare(model, ["1x4x4"], rank=2) == 0
    assert "GB of weights" in report(model)[-1]


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == "wan" else pytest.mark.slow) for name in PIPELINES]
)
def test_a_budget_over_a_pipeline_in_float8_in_both_orders(family: str) -> None:
    make, arguments, mode = PIPELINES[family]
    arguments = arguments | {"num_inference_steps": 3}

    def run(pipe) -> Tensor:
        pipe.set_progress_bar_config(disable=True)
        return torch.as_tensor(pipe(**arguments, generator=torch.Generator().manual_seed(0))[0])

    plain = make().to(BF16)
    plain.transformer.enable_layerwise_casting()
    full = run(plain)
    for cast_first in (True, False):
        pipe = make().to(BF16)
        if cast_first:
            pipe.transformer.enable_layerwise_casting()
        flexify(pipe.transformer, [mode], rank=2)
        with apply_budget(pipe, 0.9) as applied:
            if not cast_first:
                pipe.transformer.enable_layerwise_casting()
            assert run(pipe).isfinite().all()
            assert mode in str(applied.plan)
        assert torch.equal(run(pipe), full)

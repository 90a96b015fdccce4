"""Under a budget a pipeline's own loop costs what it may; without it the pipeline is as before."""

import copy

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    WanPipeline,
)
from peft import LoraConfig
from torch.utils.flop_counter import FlopCounterMode

from flexivid.pipelines.budget import apply_budget, apply_schedule
from flexivid.pipelines.plan import PLANNERS, STAGED, costs_of, least_budget, plan_steps
from flexivid.pretrained.flexify import current_mode, flexify, set_mode, unflexify
from tests.pretrained.families import disturb
from tests.pretrained.pipelines import PIPELINES

COSTS = {"native": 1000, "2x2x2": 420, "1x4x4": 190, "2x4x4": 90}


def pipeline(family="wan"):
    make, arguments, weak = PIPELINES[family]
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    flexify(pipe.transformer, [weak], rank=2)
    disturb(pipe.transformer)
    return pipe, arguments, weak


def sample(pipe, arguments, steps=4, **changes):
    settings = {"num_inference_steps": steps, "generator": torch.Generator().manual_seed(3), **arguments}
    return pipe(**(settings | changes), return_dict=False)[0]


def watch(model):
    """Modes of the calls of a model, in order."""
    called = []
    model.patch_embedding.register_forward_pre_hook(lambda *args: called.append("native"))
    model.flexi.modes["2x4x4"].embed.register_forward_pre_hook(lambda *args: called.append("2x4x4"))
    return called


@pytest.mark.parametrize("budget", [0.09, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_a_plan_spends_all_it_can_and_no_more(budget) -> None:
    plan = plan_steps(budget, COSTS, 20)
    assert plan.budget <= budget
    assert plan.budget > budget - 0.05 * (420 - 190) / 1000 * 2
    prices = [COSTS[mode] for mode in plan.modes]
    assert prices == sorted(prices)


@pytest.mark.parametrize("guide_mode", [None, "1x4x4"])
def test_planners_order_the_same_steps(guide_mode) -> None:
    plans = {name: plan_steps(0.5, COSTS, 20, guide_mode=guide_mode, planner=name) for name in PLANNERS}
    assert len({tuple(sorted(plan.modes)) for plan in plans.values()}) == 1
    assert len({plan.macs for plan in plans.values()}) == 1
    assert len({plan.modes for plan in plans.values()}) == len(PLANNERS)
    assert plans["weak_last"].modes == plans["weak_first"].modes[::-1]
    assert plans["three_phase"].modes[0] == plans["three_phase"].modes[-1] == "native"
    with pytest.raises(ValueError, match="got planner 'searched' for a pipeline; expected one of weak_first"):
        plan_steps(0.5, COSTS, 20, planner="searched")


@pytest.mark.parametrize("guide_mode", [None, "2x4x4"])
@pytest.mark.parametrize("budget", [0.03, 0.1, 0.3, 0.7, 1.0])
def test_a_staged_plan_chooses_its_number_of_steps_within_the_budget(budget, guide_mode) -> None:
    plan = plan_steps(budget, COSTS, 5, planner=STAGED, guide_mode=guide_mode)
    calls = 2 if guide_mode else 1
    assert plan.macs <= budget * 5 * calls * COSTS["native"]
    assert plan.budget == pytest.approx(plan.macs / (5 * calls * COSTS["native"]))
    prices = [COSTS[mode] for mode in plan.modes]
    assert prices == sorted(prices)
    assert set(plan.modes) <= {"native", "2x2x2", "2x4x4"}  # the finest weak mode, and the cheapest
    assert budget < 1 or plan.modes == ("native",) * 5


def test_a_run_follows_an_explicit_schedule_of_its_length() -> None:
    pipe, arguments, weak = pipeline()
    called = watch(pipe.transformer)
    with apply_schedule(pipe, ["native", "native", weak]) as applied:
        sample(pipe, arguments, steps=3)
        assert applied.plan is not None
        assert applied.plan.budget < 1
        with pytest.raises(ValueError, match=r"got a run of 2 steps under a schedule of 3; expected as many"):
            sample(pipe, arguments, steps=2)
    assert list(dict.fromkeys(called)) == ["native", weak]
    with pytest.raises(ValueError, match="got modes 9x9x9; expected some of native"):
        apply_schedule(pipe, ["9x9x9"])


def test_the_real_pipeline_follows_the_planner() -> None:
    pipe, arguments, weak = pipeline()
    called = watch(pipe.transformer)
    applied = apply_budget(pipe, 0.6, planner="weak_last")
    sample(pipe, arguments)
    assert applied.plan is not None
    assert applied.plan.modes[0] == "native"
    assert applied.plan.modes[-1] == weak
    assert list(dict.fromkeys(called)) == ["native", weak]
    with pytest.raises(ValueError, match="got planner 'weakest' for a pipeline"):
        apply_budget(pipe, 0.6, planner="weakest")


def test_too_small_a_budget_is_refused_with_the_least() -> None:
    with pytest.raises(ValueError, match=r"got budget 0.05; expected at least 0.09, which is every step in 2x4x4"):
        plan_steps(0.05, COSTS, 20)
    assert plan_steps(least_budget(COSTS), COSTS, 3).modes == ("2x4x4",) * 3


def test_a_mode_dearer_than_native_is_not_used() -> None:
    assert set(plan_steps(0.5, {**COSTS, "9x9x9": 1200}, 20).modes) <= COSTS.keys()


@pytest.mark.parametrize(
    "family", ["wan", *(pytest.param(name, marks=pytest.mark.slow) for name in PIPELINES if name not in ("wan", "dit"))]
)
def test_the_real_pipeline_at_half_and_full_budget_and_after(family) -> None:
    pipe, arguments, weak = pipeline(family)
    original = sample(pipe, arguments)
    before = set(vars(pipe.scheduler)), set(vars(pipe.transformer)), set(vars(pipe))
    with apply_budget(pipe, 1.0) as applied:
        assert torch.equal(sample(pipe, arguments), original)
    plans, called = [], []
    hook = pipe.transformer.register_forward_pre_hook(lambda model, args: called.append(current_mode(model)))
    half = (1 + least_budget(applied.plan.costs)) / 2
    applied = apply_budget(pipe, half, on_plan=plans.append)
    half = sample(pipe, arguments)
    hook.remove()
    branches = len(called) // len(applied.plan.modes)
    assert called == [mode for mode in applied.plan.modes for _ in range(branches)]
    assert not torch.equal(half, original)
    assert torch.equal(sample(pipe, arguments), half)
    assert [plan.modes[0] for plan in plans] == [weak, weak]
    assert plans[0].modes[-1] == "native"
    applied.remove()
    applied.remove()
    assert (set(vars(pipe.scheduler)), set(vars(pipe.transformer)), set(vars(pipe))) == before
    assert torch.equal(sample(pipe, arguments), original)


def test_both_branches_of_guidance_take_the_mode_of_the_step() -> None:
    pipe, arguments, _ = pipeline()
    called = watch(pipe.transformer)
    applied = apply_budget(pipe, 0.6)
    sample(pipe, arguments, guidance_scale=4.0)
    assert called == [mode for mode in applied.plan.modes for _ in range(2)]
    called.clear()
    sample(pipe, arguments, steps=6, guidance_scale=1.0)
    assert called == list(applied.plan.modes)
    assert len(called) == 6


@pytest.mark.parametrize("family", ["wan", pytest.param("hunyuan", marks=pytest.mark.slow)])
def test_the_call_without_the_prompt_takes_its_own_mode(family) -> None:
    pipe, arguments, weak = pipeline(family)
    called, plans = [], []
    pipe.transformer.register_forward_pre_hook(lambda model, args: called.append(current_mode(model)))
    guided = (
        {"true_cfg_scale": 4.0, "negative_prompt": "a dog runs"} if family == "hunyuan" else {"guidance_scale": 4.0}
    )
    with apply_budget(pipe, 0.6, guide_mode=weak, on_plan=plans.append) as applied:
        made = sample(pipe, arguments, **guided)
        plan = applied.plan
        assert torch.equal(sample(pipe, arguments, **guided), made)
    assert called == [mode for step in zip(plan.modes, plan.guide_modes, strict=True) for mode in step] * 2
    assert set(plan.guide_modes) == {weak}
    assert plan.modes[-1] == "native"
    assert plan.budget <= 0.6
    with apply_budget(pipe, 0.6) as applied:
        sample(pipe, arguments, **guided)
        assert applied.plan.modes.count("native") < plan.modes.count("native")
    assert current_mode(pipe.transformer) == "native"


def test_a_guide_mode_needs_a_second_call() -> None:
    pipe, arguments, _ = pipeline()
    with apply_budget(pipe, 0.6, guide_mode="2x4x4"):
        with pytest.raises(ValueError, match=r"WanPipeline that makes one call a step; expected one call"):
            sample(pipe, arguments, guidance_scale=1.0)
        sample(pipe, arguments, guidance_scale=4.0)  # nothing is lost
    with pytest.raises(ValueError, match=r"got guide mode 9x9x9; expected one of native, 2x2x2"):
        plan_steps(0.5, COSTS, 20, guide_mode="9x9x9")
    with pytest.raises(ValueError, match=r"got budget 0.05; expected at least 0.09, which is every step in 2x4x4"):
        plan_steps(0.05, COSTS, 20, guide_mode="2x4x4")


@pytest.mark.parametrize("guide_mode", COSTS)
@pytest.mark.parametrize("budget", [0.1, 0.25, 0.5, 0.54, 0.9, 1.0])
def test_both_branches_stay_within_the_budget(budget, guide_mode) -> None:
    plan = plan_steps(budget, COSTS, 20, guide_mode=guide_mode)
    assert plan.budget == sum(COSTS[mode] for mode in plan.modes + plan.guide_modes) / 40_000 <= budget
    assert set(plan.guide_modes) <= {guide_mode, *(mode for mode in plan.modes if COSTS[mode] < COSTS[guide_mode])}
    dearest = COSTS["native"] + COSTS[guide_mode]
    if set(plan.modes) != {"native"}:  # one more native step in the place of a cheapest one cannot be paid
        first = COSTS[plan.modes[0]] + COSTS[plan.guide_modes[0]]
        assert plan.macs - first + dearest > budget * 40_000
    else:
        assert plan.macs == 20 * dearest


def test_a_second_order_solver_has_more_steps() -> None:
    pipe, arguments, _ = pipeline()
    pipe.scheduler = FlowMatchHeunDiscreteScheduler()
    pipe.scheduler.set_begin_index = lambda index: None  # diffusers' Heun has none, which WanPipeline asks for
    applied, called = apply_budget(pipe, 0.6), watch(pipe.transformer)
    sample(pipe, arguments, guidance_scale=1.0)
    assert called == list(applied.plan.modes)
    assert len(called) == 7


def test_the_budget_is_what_pytorch_counts() -> None:
    pipe, arguments, _ = pipeline()
    applied = apply_budget(pipe, 0.7)
    sample(pipe, arguments, guidance_scale=1.0)
    calls = []
    pipe.transformer.to("meta")
    hidden = torch.zeros(1, 4, 5, 6, 10, device="meta")
    text = torch.zeros(1, 8, 16, device="meta")
    applied.remove()
    for mode in applied.plan.modes:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            set_mode(pipe.transformer, mode)(hidden, torch.zeros(1, device="meta"), text)
        calls.append(counter.get_total_flops() // 2)
    assert applied.plan.macs == sum(calls)
    assert applied.plan.costs == costs_of(pipe.transformer, (5, 6, 10), 8)


def test_an_infeasible_budget_names_the_least_which_works() -> None:
    pipe, arguments, weak = pipeline()
    apply_budget(pipe, 0.01)
    with pytest.raises(ValueError, match="expected at least 0") as told:
        sample(pipe, arguments)
    least = float(str(told.value).split("at least ")[1].split(",")[0])
    applied = apply_budget(pipe, least)
    sample(pipe, arguments)
    assert set(applied.plan.modes) == {weak}
    assert current_mode(pipe.transformer) == "native"


def test_an_interrupted_run_leaves_nothing_for_the_next() -> None:
    pipe, arguments, _ = pipeline()
    apply_budget(pipe, 0.6)
    whole = sample(pipe, arguments)

    def stop(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(pipe, arguments, callback_on_step_end=stop)
    assert torch.equal(sample(pipe, arguments), whole)


def test_what_a_budget_cannot_work_with_is_refused() -> None:
    pipe, arguments, _ = pipeline()
    with pytest.raises(ValueError, match=r"got budget 0; expected a fraction"):
        apply_budget(pipe, 0)
    with pytest.raises(ValueError, match="got a int; expected a diffusers pipeline"):
        apply_budget(3, 0.5)
    apply_budget(pipe, 0.6)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match="call disable_cache"):
        sample(pipe, arguments)
    pipe.transformer_2 = pipe.transformer
    with pytest.raises(ValueError, match="two transformers"):
        apply_budget(pipe, 0.6)


def modes_of_runs(pipe, arguments, *runs):
    """Modes of the calls of a pipeline's transformer in some runs; ``runs`` are pipelines."""
    called = []
    hook = pipe.transformer.register_forward_pre_hook(lambda model, args: called.append(current_mode(model)))
    try:
        for run in runs:
            sample(run, arguments, guidance_scale=1.0)
    finally:
        hook.remove()
    return called


def test_another_scheduler_is_another_run() -> None:
    pipe, arguments, weak = pipeline()
    applied = apply_budget(pipe, 0.6)
    sample(pipe, arguments)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    assert modes_of_runs(pipe, arguments, pipe) == list(applied.plan.modes)
    assert weak in applied.plan.modes

    def swap(pipe, *_):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler()
        return {}

    with pytest.raises(ValueError, match="got another scheduler in the middle of a run under a budget"):
        sample(pipe, arguments, callback_on_step_end=swap)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("how", ["in place", "around"])
def test_a_budget_holds_through_compilation(order, how) -> None:
    pipe, arguments, _ = pipeline()
    expected = sample(pipe, arguments)
    with apply_budget(pipe, 0.6) as applied:
        half, plan = sample(pipe, arguments), applied.plan
    torch._dynamo.reset()
    if order == "after":
        applied = apply_budget(pipe, 0.6)
    transformer = pipe.transformer
    if how == "in place":
        pipe.transformer.compile(backend="eager")
    else:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    if order == "before":
        applied = apply_budget(pipe, 0.6)
    torch.testing.assert_close(sample(pipe, arguments), half)
    assert applied.plan == plan
    compiled = pipe.transformer
    applied.remove()
    assert pipe.transformer is compiled
    torch.testing.assert_close(sample(pipe, arguments), expected)
    assert transformer.flexi.mode == "native"


@pytest.mark.parametrize("shares", ["all", "transformer"])
def test_pipelines_that_share_parts_have_budgets_of_their_own(shares) -> None:
    pipe, arguments, weak = pipeline()
    kept = {} if shares == "all" else {"scheduler": type(pipe.scheduler).from_config(pipe.scheduler.config)}
    other, never = (type(pipe)(**(pipe.components | kept)) for _ in range(2))
    for one in (other, never):
        one.set_progress_bar_config(disable=True)
    native = ["native"] * 4
    first, second = apply_budget(pipe, 0.6), apply_budget(other, 0.3)
    made = modes_of_runs(pipe, arguments, pipe, never, other, pipe)
    one, two = list(first.plan.modes), list(second.plan.modes)
    assert made == [*one, *native, *two, *one]
    assert one.count(weak) < two.count(weak)
    first.remove()
    assert modes_of_runs(pipe, arguments, pipe, never, other) == [*native, *native, *two]
    second.remove()
    assert modes_of_runs(pipe, arguments, other) == native


def test_from_pipe_and_copies() -> None:
    pipe, arguments, weak = pipeline()
    applied = apply_budget(pipe, 0.6)
    for made in (type(pipe).from_pipe(pipe), WanPipeline.from_pipe(pipe)):
        made.set_progress_bar_config(disable=True)
        assert modes_of_runs(pipe, arguments, made) == ["native"] * 4
    twin = copy.deepcopy(pipe)
    applied.remove()
    assert weak in modes_of_runs(twin, arguments, twin)
    assert modes_of_runs(pipe, arguments, pipe) == ["native"] * 4


def test_another_transformer_is_refused_by_name() -> None:
    pipe, arguments, _ = pipeline()
    other, _, _ = pipeline()
    applied = apply_budget(pipe, 0.6)
    own = pipe.transformer
    for transformer in (other.transformer, unflexify(copy.deepcopy(own))):
        pipe.transformer = transformer
        with pytest.raises(ValueError, match="got another transformer in the WanPipeline than the one under a budget"):
            sample(pipe, arguments)
    pipe.transformer = own

    def swap(pipe, *_):
        pipe.transformer = other.transformer
        return {}

    with pytest.raises(ValueError, match="got another transformer in the WanPipeline"):
        sample(pipe, arguments, callback_on_step_end=swap)
    applied.remove()
    sample(pipe, arguments)


@pytest.mark.parametrize("end", ["error", "stop", "exit", "interrupt"])
def test_a_run_that_ends_early_leaves_the_model_native(end) -> None:
    pipe, arguments, _ = pipeline()
    plain = PIPELINES["wan"][0]()
    plain.set_progress_bar_config(disable=True)
    sample(pipe, arguments)  # attributes of diffusers' own
    before = set(vars(pipe.scheduler)), set(vars(pipe)), type(pipe)
    errors = {"error": RuntimeError, "stop": KeyboardInterrupt, "exit": SystemExit}
    applied = apply_budget(pipe, 0.6)

    def callback(pipe, *_):
        if end == "interrupt":
            pipe._interrupt = True
            return {}
        raise errors[end]

    if end == "interrupt":
        sample(pipe, arguments, callback_on_step_end=callback)
    else:
        with pytest.raises(errors[end]):
            sample(pipe, arguments, callback_on_step_end=callback)
    assert current_mode(pipe.transformer) == "native"
    for one in (pipe, plain):  # how a LoRA got into weak layers
        torch.manual_seed(0)
        one.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    applied.remove()
    assert torch.equal(sample(pipe, arguments), sample(plain, arguments))
    assert (set(vars(pipe.scheduler)), set(vars(pipe)), type(pipe)) == before


class Streaming(WanPipeline):
    """Gives its videos one after another."""

    def __call__(self, prompts, **settings):
        for prompt in prompts:
            yield WanPipeline.__call__(self, prompt, **settings)[0]


def test_a_pipeline_that_yields_may_be_left_at_any_time() -> None:
    pipe, arguments, weak = pipeline()
    stream = Streaming(**pipe.components)
    stream.set_progress_bar_config(disable=True)
    settings = {name: value for name, value in arguments.items() if name != "prompt"}
    settings |= {"num_inference_steps": 2, "guidance_scale": 1.0, "return_dict": False}
    called = []
    pipe.transformer.register_forward_pre_hook(lambda model, args: called.append(current_mode(model)))
    applied = apply_budget(stream, 0.6)
    source = stream(["a cat", "walks", "a cat"], **settings)
    next(source)
    plan = list(applied.plan.modes)
    assert called == plan
    assert weak in plan
    sample(pipe, arguments, guidance_scale=1.0)  # never budgeted, between two results
    next(source)
    assert called == [*plan, *["native"] * 4, *plan]
    source.close()
    assert current_mode(pipe.transformer) == "native"
    assert vars(stream.scheduler).keys() == vars(pipe.scheduler).keys() >= {"timesteps"}
    assert "step" not in vars(stream.scheduler)


def test_a_block_gives_back_the_budget_from_before_it() -> None:
    pipe, arguments, _ = pipeline()
    set_mode(pipe.transformer, "2x4x4")
    with apply_budget(pipe, 0.6) as outer:
        with apply_budget(pipe, 1.0):
            assert modes_of_runs(pipe, arguments, pipe) == ["native"] * 4
            with apply_budget(pipe, 0.9):
                pass
            assert modes_of_runs(pipe, arguments, pipe) == ["native"] * 4
        assert modes_of_runs(pipe, arguments, pipe) == list(outer.plan.modes)
        apply_budget(pipe, 1.0)
        outer.remove()  # not in force any more
        assert modes_of_runs(pipe, arguments, pipe) == ["native"] * 4
    pipe.flexivid_budget.remove()
    assert current_mode(pipe.transformer) == "2x4x4"


def test_modes_are_not_set_in_a_run_under_a_budget() -> None:
    pipe, arguments, weak = pipeline()

    def callback(pipe, *_):
        set_mode(pipe.transformer, weak)
        return {}

    says = r"got mode 2x4x4 in a run under a budget.*remove\(\) the budget first"
    with apply_budget(pipe, 1.0), pytest.raises(ValueError, match=says):
        sample(pipe, arguments, callback_on_step_end=callback)
    sample(pipe, arguments, callback_on_step_end=callback)


def test_a_pipeline_under_a_budget_is_saved_as_it_came(tmp_path) -> None:
    pipe, _, _ = pipeline()
    apply_budget(pipe, 0.6)
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is WanPipeline
    state = PIPELINES["wan"][0]().transformer.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.transformer.state_dict().items())


def test_steps_that_are_not_heard_of_are_an_error() -> None:
    pipe, arguments, _ = pipeline()

    class Own(WanPipeline):
        def __call__(self, *args, **kwargs):
            shown, self.scheduler = self.scheduler, copy.deepcopy(self.scheduler)
            try:
                return super().__call__(*args, **kwargs)
            finally:
                self.scheduler = shown

    own = Own(**pipe.components)
    with apply_budget(own, 0.6), pytest.raises(ValueError, match="got another scheduler in the middle of a run"):
        sample(own, arguments)

"""A sample depends on its own seed alone: not on its batch, nor on who makes the others."""

from dataclasses import replace

import pytest
import torch

from flexivid.budget.schedule import Schedule
from flexivid.calibration.calibrate import calibrate
from flexivid.diffusion.process import Process
from flexivid.diffusion.solver import call_times
from flexivid.model.conditioning import Condition
from flexivid.model.flops import CallCounter
from flexivid.sampling.conditions import Conditions, conditions_for
from flexivid.sampling.generate import generate, generate_batches, guidance_of, start_noise
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Sampling

TOLERANCE = 1e-4  # float32 sums in another order; values are about 1


def fp32(model, **changes):
    return Sampling(precision="fp32", **changes).filled(model)


def made(model, settings, *, indices=None, seed=5, num_videos=5, budget=0.6):
    """Videos by global index."""
    plan, conditions = plan_for(model, settings, budget).schedule, conditions_for(model, num_videos)
    batches = generate_batches(model, plan, settings, conditions=conditions, seed=seed, indices=indices)
    return {i: video for batch, videos in batches for i, video in zip(batch, videos, strict=True)}


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc", "dpm++"])
def test_same_sample_whatever_the_batch_size(model, solver):
    whole, single, pairs = (
        made(model, fp32(model, solver=solver, batch_size=size, guidance_scale=2.0)) for size in (16, 1, 2)
    )
    assert whole.keys() == single.keys() == pairs.keys() == set(range(5))
    for i, video in whole.items():
        assert video.std() > 0.1
        torch.testing.assert_close(single[i], video, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(pairs[i], video, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_ancestral_noise_does_not_depend_on_the_batch(model, solver):
    model.recipe = replace(model.recipe, process=Process("cosine"))
    whole, single = (made(model, fp32(model, solver=solver, batch_size=size)) for size in (16, 1))
    for i, video in whole.items():
        torch.testing.assert_close(single[i], video, atol=TOLERANCE, rtol=0)
    assert (whole[0] - whole[3]).abs().max() > 0.1  # the same class from another seed


def gaussian_denoiser(model, std, ratios):
    """The perfect output for data of mean 0.3; notes the variance of each call's input over what it should be."""
    process = model.recipe.process

    def forward(x, time, condition=None, mode=None):
        alpha, sigma = (value.view(-1, 1, 1, 1, 1) for value in process.alpha_sigma(time))
        variance = alpha**2 * std**2 + sigma**2
        ratios.append(((x - 0.3 * alpha).square().mean() / variance[0]).item())
        return 0.3 + alpha * std**2 / variance * (x - 0.3 * alpha)

    return forward


@pytest.mark.parametrize(("std", "calls"), [(0.0, 20), (0.3, 6)])  # later the ancestral step itself loses variance
@pytest.mark.parametrize("measuring", [False, True])
def test_ancestral_noise_is_independent_of_the_start(model, monkeypatch, std, calls, measuring):
    """Latents have the variance alpha^2 var + sigma^2: they are too loud if the first two noises are the same."""
    model.recipe = replace(model.recipe, process=Process("linear"))
    settings, ratios = fp32(model, solver="ddpm", num_inference_steps=20, size=(4, 32, 32)), []
    monkeypatch.setattr(model, "forward", gaussian_denoiser(model, std, ratios))
    if measuring:
        calibrate(model, settings._replace(modes=("1x2x2",)), num_videos=4)
    else:
        made(model, settings, num_videos=4, budget=1.0)
    assert len(ratios) >= 20
    assert ratios[:calls] == pytest.approx([1.0] * calls, abs=0.03)  # 4 deviations of 4 x 12288 values, and rounding


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_make_the_samples_of_one_process(model, world_size):
    settings = fp32(model, batch_size=2)
    whole, shared = made(model, settings), {}
    for rank in range(world_size):
        shared |= made(model, settings, indices=range(rank, 5, world_size))
    assert shared.keys() == whole.keys()
    for i, video in whole.items():
        torch.testing.assert_close(shared[i], video, atol=TOLERANCE, rtol=0)


def test_noise_depends_on_seed_plus_index(model):
    noise = start_noise(model, (4, 8, 8), [3, 4, 3])
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(start_noise(model, (4, 8, 8), [3, 4, 3]), noise)
    finally:
        torch.set_default_dtype(torch.float32)
    assert noise.shape == (3, 3, 4, 8, 8)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    settings = fp32(model, guidance_scale=1.0)
    shown = Conditions(torch.zeros(4, dtype=torch.long))
    plan = plan_for(model, settings, 1.0).schedule
    (_, first), (_, second) = (next(generate_batches(model, plan, settings, conditions=shown, seed=s)) for s in (7, 8))
    torch.testing.assert_close(first[1:], second[:-1], atol=TOLERANCE, rtol=0)
    assert (first[0] - second[0]).abs().max() > 0.1


def test_noise_leaves_the_global_generator_alone(model):
    before = torch.get_rng_state()
    generate(model, num_videos=1, num_inference_steps=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_steer_and_go_in_turn(model):
    cat, dog = (generate(model, labels=[label], precision="fp32").videos for label in (0, 1))
    assert (cat - dog).abs().max() > 1e-3
    assert generate(model, num_videos=4).labels.tolist() == [0, 1, 2, 0]
    assert generate(model, num_videos=3, labels=[2, 1]).labels.tolist() == [2, 1, 2]


@pytest.mark.parametrize("kind", ["ordinary", "weak", "auto"])
@pytest.mark.parametrize("budget", [1.0, 0.6])
def test_packed_branches_make_the_same_samples(model, kind, budget):
    one, two = (
        made(model, fp32(model, guidance_scale=3.0, guidance=kind, packing=packing), budget=budget)
        for packing in ("always", "never")
    )
    for i, video in two.items():
        torch.testing.assert_close(one[i], video, atol=TOLERANCE, rtol=0)


def test_kinds_of_guidance_differ(model):
    videos = [generate(model, labels=[0], guidance_scale=3.0, guidance=kind).videos for kind in (None, "weak", "auto")]
    assert min((a - b).abs().max() for a, b in zip(videos, videos[1:] + videos[:1], strict=True)) > 1e-3


def test_guidance_in_an_interval_costs_less_and_is_counted(model):
    options = {"labels": [0, 1], "guidance_scale": 3.0, "precision": "fp32"}
    whole, part = (generate(model, **options, guidance_interval=times) for times in (None, (0.5, 0.9)))
    assert str(part.schedule) == "1x1x2x2,2x1x2x2+1x2x2,1x1x2x2"
    assert (part.predicted_macs, part.measured_macs) == (part.measured_macs, whole.measured_macs * 6 // 8)
    again = generate(model, **options, schedule=str(part.schedule))
    torch.testing.assert_close(again.videos, part.videos)


def test_compensation_raises_the_scale_of_cheaper_schedules_only(model):
    settings = fp32(model, guidance_scale=4.5, compensate_guidance=True)
    plans = [plan_for(model, settings, 1.0, text).schedule for text in ("4x1x2x2", "2x2x4x4,2x1x2x2", "4x2x4x4")]
    scales = [guidance_of(model, plan, settings).scale for plan in plans]
    assert scales[0] == 4.5 < scales[1] < scales[2] < 5.5
    assert guidance_of(model, plans[2], settings._replace(compensate_guidance=False)).scale == 4.5


def test_budgets_differ_in_plan_not_in_noise(model):
    options = {"labels": [0], "precision": "fp32", "planner": "weak_first"}
    full, less = (generate(model, budget, **options) for budget in (1.0, 0.5))
    assert (str(full.schedule), str(less.schedule)) == ("4x1x2x2", "3x2x4x4,1x1x2x2")
    assert full.videos.shape == less.videos.shape == (1, 3, 4, 8, 8)
    assert (full.videos - less.videos).abs().max() > 1e-3


def test_explicit_schedule_equals_the_same_plan_by_budget(model):
    by_budget = generate(model, 0.5, labels=[0, 1], precision="fp32")
    by_plan = generate(model, schedule=str(by_budget.schedule), labels=[0, 1], precision="fp32")
    assert torch.equal(by_plan.videos, by_budget.videos)


def test_reuse_gives_the_solver_the_last_output_again(model):
    settings, heard = fp32(model), []
    conditions = conditions_for(model, 2)
    with CallCounter(model) as counter:
        ((_, videos),) = generate_batches(
            model,
            Schedule.parse("1x2x4x4,1xreuse,1x1x2x2,1xreuse"),
            settings,
            conditions=conditions,
            on_step=lambda n, step: heard.append(str(step)),
        )
    assert counter.calls == 2
    assert heard == ["2x4x4", "reuse", "1x2x2", "reuse"]
    # with a linear solver and a clean-video target, the line to the last output is followed on: two calls, two steps
    times = call_times(model.recipe.process, "euler", 4, shift=settings.shift)
    x, outputs = start_noise(model, settings.size, [0, 1]), []
    for place, mode in ((0, "2x4x4"), (2, "1x2x2")):
        following = times[place + 2] if place + 2 < len(times) else 0.0
        with torch.no_grad():
            outputs.append(model(x, torch.full((2,), times[place]), Condition(conditions.labels), mode))
        x = outputs[-1] + following / times[place] * (x - outputs[-1])
    torch.testing.assert_close(videos, x, atol=TOLERANCE, rtol=0)


def test_training_flag_and_gradients_are_left_alone(model):
    model.train()
    videos = generate(model, num_videos=1).videos
    assert model.training
    assert not videos.requires_grad


def test_any_size(model):
    assert generate(model, num_videos=1, size=(3, 10, 6), num_inference_steps=2).videos.shape == (1, 3, 3, 10, 6)


def test_on_step_hears_of_every_call(model):
    settings, heard = fp32(model, batch_size=2, solver="heun"), []
    plan = plan_for(model, settings, 0.6).schedule
    conditions = conditions_for(model, 3)
    list(
        generate_batches(model, plan, settings, conditions=conditions, on_step=lambda n, step: heard.append((n, step)))
    )
    parts = {
        "2x4x4": [3],
        "1x2x2": [2, 1],
    }  # two native samples a call, or sixteen of the mode with an eighth of tokens
    assert heard == [(count, step) for step in plan for count in parts[str(step)]]


def test_misspelt_setting_names_the_nearest(model):
    with pytest.raises(
        ValueError, match=r"got sampling setting 'guidance_scal'; expected .*; did you mean 'guidance_scale'"
    ):
        generate(model, guidance_scal=2.0)


@pytest.mark.parametrize("budget", [0, -1, 1.5, 0.01])
def test_budget_that_cannot_be_met(model, budget):
    with pytest.raises(ValueError, match=rf"got budget {budget}; expected "):
        generate(model, budget)

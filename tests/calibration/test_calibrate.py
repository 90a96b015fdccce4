"""Errors are what replacing one call does to the finished sample, measured anew here the long way round."""

import math
from dataclasses import replace

import pytest
import torch

from flexivid.budget.adaptive import patch_change, third_change
from flexivid.budget.schedule import REUSE, Schedule, affordable_cost
from flexivid.budget.search import best, frontier
from flexivid.calibration import calibrate as calibration
from flexivid.calibration.calibrate import calibrate, num_sample_steps, relate
from flexivid.diffusion.process import Process
from flexivid.model.checkpoint import fingerprint
from flexivid.sampling.generate import generate
from flexivid.sampling.plan import allowance_of
from flexivid.sampling.settings import Sampling, options_for


def fp32(model, **changes):
    return Sampling(precision="fp32", **changes).filled(model)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"solver": "heun", "num_inference_steps": 2},
        {"solver": "unipc"},
        {"solver": "ddpm"},
        {"guidance_scale": 2.0, "batch_size": 2},
    ],
)
def test_equals_sampling_with_one_call_replaced(model, changes):
    if changes.get("solver") == "ddpm":
        model.recipe = replace(model.recipe, process=Process("cosine"))
    settings = fp32(model, **changes)
    table = calibrate(model, settings, num_videos=3).table
    options = options_for(model, settings)

    def final(plan):
        return generate(
            model, schedule=Schedule(plan), num_videos=3, seed=calibration.SEED, precision="fp32", **changes
        ).videos

    calls = len(table.errors)
    native = final([options[0]] * calls)
    for call in range(calls):
        replaced = final([options[i == call] for i in range(calls)])
        expected = (replaced - native).square().flatten(1).mean(1).sqrt().mean().item()
        assert table.errors[call][0] == 0
        assert table.errors[call][1] == pytest.approx(expected, rel=1e-3, abs=1e-5)
        if call:
            again = final([REUSE if i == call else options[0] for i in range(calls)])
            expected = (again - native).square().flatten(1).mean(1).sqrt().mean().item()
            assert table.errors[call][-1] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert table.errors[0][-1] == math.inf


def test_changes_are_those_of_native_latents(model):
    settings, latents = fp32(model, num_inference_steps=5), []
    model.register_forward_pre_hook(lambda module, args: latents.append(args[0].clone()))
    table = calibrate(model, settings, num_videos=2).table
    change = third_change(latents[1:5])
    assert [len(call) for call in table.changes] == [0, 0, 0, 3, 3]
    for measured, step in zip(table.changes[4][:2], table.options[:2], strict=True):
        assert measured == pytest.approx(patch_change(change, step).mean().item(), rel=1e-3, abs=1e-6)


def test_does_not_depend_on_the_batch_size(model):
    whole, single = (calibrate(model, fp32(model, batch_size=size), num_videos=3).table for size in (16, 1))
    torch.testing.assert_close(torch.tensor(whole.errors), torch.tensor(single.errors), rtol=1e-3, atol=1e-5)


def test_protocol_says_what_it_holds_for(model):
    table = calibrate(model, fp32(model, guidance_scale=2.0), num_videos=2, max_switches=1).table
    assert table.model == fingerprint(model)
    assert table.settings == {
        **{"num_inference_steps": 4, "guidance_scale": 2.0, "guide_mode": None, "solver": "euler", "shift": 2.0},
        **{"size": [4, 8, 8], "guidance": "ordinary", "guidance_interval": None},
    }
    assert (table.protocol["num_videos"], table.protocol["seed"], table.max_switches) == (2, calibration.SEED, 1)
    assert [str(step) for step in table.options] == ["1x2x2+1x2x2", "2x4x4+2x4x4", "reuse"]


def test_progress_counts_every_step(model):
    settings, done = fp32(model, batch_size=2), []
    calibrate(model, settings, num_videos=3, on_calls=done.append)
    assert sum(done) == num_sample_steps(settings, 3, 3)


def test_numbers_of_steps_are_related_to_the_finest(model):
    measured = [calibrate(model, fp32(model, num_inference_steps=steps), num_videos=2) for steps in (2, 6, 4)]
    two, six, four = (table.distance for table in relate(measured))
    assert six == 0 < four < two


def test_trials_are_searched_schedules_against_the_finest_samples(model):
    every = [fp32(model, num_inference_steps=steps) for steps in (6, 4)]
    tables = relate([calibrate(model, settings, num_videos=2, most_steps=6) for settings in every])
    assert [table.finest for table in tables] == [6, 6]
    full = allowance_of(model, every[0]).full

    def final(schedule, steps):
        made = generate(
            model, schedule=schedule, num_videos=2, seed=calibration.SEED, precision="fp32", num_inference_steps=steps
        )
        return made.videos

    finest = final("6x1x2x2", 6)
    for settings, table in zip(every, tables, strict=True):
        allowance, steps = allowance_of(model, settings), settings.num_inference_steps
        allowance = allowance.with_reuse()
        front = frontier(table.rows(allowance.options), allowance.rows)
        assert table.trials[0] == (0, table.distance)
        assert table.trials[-1][0] == pytest.approx(front[0].error, rel=1e-5)  # the cheapest
        sums = {best(front, affordable_cost(budget, full)).error for budget in (0.8, 0.6, 0.4, 0.25)}
        assert [error for error, _ in table.trials] == pytest.approx(sorted({0, front[0].error, *sums}), rel=1e-5)
        for error, distance in table.trials:
            point = min(front, key=lambda point: abs(point.error - error))
            away = (final(allowance.schedule(point.choice), steps) - finest).square().flatten(1).mean(1).sqrt().mean()
            assert distance == pytest.approx(away.item(), rel=1e-3, abs=1e-5)
            assert table.expected(error) == pytest.approx(distance)


def test_nan_is_refused(model):
    with torch.no_grad():
        model.out_modulation.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"got a measured error of model \w+ that is not a finite number; expected"):
        calibrate(model, fp32(model), num_videos=1)


def test_interruption_goes_through(model):
    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, fp32(model), num_videos=1, on_calls=stop)

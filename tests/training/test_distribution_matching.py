"""What is matched, which steps have it, and what it costs."""

from __future__ import annotations

import pytest
import torch

from flexivid import PatchMode
from flexivid.budget.cost import macs
from flexivid.diffusion.process import Process
from flexivid.model.conditioning import Condition
from flexivid.training.distribution_matching import Matching, discrepancy
from flexivid.training.objective import Objective

MODES = (PatchMode("1x2x2"), PatchMode("2x2x2"), PatchMode("2x4x4"))


def test_steps_are_a_pure_function_of_the_seed():
    matching = Matching(1.0, share=0.5, weak_steps=2)
    drawn = [matching.start(step, MODES, 20) for step in range(2000)]
    assert drawn == [matching.start(step, MODES, 20) for step in range(2000)]
    assert drawn != [Matching(1.0, share=0.5, weak_steps=2, seed=1).start(step, MODES, 20) for step in range(2000)]
    chosen = [one for one in drawn if one is not None]
    assert 900 < len(chosen) < 1100
    assert {mode for mode, _ in chosen} == set(MODES[1:])
    assert {first for _, first in chosen} == set(range(18))  # 2 weak steps and a native one end within 20


@pytest.mark.parametrize("process", [Process("flow", "x0"), Process("flow", "velocity"), Process("cosine", "noise")])
def test_a_perfect_network_has_nothing_to_repair(process):
    """Data N(0, 0.5^2) per cell: the best guess of x0 is known, and its flow carries the distribution along exactly."""
    source, spread = torch.Generator().manual_seed(0), 0.5
    times = [0.9 - 0.02 * step for step in range(36)]
    found = {}
    for strength in (1.0, 0.0):

        def call(x, time, mode, strength=strength):
            alpha, sigma = (value.view(-1, 1, 1, 1, 1) for value in process.alpha_sigma(time))
            guess = strength * alpha * spread**2 / ((alpha * spread) ** 2 + sigma**2) * x
            return process.target_of(guess, (x - alpha * guess) / sigma, time)

        values = []
        for _ in range(40):
            x0, *noises = torch.randn(3, 32, 1, 2, 2, 2, generator=source)
            matching = Matching(1.0, weak_steps=20, native_steps=15)
            values.append(discrepancy(call, process, matching, spread * x0, noises, times, MODES[1::-1]))
        found[strength] = torch.stack(values)
    error = found[1.0].std() / 40**0.5
    assert abs(found[1.0].mean()) < 4 * error
    assert found[0.0].mean() > 10 * error  # a network that always guesses 0 shrinks the signal away


def test_the_gradient_runs_through_native_steps_only(make_module):
    module = make_module(objective=Objective(matching=Matching(1.0, share=1.0, weak_steps=2, native_steps=1)))
    seen = []
    module.network.register_forward_pre_hook(lambda _, args: seen.append((str(args[3]), torch.is_grad_enabled())))
    x0 = torch.rand(3, 3, 4, 16, 16)
    module._discrepancy(x0, Condition(torch.tensor([0, 1, -1])), (module.modes[1], 4), (0,)).backward()
    assert seen == [("2x8x8", False), ("2x8x8", False), ("2x4x4", True)]
    assert module.network.out.weight.grad.abs().sum() > 0


def test_a_run_with_matching_logs_it_and_counts_its_cost(tmp_path, make_data, make_module, make_trainer):
    module = make_module(objective=Objective(matching=Matching(0.5, share=1.0)))
    trainer = make_trainer(tmp_path, 6)
    trainer.fit(module, make_data())
    assert torch.isfinite(trainer.callback_metrics["train/discrepancy"])
    native = next(step for step in range(6) if module.mode_at(step) == module.modes[0])
    weak, _ = module._matched_at(native)
    cost = {mode: macs(module.network.config, module.latent_size, mode) for mode in module.modes}
    assert module.step_macs(native) == 2 * (6 * cost[module.modes[0]] + cost[weak])
    other = next(step for step in range(6) if module.mode_at(step) != module.modes[0])
    assert module._matched_at(other) is None


@pytest.mark.parametrize(
    ("settings", "modes", "message"),
    [
        ({"weight": -1.0}, MODES, "expected weight >= 0, share in"),
        ({"weight": 1.0, "share": 0.0}, MODES, "expected weight >= 0, share in"),
        ({"weight": 1.0}, MODES[:1], "got matching for a network of one mode; expected a weak mode"),
        ({"weight": 1.0, "weak_steps": 20}, MODES, "got 20 weak and 1 native steps to match; expected at most the 20"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings, modes, message):
    with pytest.raises(ValueError, match=message):
        Matching(**settings).check(modes, 20)

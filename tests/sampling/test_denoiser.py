"""Guidance mixes the right branches; one call or several, in parts or not, the outputs are the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flexivid import FlexiDiT, FlexiDiTConfig, PatchMode, Step
from flexivid.budget.schedule import REUSE
from flexivid.diffusion.guidance import Guidance, at_call, calls_outside, weak_scale
from flexivid.model.flops import CallCounter
from flexivid.sampling.conditions import Conditions
from flexivid.sampling.denoiser import PACKED_TOKENS, GuidedDenoiser, batch_of, steps_of
from flexivid.sampling.settings import Sampling

NATIVE, WEAK = PatchMode("1x2x2"), PatchMode("2x4x4")
SHOWN, NO_CLASS = 1, 3
CONFIG = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=(NATIVE, WEAK))
VALUES = {(SHOWN, NATIVE): 3.0, (NO_CLASS, NATIVE): 1.0, (SHOWN, WEAK): 2.0, (NO_CLASS, WEAK): 0.5}


class Network:
    """Answers by class and mode; writes down its calls."""

    config = SimpleNamespace(num_classes=NO_CLASS, native=NATIVE, text_channels=0)

    def __init__(self) -> None:
        self.calls: list[tuple[int, PatchMode]] = []

    def __call__(self, x, time, condition, mode):
        self.calls.append((int(condition.label[0]), mode))
        return torch.full_like(x, VALUES[self.calls[-1]])


def run(step: Step, scale: float, kind: str = "ordinary") -> tuple[float, list]:
    network, settings = Network(), Sampling(packing="never", size=(2, 4, 4), batch_size=1).filled(FlexiDiT(CONFIG))
    denoise = GuidedDenoiser(
        network, settings, Guidance(scale, kind), Conditions(torch.tensor([SHOWN])), steps_of([step])
    )
    return denoise(0, torch.zeros(1, 1, 2, 4, 4), torch.ones(1)).mean().item(), network.calls


def test_without_guide_mode_one_call() -> None:
    assert run(Step(NATIVE), 7.0) == (3.0, [(SHOWN, NATIVE)])


def test_ordinary_guidance_uses_the_null_class() -> None:
    assert run(Step(NATIVE, NATIVE), 4.0) == (1 + 4 * (3 - 1), [(SHOWN, NATIVE), (NO_CLASS, NATIVE)])
    assert run(Step(NATIVE, NATIVE), 1.0)[0] == 3.0


def test_weak_guidance_keeps_the_class_and_ties_the_scale() -> None:
    value, calls = run(Step(NATIVE, WEAK), 6.0, "weak")
    assert calls == [(SHOWN, NATIVE), (SHOWN, WEAK)]
    assert value == pytest.approx(2 + 3.0 * (3 - 2))
    assert (1 - 6.0) / (1 - weak_scale(6.0)) == pytest.approx(2.5)
    assert run(Step(WEAK, WEAK), 6.0, "weak") == run(Step(WEAK, WEAK), 6.0)  # both branches would be one


def test_autoguidance_drops_the_class_and_keeps_the_scale() -> None:
    value, calls = run(Step(NATIVE, WEAK), 6.0, "auto")
    assert calls == [(SHOWN, NATIVE), (NO_CLASS, WEAK)]
    assert value == 0.5 + 6.0 * (3 - 0.5)


def test_a_step_outside_the_interval_is_one_branch() -> None:
    outside = calls_outside([1.0, 0.8, 0.5, 0.2, 0.1], (0.2, 0.8))
    assert [len(run(at_call(Step(NATIVE, NATIVE), call, outside), 4.0)[1]) for call in range(3)] == [1, 2, 2]


@pytest.mark.parametrize("modes", [(NATIVE, NATIVE), (NATIVE, WEAK), (WEAK, WEAK)])
def test_one_call_equals_two(model, modes) -> None:
    x, time, labels = torch.randn(3, 3, 4, 8, 8), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0, 1, 2])
    outputs = {}
    for packing, calls in (("always", 1), ("never", 2)):
        settings = Sampling(packing=packing).filled(model)
        denoise = GuidedDenoiser(model, settings, Guidance(2.0), Conditions(labels), steps_of([Step(*modes)]))
        with torch.no_grad(), CallCounter(model) as counter:
            outputs[packing] = denoise(0, x, time)
        assert counter.calls == calls
    torch.testing.assert_close(outputs["always"], outputs["never"], atol=1e-5, rtol=1e-5)


def test_few_tokens_are_packed_and_many_are_not(model) -> None:
    most, settings = PACKED_TOKENS["cpu"] // (2 * 64), Sampling().filled(model)
    for count, calls in ((most, 1), (most + 1, 2)):
        labels = torch.zeros(count, dtype=torch.long)
        denoise = GuidedDenoiser(model, settings, Guidance(2.0), Conditions(labels), steps_of([Step(NATIVE, NATIVE)]))
        with torch.no_grad(), CallCounter(model) as counter:
            denoise(0, torch.zeros(count, 3, 4, 8, 8), torch.ones(count))
        assert counter.calls == calls


def test_samples_with_steps_of_their_own_come_back_in_order(model) -> None:
    """Each output is the one that the sample gets alone, however many samples share its step and however they stand."""
    steps = [Step(WEAK, WEAK), Step(NATIVE), Step(WEAK, WEAK), Step(NATIVE, WEAK), Step(NATIVE)]
    x, time, labels = torch.randn(5, 3, 4, 8, 8), torch.full((5,), 0.7), torch.tensor([0, 1, 2, 0, 1])
    settings, done = Sampling(batch_size=1).filled(model), []
    guidance = Guidance(2.0)
    denoise = GuidedDenoiser(
        model,
        settings,
        guidance,
        Conditions(labels),
        lambda call, x: steps,
        lambda count, step: done.append((count, step)),
    )
    with torch.no_grad():
        together = denoise(0, x, time)
        for i, step in enumerate(steps):
            alone = GuidedDenoiser(model, settings, guidance, Conditions(labels[i : i + 1]), steps_of([step]))
            torch.testing.assert_close(alone(0, x[i : i + 1], time[:1])[0], together[i], atol=1e-5, rtol=1e-5)
    assert sorted(str(step) for count, step in done for _ in range(count)) == sorted(map(str, steps))


def test_a_reused_output_costs_no_call(model) -> None:
    denoise = GuidedDenoiser(
        model,
        Sampling().filled(model),
        Guidance(),
        Conditions(torch.zeros(2, dtype=torch.long)),
        steps_of([Step(WEAK), REUSE]),
    )
    with torch.no_grad(), CallCounter(model) as counter:
        first = denoise(0, torch.randn(2, 3, 4, 8, 8), torch.ones(2))
        assert torch.equal(denoise(1, torch.randn(2, 3, 4, 8, 8), torch.ones(2)), first)
    assert counter.calls == 1


def test_batches_hold_equal_tokens_up_to_a_limit() -> None:
    size = (8, 32, 32)
    assert batch_of(NATIVE, size, NATIVE, 16) == 16
    assert batch_of(WEAK, size, NATIVE, 16) == 128
    assert batch_of(PatchMode("8x32x32"), size, NATIVE, 16) == 128
    assert batch_of(Step(WEAK, NATIVE), size, NATIVE, 16) == 16  # the native branch decides

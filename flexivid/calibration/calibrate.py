"""Measures the error of each option at each call: replaces it in a native trajectory and compares the final latents.

So the error of an option includes all that later native steps repair or amplify. All samples are guided trajectories
under the sampler's own settings. Sums of single errors are only a forecast, so the schedules that they suggest for the
usual budgets are sampled too, and compared with the native samples with the most steps: at these budgets, numbers of
steps are compared by measurements. Reusing the last output is one more option. All of it fills an ``ErrorTable``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.adaptive import HISTORY, patch_change, third_change
from flexivid.budget.measured import error_front, searchable
from flexivid.budget.schedule import REUSE, Schedule, Step
from flexivid.budget.search import Point, check_switches, winners
from flexivid.budget.table import ErrorTable
from flexivid.diffusion.guidance import at_call
from flexivid.diffusion.solver import build_scheduler, noise_generators, num_calls, solve
from flexivid.model.checkpoint import fingerprint
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.frozen import sampling_calls
from flexivid.sampling.conditions import Conditions, conditions_for
from flexivid.sampling.denoiser import GuidedDenoiser, steps_of
from flexivid.sampling.generate import start_noise
from flexivid.sampling.plan import allowance_of, table_settings
from flexivid.sampling.settings import Settings, guidance_from, options_for, plain_calls

USUAL_BUDGETS = (0.8, 0.6, 0.4, 0.25, 0.15)  # whose schedules a search samples and shows
SEED = 1_000_000  # far from the seeds people sample with
DIGITS = 6  # of a stored number
TRIALS = 1 + len(USUAL_BUDGETS)  # schedules that are sampled, at most: those of these budgets and the cheapest
STEP_SHARES = (1.0, 0.8, 0.6, 0.4, 0.25, 0.15)  # numbers of steps that are measured, of the full one

OnCalls = Callable[[int], Any]  # (sample steps that are done)


class Calibration(NamedTuple):
    """What :func:`calibrate` measured."""

    table: ErrorTable  # errors and changes
    samples: Tensor  # all-native final latents, (n, c, t, h, w), float32, on the CPU
    trials: tuple[tuple[float, Tensor], ...] = ()  # searched schedules: sum of their calls' errors, and final latents


def fewer_steps(num_inference_steps: int) -> list[int]:
    """Numbers of steps that a search measures, the full one first.

    Example:
        >>> fewer_steps(20), fewer_steps(4)
        ([20, 16, 12, 8, 5, 3], [4, 3, 2, 1])
    """
    counts = (max(1, math.floor(share * num_inference_steps + 1e-9)) for share in STEP_SHARES)
    return list(dict.fromkeys(counts))


@torch.no_grad()
def calibrate(  # noqa: PLR0913
    model: FlexiDiT,
    settings: Settings,
    *,
    num_videos: int = 16,
    seed: int = SEED,
    max_switches: int | None = None,
    most_steps: int | None = None,
    conditions: Conditions | None = None,
    on_calls: OnCalls | None = None,
) -> Calibration:
    """Measure the errors of every option at every call, on ``num_videos`` trajectories, i from the noise of seed + i.

    Budgets of the schedules that are tried are fractions of ``most_steps`` solver steps; ``None`` = those of the
    settings. ``conditions`` are by default all classes in turn, and the null text. ``max_switches`` is stored in the
    table, for the planner. ``on_calls`` is called with the number of sample steps just done, :func:`num_sample_steps`
    in all. ``ValueError`` if a sample comes out as NaN or infinite.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> from flexivid.sampling.settings import Sampling
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")))
        >>> settings = Sampling(size=(2, 8, 8), num_inference_steps=4, precision="fp32").filled(model)
        >>> table = calibrate(model, settings, num_videos=2).table
        >>> [str(step) for step in table.options], len(table.errors), table.errors[0][0]
        (['1x2x2', '2x4x4', 'reuse'], 4, 0.0)
    """
    check_switches(max_switches)
    conditions = conditions_for(model, num_videos) if conditions is None else conditions
    settings = settings._replace(text_tokens=conditions.text_tokens)
    options = measured_options(model, settings)
    calls = num_calls(settings.solver, settings.num_inference_steps)
    errors = torch.zeros(calls, len(options), dtype=torch.float64)
    changes: list[list[Tensor]] = [[] for _ in range(calls)]
    samples = []
    for batch in _batches(model, settings, conditions, seed, on_calls):
        samples.append(batch.follow_native(options[0]).cpu())
        for call in range(calls):
            changes[call].append(batch.changes(call, options))
            for column, step in enumerate(options[1:], 1):
                errors[call, column] += batch.deviation(call, step).sum().item() if call or step != REUSE else math.inf
    table = ErrorTable(
        model=fingerprint(model),
        settings=table_settings(settings),
        options=tuple(options),
        errors=_rounded(errors / num_videos),
        changes=[_rounded(torch.cat(parts, dim=1).mean(1)) if parts[0].numel() else [] for parts in changes],
        protocol={"num_videos": num_videos, "seed": seed, "precision": settings.precision, "torch": torch.__version__},
        max_switches=max_switches,
    )
    trials = []
    most = settings._replace(num_inference_steps=most_steps or settings.num_inference_steps)
    for point, schedule in _trial_schedules(model, settings, table.check(), most):
        batches = _batches(model, settings, conditions, seed, on_calls)
        trials.append((point.error, torch.cat([batch.follow(schedule).cpu() for batch in batches])))
    if on_calls is not None:  # schedules alike are tried once, the native one not at all
        on_calls(num_videos * calls * (TRIALS - len(trials)))
    return Calibration(table, torch.cat(samples), tuple(trials))


def measured_options(model: FlexiDiT, settings: Settings) -> list[Step]:
    """Steps that are measured at each call: the sampler's options, and reusing the last output."""
    return [*options_for(model, settings), REUSE]


def num_sample_steps(settings: Settings, num_options: int, num_videos: int) -> int:
    """Steps that :func:`calibrate` takes for so many trajectories, with so many options of a call, reuse among them.

    Example:
        >>> from flexivid import FlexiDiT, FlexiDiTConfig
        >>> from flexivid.sampling.settings import Sampling
        >>> settings = Sampling(size=(2, 8, 8), num_inference_steps=20).filled(FlexiDiT(FlexiDiTConfig()))
        >>> num_sample_steps(settings, num_options=5, num_videos=32)
        30720
    """
    calls = num_calls(settings.solver, settings.num_inference_steps)
    others = (num_options - 2) * calls * (calls + 1) // 2 + calls * (calls - 1) // 2  # the first call reuses nothing
    return num_videos * (calls + others + TRIALS * calls)


def relate(calibrations: Sequence[Calibration]) -> list[ErrorTable]:
    """Tables whose errors can be compared: each gets the distance of its native samples from those with the most calls.

    All must be of the same model, videos and seed, with different numbers of steps.
    """
    finest = max(calibrations, key=lambda calibration: len(calibration.table.errors))
    steps = finest.table.settings["num_inference_steps"]

    def away(samples: Tensor) -> float:
        return _rounded(_distance(samples, finest.samples).mean())

    return [
        table._replace(
            distance=away(samples),
            finest=steps,
            trials=tuple(sorted((_map(error), away(latents)) for error, latents in ((0.0, samples), *trials))),
        )
        for table, samples, trials in calibrations
    ]


def _trial_schedules(
    model: FlexiDiT, settings: Settings, table: ErrorTable, most: Settings
) -> list[tuple[Point, Schedule]]:
    """The cheapest schedule and those of the usual budgets of the most steps, without the native one."""
    allowance = searchable(allowance_of(model, settings), table)
    front = error_front(allowance_of(model, settings), table)
    full = allowance_of(model, most)
    limits = [front[0].cost, *(full.at(budget).affordable for budget in sorted(USUAL_BUDGETS))]
    points = [point for point in winners(front, limits) if point != front[-1]]
    return [(point, allowance.schedule(point.choice)) for point in points]


def _batches(
    model: FlexiDiT, settings: Settings, conditions: Conditions, seed: int, on_calls: OnCalls | None
) -> Iterator[_Batch]:
    """All trajectories, batch by batch."""
    for first in range(0, len(conditions), settings.batch_size):
        batch = range(first, min(len(conditions), first + settings.batch_size))
        yield _Batch(model, settings, [seed + i for i in batch], conditions.take(batch), on_calls)


class _Batch:
    """Trajectories of some seeds: native ones, the same with one call replaced, and those of any schedule."""

    def __init__(
        self, model: FlexiDiT, settings: Settings, seeds: list[int], conditions: Conditions, on_calls: OnCalls | None
    ) -> None:
        self._model, self._settings, self._seeds = model, settings, seeds
        self._conditions, self._device = conditions, next(model.parameters()).device
        self._plain = plain_calls(model, settings)
        self._on_step = lambda count, step: None if on_calls is None else on_calls(count)
        self._outputs: list[Tensor] = []
        self._latents: list[Tensor] = []

    def follow(self, schedule: Sequence[Step]) -> Tensor:
        """Final latents under a schedule."""
        return self._solve(self._denoiser(schedule))

    def follow_native(self, step: Step) -> Tensor:
        """Final latents with the native step throughout; stores the latents and outputs of all calls."""
        self._native_steps = [step] * num_calls(self._settings.solver, self._settings.num_inference_steps)
        denoise = self._denoiser(self._native_steps)

        def predict(call: int, x: Tensor, time: Tensor) -> Tensor:
            self._latents.append(x.float())
            self._outputs.append(denoise(call, x, time))
            return self._outputs[-1]

        self._native = self._solve(predict)
        return self._native

    def deviation(self, changed_call: int, step: Step) -> Tensor:
        """Distance of the final latents from the native ones if one call is another step, (b,)."""
        native = self._native_steps
        denoise = self._denoiser([*native[:changed_call], step, *native[changed_call + 1 :]])

        def predict(call: int, x: Tensor, time: Tensor) -> Tensor:
            if call >= changed_call:
                return denoise(call, x, time)
            denoise.last = self._outputs[call]  # as in the native trajectory, which is stored
            return denoise.last

        return _distance(self._solve(predict), self._native).cpu()

    def changes(self, call: int, options: Sequence[Step]) -> Tensor:
        """Third-order change at a call, (options, b); empty at the first calls."""
        if call < HISTORY:
            return torch.empty(0)
        change = third_change(self._latents[call - HISTORY : call + 1])
        none = torch.zeros(len(self._seeds))
        return torch.stack([patch_change(change, step).cpu() if step.modes else none for step in options])

    def _denoiser(self, schedule: Sequence[Step]) -> GuidedDenoiser:
        model, settings = self._model, self._settings
        steps = [at_call(step, call, self._plain) for call, step in enumerate(schedule)]
        guidance = guidance_from(model, settings)
        return GuidedDenoiser(model, settings, guidance, self._conditions, steps_of(steps), self._on_step)

    def _solve(self, predict: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        process, settings = self._model.recipe.process, self._settings
        scheduler = build_scheduler(process, settings.solver, settings.num_inference_steps, shift=settings.shift)
        noise = start_noise(self._model, settings.size, self._seeds).to(self._device)
        with sampling_calls(self._model, settings.precision):
            return solve(predict, noise, process, scheduler, generator=noise_generators(self._seeds))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of each sample, (b,)."""
    return (a - b).float().square().flatten(1).mean(1).sqrt()


def _rounded(values: Tensor) -> Any:
    """Numbers, or nested lists of them, rounded."""
    return _map(values.tolist())


def _map(values: Any) -> Any:
    return [_map(value) for value in values] if isinstance(values, list) else float(f"{values:.{DIGITS}g}")

"""What is set up before sampling is timed: compiled graphs, one for each mode and batch size, and first calls.

Only what a network computes is compiled. Its hooks stay outside, so calls are still counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flexivid.budget.adaptive import AdaptivePlan
from flexivid.budget.schedule import Schedule, Step
from flexivid.diffusion.guidance import Guidance
from flexivid.diffusion.solver import build_scheduler
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.frozen import compile_stand_in, has_compiled_stand_in, sampling_calls
from flexivid.patching.shapes import PatchMode
from flexivid.sampling.conditions import null_conditions
from flexivid.sampling.denoiser import GuidedDenoiser, batch_of, steps_of
from flexivid.sampling.generate import guidance_of, samples_together
from flexivid.sampling.settings import Settings, guidance_from

MOST_GRAPHS = 64  # modes x batch sizes x one or two branches; Dynamo's own limit is 8


def compile_forward(model: FlexiDiT) -> FlexiDiT:
    """Let calls of a model while sampling be compiled on first use of each mode; returns the model.

    Its stand-in (``model.frozen``) is compiled, anew where the weights have changed; a model that can have none is
    compiled itself.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")))
        >>> is_compiled(model), is_compiled(compile_forward(model))
        (False, True)
    """
    if not is_compiled(model):
        from torch import _dynamo as dynamo  # a second of imports that only those who compile wait for

        limits: Any = dynamo.config  # Dynamo has one limit for the process
        limits.recompile_limit = max(limits.recompile_limit, MOST_GRAPHS)
        if not compile_stand_in(model):
            model.forward = torch.compile(model.forward, dynamic=False)  # type: ignore[method-assign]
    return model


def is_compiled(model: FlexiDiT) -> bool:
    """Whether calls while sampling are compiled: the stand-in, the forward pass, or the whole call."""
    return has_compiled_stand_in(model) or "forward" in vars(model) or model._compiled_call_impl is not None


@torch.no_grad()
def warm_up(model: FlexiDiT, modes: Iterable[PatchMode], settings: Settings, count: int) -> None:
    """Call every mode once at its batch size, so that what is set up on first use does not count as sampling time.

    A compiled network is not called: its graphs depend on more than the mode, see :func:`warm_up_plans`.
    """
    build_scheduler(model.recipe.process, settings.solver, settings.num_inference_steps)  # imports diffusers
    if is_compiled(model):
        return
    with sampling_calls(model, settings.precision):
        for mode in modes:
            batch = min(count, batch_of(mode, settings.call_size, model.config.native, settings.batch_size))
            step_call(model, settings, Step(mode), batch)()


@torch.no_grad()
def warm_up_plans(
    model: FlexiDiT, plans: Sequence[Schedule | AdaptivePlan], settings: Settings, num_videos: int
) -> float:
    """Make every call that plans of so many samples will make once, before sampling is timed; returns seconds.

    Samples that choose their own schedules come in batches of any size: only graphs of full ones are built.
    """
    started = time.perf_counter()
    with sampling_calls(model, settings.precision):
        for plan in plans:
            steps = plan.allowance.options if isinstance(plan, AdaptivePlan) else plan
            together, guidance = samples_together(model, plan, settings), guidance_of(model, plan, settings)
            for step in dict.fromkeys(step for step in steps if step.modes):
                batch = batch_of(step, settings.call_size, model.config.native, settings.batch_size)
                windows = len(settings.window_starts)
                for count in _calls(num_videos * windows, together * windows, batch):
                    step_call(model, settings, step, count, guidance)()
    return time.perf_counter() - started


def step_call(
    model: FlexiDiT, settings: Settings, step: Step, count: int, guidance: Guidance | None = None
) -> Callable[[], Tensor]:
    """A step of so many samples as sampling makes it, for zeros; of long videos, each is a window."""
    at_once = settings._replace(size=settings.call_size, window_frames=None)
    guidance, conditions = guidance or guidance_from(model, settings), null_conditions(model, settings, count)
    denoise = GuidedDenoiser(model, at_once, guidance, conditions, steps_of([step]))
    x = torch.zeros(count, model.config.in_channels, *settings.call_size, device=next(model.parameters()).device)
    return partial(denoise, 0, x, torch.ones(count, device=x.device))


def _calls(num_videos: int, together: int, batch: int) -> set[int]:
    """Sizes of the calls of one step, for all batches."""
    counts = {min(together, num_videos), num_videos % together or together}
    return {size for count in counts for size in (min(batch, count), count % batch or batch) if size <= count}

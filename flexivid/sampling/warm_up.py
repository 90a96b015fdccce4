"""Makes every call of a plan once before sampling is timed: compiled networks build their graphs then."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from flexivid.budget.adaptive import AdaptivePlan
from flexivid.budget.schedule import Schedule
from flexivid.model.flexidit import FlexiDiT
from flexivid.runtime.precision import autocast
from flexivid.sampling.denoiser import GuidedDenoiser, batch_of, steps_of
from flexivid.sampling.generate import guidance_of, samples_together
from flexivid.sampling.settings import Settings


@torch.no_grad()
def warm_up_plans(
    model: FlexiDiT, plans: Sequence[Schedule | AdaptivePlan], settings: Settings, num_videos: int
) -> float:
    """Make every call that plans will make once, so that graphs are built before sampling is timed; returns seconds.

    Samples that choose their own schedules come in batches of any size: only graphs of full ones are built.

    Args:
        model: From :func:`compile_forward`.
        plans: Schedules that samples will follow.
        settings: From ``Sampling(...).filled(model)``.
        num_videos: Samples of each plan.
    """
    started, device = time.perf_counter(), next(model.parameters()).device
    zeros = torch.zeros(num_videos, model.config.in_channels, *settings.size, device=device)
    labels, times = torch.zeros(num_videos, dtype=torch.long, device=device), torch.ones(num_videos, device=device)
    with autocast(device, settings.precision):
        for plan in plans:
            steps = plan.allowance.options if isinstance(plan, AdaptivePlan) else plan
            together, guidance = samples_together(model, plan, settings), guidance_of(model, plan, settings)
            for step in dict.fromkeys(step for step in steps if step.modes):
                batch = batch_of(step, settings.size, model.config.native, settings.batch_size)
                for count in _calls(num_videos, together, batch):
                    denoise = GuidedDenoiser(model, settings, guidance, labels[:count], steps_of([step]))
                    denoise(0, zeros[:count], times[:count])
    return time.perf_counter() - started


def _calls(num_videos: int, together: int, batch: int) -> set[int]:
    """Sizes of the calls of one step, for all batches."""
    counts = {min(together, num_videos), num_videos % together or together}
    return {size for count in counts for size in (min(batch, count), count % batch or batch) if size <= count}

"""Generating videos under a patch schedule: noise by global index, solver, guidance, codec.

A sample depends on its own seed (base seed + global index), never on the batch it was made in nor on how many devices
share the work.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.adaptive import AdaptivePlan
from flexivid.budget.cost import text_macs
from flexivid.budget.schedule import Schedule, budget_of, num_texts
from flexivid.budget.table import Table
from flexivid.diffusion.guidance import Guidance, compensated_scale
from flexivid.diffusion.solver import build_scheduler, noise_generators, solve
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.flops import CallCounter
from flexivid.model.frozen import sampling_calls
from flexivid.runtime.finite import require_finite_samples
from flexivid.sampling.conditions import Conditions, conditions_for
from flexivid.sampling.denoiser import GuidedDenoiser, OnStep, batch_of, steps_of
from flexivid.sampling.encoders import codec_of
from flexivid.sampling.pictures import Pictures, given_frames
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Settings, guidance_from, settings_from, with_steps_of


class Generation(NamedTuple):
    """What :func:`generate` made."""

    videos: Tensor  # (n, 3, t, h, w) in pixels, about [-1, 1], float32, on the CPU
    labels: Tensor  # classes, int64 (n,)
    schedule: Schedule  # the schedule that all videos followed; if each had its own, the one that they began with
    predicted_macs: int  # MACs of all samples by the closed formulas
    measured_macs: int  # MACs of the calls really made, by PyTorch's counter
    seconds: float  # wall time of the solver's loop
    schedules: tuple[Schedule, ...]  # of each video


def generate(  # noqa: PLR0913
    model: FlexiDiT,
    budget: float | str = 1.0,
    *,
    schedule: Schedule | str | None = None,
    num_videos: int | None = None,
    labels: Sequence[int] | Tensor | None = None,
    prompts: Sequence[str] | None = None,
    negative_prompt: str | None = None,
    frames: Pictures | Tensor | None = None,
    seed: int = 0,
    tables: Sequence[Table] = (),
    **sampling: Any,
) -> Generation:
    """Make videos at a fraction of the full compute.

    Args:
        model: From ``flexivid.load`` or training.
        budget: Fraction of the all-native compute, in (0, 1], or a preset: ``draft``, ``balanced``, ``full``.
        schedule: An explicit patch plan instead of a budget, e.g. ``"12x4x8x8,8x2x4x4"``.
        num_videos: How many; default one a label or prompt, or 1.
        labels: Class of each video; default: the classes in turn (none for a model without classes).
        prompts: Text of each video, for a model with text; default: the null text.
        negative_prompt: What guidance leads away from instead of the null text.
        frames: Frames of the videos, for a model with given frames: the first ones, (3, k, h, w) in [-1, 1], or
            ``Pictures``.
        seed: Video i starts from the noise of seed + i.
        tables: What was measured of this model, from ``read_tables``, for the planners that go by it.
        **sampling: Fields of :class:`flexivid.sampling.settings.Sampling`, e.g. ``num_inference_steps=20``. Without a
            number of steps a budget takes as many as serve it best, and an explicit schedule as many as it has.

    Returns:
        The videos and what they cost.

    Raises:
        ValueError: If the budget cannot be met or a setting is out of range.

    Example:
        >>> from flexivid import FlexiDiT, FlexiDiTConfig
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")))
        >>> made = generate(model, budget=0.5, num_videos=2, size=(2, 8, 8), num_inference_steps=4)
        >>> made.videos.shape, str(made.schedule), made.measured_macs == made.predicted_macs
        (torch.Size([2, 3, 2, 8, 8]), '3x2x4x4,1x1x2x2', True)
    """
    settings = settings_from(sampling).filled(model)
    fixed = None if frames is None else given_frames(model, settings, frames)
    texts = {"labels": labels, "prompts": prompts, "negative_prompt": negative_prompt}
    conditions = conditions_for(model, num_videos, frames=fixed, **texts)  # type: ignore[arg-type]
    settings = settings._replace(text_tokens=conditions.text_tokens)
    plan = plan_for(model, settings, budget, schedule, tables=tables)
    settings, followed = plan.settings(settings), plan.followed
    codec_of(model)  # loaded before time is taken
    started = time.perf_counter()
    with CallCounter(model) as counter:
        batches = generate_batches(model, followed, settings, conditions=conditions, seed=seed)
        videos = torch.cat([video for _, video in batches])
        seconds = time.perf_counter() - started
    schedules = tuple(schedule_of(followed, i) for i in range(len(conditions)))
    predicted = sum(sample_macs(model, settings, followed, i) for i in range(len(conditions)))
    return Generation(videos, conditions.labels, plan.schedule, predicted, counter.macs, seconds, schedules)


def schedule_of(plan: Schedule | AdaptivePlan, index: int) -> Schedule:
    """The schedule that a sample followed, by its global index."""
    return plan.followed[index] if isinstance(plan, AdaptivePlan) else plan


def sample_macs(model: FlexiDiT, settings: Settings, plan: Schedule | AdaptivePlan, index: int) -> int:
    """MACs of a sample that is made, by its global index."""
    schedule, cost = schedule_of(plan, index), settings.schedule_macs
    reading = text_macs(model.config, settings.text_tokens)  # an adaptive batch reads what any of its samples may need
    return cost(model.config, schedule) + (_num_texts(plan) - num_texts(schedule)) * reading


def _num_texts(plan: Schedule | AdaptivePlan) -> int:
    return num_texts(plan.allowance.options if isinstance(plan, AdaptivePlan) else plan)


def start_noise(model: FlexiDiT, size: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """Noise of each seed, float32 (len(seeds), c, t, h, w), drawn on the CPU so that devices agree."""
    shape = (model.config.in_channels, *size)
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=source, dtype=torch.float32) for source in sources])


@torch.no_grad()
def generate_batches(
    model: FlexiDiT,
    plan: Schedule | AdaptivePlan,
    settings: Settings,
    *,
    conditions: Conditions,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Make the videos of some global indices, ``None`` = all: yield those of a batch, and (b, 3, t, h, w) on the CPU.

    A batch is as large as the coarsest mode of the plan takes; finer modes are called on parts of it. The plan decides
    the number of solver steps. Given frames are conditions of every call, and take the place of the sample's own in the
    end. ``on_step`` is called after each step of some of the samples. ``NotFiniteSampleError`` if one holds NaN or
    infinity.
    """
    conditions.check(model)
    if conditions.negative_prompt and settings.guidance_scale == settings.weak_scale == 1:
        warnings.warn("negative_prompt has no effect: guidance_scale is 1, which is none", stacklevel=2)
    settings = with_steps_of(settings, len(plan))
    process, codec = model.recipe.process, codec_of(model)
    device = next(model.parameters()).device
    indices = list(range(len(conditions))) if indices is None else list(indices)
    together, guidance = samples_together(model, plan, settings), guidance_of(model, plan, settings)
    for first in range(0, len(indices), together):
        batch = indices[first : first + together]
        noise = start_noise(model, settings.size, [seed + i for i in batch]).to(device)
        scheduler = build_scheduler(process, settings.solver, settings.num_inference_steps, shift=settings.shift)
        steps_at = plan.start(batch).steps if isinstance(plan, AdaptivePlan) else steps_of(plan)
        both, shown = isinstance(plan, AdaptivePlan) and _num_texts(plan) == 2, conditions.take(batch)
        denoise = GuidedDenoiser(model, settings, guidance, shown, steps_at, on_step, reads_both=both)
        generators = noise_generators(seed + i for i in batch)
        with sampling_calls(model, settings.precision):
            latent = solve(denoise, noise, process, scheduler, generator=generators)
        if (frames := shown.frames_on(device)) is not None:
            latent = torch.where(frames.mask > 0, frames.latent, latent)
        videos = codec.decode(latent, settings.num_frames)
        yield batch, require_finite_samples(videos.float().cpu(), batch)


def samples_together(model: FlexiDiT, plan: Schedule | AdaptivePlan, settings: Settings) -> int:
    """Samples that are solved together: as many as the coarsest step of the plan takes in one call."""
    steps = plan.allowance.options if isinstance(plan, AdaptivePlan) else plan
    together = [batch_of(step, settings.call_size, model.config.native, settings.batch_size) for step in set(steps)]
    return max(1, max(together) // len(settings.window_starts))


def guidance_of(model: FlexiDiT, plan: Schedule | AdaptivePlan, settings: Settings) -> Guidance:
    """Kind and scales of guidance under a plan."""
    guidance = guidance_from(model, settings)
    if not settings.compensate_guidance:
        return guidance
    if isinstance(plan, AdaptivePlan):
        share = plan.share
    else:
        share = budget_of(plan, model.config, settings.call_size, text_tokens=settings.text_tokens)
    scale, weak = (compensated_scale(s, min(1.0, share)) for s in (settings.guidance_scale, settings.weak_scale))
    return guidance._replace(scale=scale, weak_mode_scale=weak)

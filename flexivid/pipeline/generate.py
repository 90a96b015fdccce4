"""Generating videos under a patch schedule: noise by global index, solver, guidance, codec.

A sample depends on its own seed (base seed + global index), never on the batch it was made in nor on how many devices
share the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.schedule import Schedule, schedule_macs
from flexivid.diffusion.guidance import guided_output
from flexivid.diffusion.solver import build_scheduler, solve
from flexivid.latents.codec import build_codec
from flexivid.model.conditioning import Condition, check_labels
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode
from flexivid.pipeline.checkpoint import process_of
from flexivid.pipeline.measure import CallCounter
from flexivid.pipeline.precision import autocast
from flexivid.pipeline.sampling import Settings, labels_for, plan_for, settings_from

OnStep = Callable[[int, Any], None]  # (samples in the batch, the step that is done)


class Generation(NamedTuple):
    """What :func:`generate` made.

    Args:
        videos: (n, 3, t, h, w), about [-1, 1], float32, on the CPU.
        labels: Classes, int64 (n,).
        schedule: The patch plan that was followed.
        predicted_macs: MACs of all samples by the closed formulas.
        measured_macs: MACs of the calls really made, by PyTorch's counter.
        seconds: Wall time of the solver's loop.
    """

    videos: Tensor
    labels: Tensor
    schedule: Schedule
    predicted_macs: int
    measured_macs: int
    seconds: float


def generate(
    model: FlexiDiT,
    budget: float = 1.0,
    *,
    schedule: Schedule | str | None = None,
    num_videos: int | None = None,
    labels: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    **sampling: Any,
) -> Generation:
    """Make videos at a fraction of the full compute.

    Args:
        model: From ``flexivid.load`` or training.
        budget: Fraction of the all-native compute, in (0, 1].
        schedule: An explicit patch plan instead of a budget, e.g. ``"12x4x8x8,8x2x4x4"``.
        num_videos: How many; default one a label, or 1.
        labels: Class of each video; default: the classes in turn (none for a model without classes).
        seed: Video i starts from the noise of seed + i.
        **sampling: Fields of :class:`flexivid.pipeline.sampling.Sampling`, e.g. ``num_inference_steps=20``.

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
    plan = plan_for(model, settings, budget, schedule)
    labels = labels_for(model, num_videos, labels)
    started = time.perf_counter()
    with CallCounter(model) as counter:
        batches = [video for _, video in generate_batches(model, plan, settings, labels=labels, seed=seed)]
        seconds = time.perf_counter() - started
    predicted = schedule_macs(plan, model.config, settings.size) * len(labels)
    return Generation(torch.cat(batches), labels, plan, predicted, counter.macs, seconds)


def start_noise(model: FlexiDiT, size: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """Noise of each seed, float32 (len(seeds), c, t, h, w), drawn on the CPU so that devices agree."""
    shape = (model.config.in_channels, *size)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def warm_up(model: FlexiDiT, modes: Iterable[PatchMode], settings: Settings, count: int) -> None:
    """Call every mode once at the batch size to come: what is set up on first use must not count as sampling time."""
    device, shape = next(model.parameters()).device, (min(count, settings.batch_size), model.config.in_channels)
    with autocast(device, settings.precision):
        for mode in modes:
            model(torch.zeros(*shape, *settings.size, device=device), torch.ones(shape[0], device=device), None, mode)


@torch.no_grad()
def generate_batches(
    model: FlexiDiT,
    plan: Schedule,
    settings: Settings,
    *,
    labels: Tensor,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Make the videos of some global indices, batch by batch.

    Args:
        model: The network; its ``training`` flag is left alone.
        plan: One step for each call of the network.
        settings: From ``Sampling(...).filled(model)``.
        labels: Class of every global index, int64 (n,).
        seed: Base seed.
        indices: Which global indices to make; ``None`` = all. A rank passes its share.
        on_step: Called after each call of the network.

    Yields:
        Global indices of a batch, and its videos (b, 3, t, h, w), float32, on the CPU.
    """
    check_labels(labels, model.config.num_classes)
    process, codec = process_of(model.recipe), build_codec(model.recipe.get("codec", "pixel"))
    device = next(model.parameters()).device
    wanted = list(range(len(labels))) if indices is None else list(indices)
    for first in range(0, len(wanted), settings.batch_size):
        batch = wanted[first : first + settings.batch_size]
        noise = start_noise(model, settings.size, [seed + i for i in batch]).to(device)
        condition, null = Condition(labels[batch].to(device)), Condition()
        scheduler = build_scheduler(
            process,
            settings.solver,
            settings.num_inference_steps,
            shift=settings.shift,
        )

        def predict(
            i: int, x: Tensor, at: Tensor, *, condition: Condition = condition, null: Condition = null
        ) -> Tensor:
            scale: float = settings.guidance_scale
            output = guided_output(model, x, at, plan[i], condition=condition, null=null, scale=scale)
            if on_step is not None:
                on_step(len(x), plan[i])
            return output

        generators = [torch.Generator().manual_seed(seed + i) for i in batch]
        with autocast(device, settings.precision):
            latent = solve(predict, noise, process, scheduler, generator=generators)
        yield batch, codec.decode(latent).float().cpu()

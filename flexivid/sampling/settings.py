"""What sampling settings mean for a model: calls, guidance, steps, sizes, and the class of each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from flexivid.budget.allowance import step_options
from flexivid.budget.cost import full_cost, text_macs
from flexivid.budget.schedule import Step, num_texts
from flexivid.diffusion.guidance import Guidance, calls_outside
from flexivid.diffusion.solver import call_times, num_calls, steps_of_calls
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import Size3
from flexivid.runtime.errors import check_keys
from flexivid.sampling.encoders import codec_of
from flexivid.sampling.options import Sampling as Sampling
from flexivid.sampling.options import Settings as Settings


def settings_from(values: dict[str, Any]) -> Sampling:
    """Settings from keywords; an unknown one is an error that names the nearest field."""
    check_keys(values, [field.name for field in fields(Sampling)], what="sampling setting")
    return Sampling(**values)


def full_macs(model: FlexiDiT, settings: Settings) -> int:
    """MACs of one video at full compute, see ``full_cost``."""
    calls = num_calls(settings.solver, settings.num_inference_steps)
    native_macs, plain = settings.call_macs(model.config), plain_calls(model, settings)
    full = full_cost(native_macs, guided=settings.guidance_scale != 1, num_steps=calls, plain_calls=plain)
    return full + reading_macs(model, settings)


def reading_macs(model: FlexiDiT, settings: Settings) -> int:
    """MACs of reading the texts of one video: its own, and that of the second branch where there is one."""
    return num_texts(options_for(model, settings)) * text_macs(model.config, settings.text_tokens)


def with_steps_of(settings: Settings, num_calls: int) -> Settings:
    """Settings with the number of solver steps of a plan that has so many calls of the network."""
    return settings._replace(num_inference_steps=steps_of_calls(settings.solver, num_calls))


def plain_calls(model: FlexiDiT, settings: Settings) -> frozenset[int]:
    """Calls outside the interval of guidance."""
    if settings.guidance_interval is None:
        return frozenset()
    process = model.recipe.process
    times = call_times(process, settings.solver, settings.num_inference_steps, shift=settings.shift)
    return calls_outside(times, settings.guidance_interval)


def options_for(model: FlexiDiT, settings: Settings) -> list[Step]:
    """The steps that a schedule may be made of under these settings, the native one first."""
    options = step_options(model.config, guided=True, guide_mode=settings.guide_mode, modes=settings.modes)
    scales = [settings.guidance_scale, *[settings.weak_scale] * (len(options) - 1)]
    return [step if scale != 1 else step.plain for step, scale in zip(options, scales, strict=True)]


def guidance_from(model: FlexiDiT, settings: Settings) -> Guidance:
    """Kind and scales of guidance."""
    return Guidance(settings.guidance_scale, settings.guidance, settings.weak_guidance_scale, model.config.native)


def resized(model: FlexiDiT, settings: Settings, frames: int | None, height: int | None, width: int | None) -> Settings:
    """Settings with another number of frames, height or width, in pixels; ``None`` = as it was.

    ``ValueError`` if the codec has no latent of that size; the message names the nearest.
    """
    if frames is None and height is None and width is None:
        return settings
    now = video_size(model, settings)
    video = Size3(*(old if new is None else new for old, new in zip(now, (frames, height, width), strict=True)))
    if min(video) < 1:
        raise ValueError(f"got size {tuple(video)}; expected frames, height, width >= 1; change the size")
    codec = codec_of(model)
    size = Size3(*codec.latent_size(*video))
    num_frames = None if codec.video_size(*size)[0] == video.t else video.t
    return settings._replace(size=size, num_frames=num_frames).windowed(model.recipe.size).check()


def video_size(model: FlexiDiT, settings: Settings) -> Size3:
    """Frames, height and width of the videos in pixels."""
    size = Size3(*codec_of(model).video_size(*settings.size))
    return size if settings.num_frames is None else size._replace(t=min(size.t, settings.num_frames))


def label_numbers(model: FlexiDiT, names: Sequence[str] | None) -> list[int] | None:
    """Classes by name or number -> numbers. A name of the recipe goes before a number: "7" is the class of that name.

    ``ValueError`` if a word is neither.
    """
    if names is None:
        return None
    classes = list(model.recipe.class_names)
    wrong = [name for name in names if name not in classes and not name.isdecimal()]
    if wrong:
        choices = ", ".join(classes[:20]) or f"a number below {model.config.num_classes}"
        raise ValueError(f"got label {wrong[0]!r}; expected one of {choices}; change --label")
    return [classes.index(name) if name in classes else int(name) for name in names]


def labels_for(model: FlexiDiT, num_videos: int | None, labels: Sequence[int] | Tensor | None) -> Tensor:
    """Class of each video, int64 (n,): ``labels``, or else all classes, in turn. Without classes: the null class.

    ``ValueError`` if a label is out of range, or the number of videos is below 1.
    """
    classes = model.config.num_classes
    numbers = torch.as_tensor([] if labels is None else labels).flatten()
    requested = numbers.long()
    if len(requested) and not classes:
        raise ValueError(f"got labels {requested.tolist()}; expected none, the model has no classes; leave them out")
    if (numbers != requested).any() or (len(requested) and not 0 <= requested.min() <= requested.max() < classes):
        raise ValueError(
            f"got labels {numbers.tolist()}; expected whole numbers from 0 to {classes - 1}; choose among the classes"
        )
    count = num_videos if num_videos is not None else max(1, len(requested))
    if count < 1:
        raise ValueError(f"got {count} videos; expected at least 1; change num_videos")
    pool = requested if len(requested) else torch.arange(max(1, classes))
    return pool.repeat(-(-count // len(pool)))[:count]

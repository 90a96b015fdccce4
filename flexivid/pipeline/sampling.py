"""How to sample: settings with the recipe's defaults, what a budget allows under them, the class of each video."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.allowance import Allowance, step_options
from flexivid.budget.cost import macs
from flexivid.budget.planners import check_planner
from flexivid.budget.schedule import Step
from flexivid.budget.units import fraction_allowance, native_macs
from flexivid.diffusion.guidance import Guidance, calls_outside, check_kind
from flexivid.diffusion.solver import call_times, check_solver, num_calls, solvers_of, steps_of_calls
from flexivid.model.config import check_keys
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import Size3
from flexivid.pipeline.branches import PACKING
from flexivid.pipeline.checkpoint import process_of
from flexivid.pipeline.precision import PRECISIONS


@dataclass(frozen=True)
class Sampling:
    """How to sample. ``None`` = as the model's recipe says, else the default named here.

    Args:
        num_inference_steps: Solver steps (20). If they are given, every plan keeps them; otherwise a planner may take
            fewer or more, and a budget is a fraction of the cost of the recipe's.
        guidance_scale: Classifier-free guidance, 1 = none (1).
        weak_guidance_scale: The same for steps in weak modes; 1 = these steps are one call (``guidance_scale``).
        guide_mode: Patch mode of guidance's second branch; ``None`` = the step's own, or with weak and auto guidance
            the cheapest.
        guidance: What the second branch is: ``ordinary``, ``weak`` or ``auto``, see ``Guidance`` (``ordinary``; with a
            ``guide_mode`` ``weak``).
        guidance_interval: Times (low, high) between which there is guidance; elsewhere a step is one call (everywhere).
        compensate_guidance: Raise the scale for schedules below full compute, see ``compensated_scale``.
        solver: A solver that fits the process (the first of ``solvers_of``).
        shift: Time shift of flow processes: above 1, more steps at high noise (1).
        size: Latent size (t, h, w) (the size trained on).
        batch_size: Samples in one call of the native mode; coarser modes take more, as many tokens.
        packing: Both branches in one call: ``always``, ``never``, or ``auto`` where that is faster.
        precision: ``auto`` (bf16 where the device is fast in it), ``fp32``, ``bf16`` or ``fp16``.
        modes: Patch modes a budget may use; ``None`` = all.
        planner: Who chooses the schedule of a budget, see ``PLANNERS``; ``None`` = what was searched under these
            settings (``searched_fvd``, ``searched``), else ``staged``, or ``weak_first`` with a number of steps.
    """

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guide_mode: str | None = None
    solver: str | None = None
    shift: float | None = None
    size: tuple[int, int, int] | None = None
    batch_size: int = 16
    precision: str = "auto"
    modes: tuple[str, ...] | None = None
    planner: str | None = None
    guidance: str | None = None
    guidance_interval: tuple[float, float] | None = None
    compensate_guidance: bool = False
    packing: str = "auto"
    weak_guidance_scale: float | None = None

    def filled(self, model: FlexiDiT) -> Settings:
        """Every ``None`` replaced by the recipe's value or the default.

        Raises:
            ValueError: If a value is out of range, or no size is known.
        """
        recipe = model.recipe
        known = {"num_inference_steps": 20, "guidance_scale": 1.0, "shift": 1.0, **recipe.get("sampling", {})}
        known = {"solver": solvers_of(process_of(recipe))[0], "size": recipe.get("size"), **known}
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        values: dict[str, Any] = {key: known.get(key) if value is None else value for key, value in given.items()}
        if values["size"] is None:
            raise ValueError("got no size; expected (t, h, w) of the latent; pass size=, the model has no recipe")
        check_solver(process_of(recipe), values["solver"], values["num_inference_steps"])
        values["guidance"] = values["guidance"] or ("ordinary" if values["guide_mode"] is None else "weak")
        fixed = self.num_inference_steps is not None
        settings = Settings(**{**values, "size": Size3(*values["size"])}, fixed_steps=fixed).check()
        return self._with_guidance(settings, model)

    def _with_guidance(self, settings: Settings, model: FlexiDiT) -> Settings:
        """What guidance needs and was not said; what has no effect is warned of."""
        if settings.guidance != "ordinary" and settings.guide_mode is None:
            cheapest = min(model.config.modes, key=lambda mode: macs(model.config, settings.size, mode))
            settings = settings._replace(guide_mode=str(cheapest))
        settings = self._with_weak_scale(settings, model)
        if not model.config.num_classes and settings.guidance_scale != 1 and settings.guidance == "ordinary":
            if self.guidance_scale is not None:
                warnings.warn("guidance_scale has no effect: the model has no classes; using 1", stacklevel=3)
            settings = settings._replace(guidance_scale=1.0)  # both branches would be the same
        if settings.weak_scale == 1 == settings.guidance_scale and (
            self.guidance or self.guidance_interval or self.compensate_guidance
        ):
            warnings.warn("guidance settings have no effect: guidance_scale is 1, which is none", stacklevel=3)
        return settings

    def _with_weak_scale(self, settings: Settings, model: FlexiDiT) -> Settings:
        """``None`` where it is the scale of all steps anyway, so that what was measured with that is found."""
        if not model.config.num_classes and settings.guidance == "ordinary":
            if self.weak_guidance_scale not in (None, 1):
                warnings.warn("weak_guidance_scale has no effect: the model has no classes; using 1", stacklevel=4)
            return settings._replace(weak_guidance_scale=None)
        same = settings.weak_guidance_scale == settings.guidance_scale
        return settings._replace(weak_guidance_scale=None) if same else settings


class Settings(NamedTuple):
    """:class:`Sampling` with everything known; ``fixed_steps``: the number of steps was asked for."""

    num_inference_steps: int
    guidance_scale: float
    guide_mode: str | None
    solver: str
    shift: float
    size: Size3
    batch_size: int
    precision: str
    modes: tuple[str, ...] | None
    planner: str | None = None
    guidance: str = "ordinary"
    guidance_interval: tuple[float, float] | None = None
    compensate_guidance: bool = False
    packing: str = "auto"
    weak_guidance_scale: float | None = None
    fixed_steps: bool = False

    @property
    def weak_scale(self) -> float:
        """Guidance scale of steps in weak modes."""
        return self.guidance_scale if self.weak_guidance_scale is None else self.weak_guidance_scale

    def check(self) -> Settings:
        """Return itself.

        Raises:
            ValueError: If a value is out of range.
        """
        for key, low in (("guidance_scale", 1), ("weak_guidance_scale", 1), ("shift", 1e-3), ("batch_size", 1)):
            if getattr(self, key) is not None and getattr(self, key) < low:
                raise ValueError(f"got {key}={getattr(self, key)}; expected a number >= {low}; change {key}")
        if min(self.size) < 1:
            raise ValueError(f"got size {tuple(self.size)}; expected frames, height, width >= 1; change the size")
        if self.precision not in PRECISIONS:
            raise ValueError(f"got precision {self.precision!r}; expected one of {', '.join(PRECISIONS)}; choose one")
        if self.planner is not None:
            check_planner(self.planner)
        if self.packing not in PACKING:
            raise ValueError(f"got packing {self.packing!r}; expected one of {', '.join(PACKING)}; choose one")
        self._check_guidance()
        return self

    def _check_guidance(self) -> None:
        if check_kind(self.guidance) == "ordinary" and self.guide_mode is not None:
            raise ValueError(
                f"got guidance ordinary with guide_mode {self.guide_mode}; expected weak or auto, whose second branch"
                " has a mode of its own; leave one out"
            )
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high <= 1:
                raise ValueError(
                    f"got guidance_interval {low:g} to {high:g}; expected 0 <= low < high <= 1, times with 1 = noise;"
                    " change it"
                )


def settings_from(values: dict[str, Any]) -> Sampling:
    """Settings from keywords; an unknown one is an error that names the nearest field."""
    check_keys(values, [field.name for field in fields(Sampling)], what="sampling setting")
    return Sampling(**values)


def fraction_of(model: FlexiDiT, settings: Settings, budget: float | str, *, keep_steps: bool = True) -> Allowance:
    """What a fraction of the all-native compute, or a preset, allows one video; see ``fraction_allowance``."""
    choices = choices_for(model, settings)
    return fraction_allowance(budget, model.config, settings.size, **choices, keep_steps=keep_steps)


def full_macs(model: FlexiDiT, settings: Settings) -> int:
    """MACs of one video at full compute, see ``native_macs``."""
    calls, plain = num_calls(settings.solver, settings.num_inference_steps), plain_calls(model, settings)
    guided = settings.guidance_scale != 1
    return native_macs(model.config, settings.size, guided=guided, num_steps=calls, plain_calls=plain)


def with_steps_of(settings: Settings, num_calls: int) -> Settings:
    """Settings with the number of solver steps of a plan that has so many calls of the network."""
    return settings._replace(num_inference_steps=steps_of_calls(settings.solver, num_calls))


def choices_for(model: FlexiDiT, settings: Settings) -> dict[str, Any]:
    """What every allowance is told of the sampler: options, number of calls, and which of them have no guidance."""
    return {
        "options": options_for(model, settings),
        "num_steps": num_calls(settings.solver, settings.num_inference_steps),
        "plain_calls": plain_calls(model, settings),
    }


def plain_calls(model: FlexiDiT, settings: Settings) -> frozenset[int]:
    """Calls outside the interval of guidance."""
    if settings.guidance_interval is None:
        return frozenset()
    process = process_of(model.recipe)
    times = call_times(process, settings.solver, settings.num_inference_steps, shift=settings.shift)
    return calls_outside(times, settings.guidance_interval)


def options_for(model: FlexiDiT, settings: Settings) -> list[Step]:
    """What a step may be under these settings, the native option first."""
    options = step_options(model.config, guided=True, guide_mode=settings.guide_mode, modes=settings.modes)
    scales = [settings.guidance_scale, *[settings.weak_scale] * (len(options) - 1)]
    return [step if scale != 1 else step.plain for step, scale in zip(options, scales, strict=True)]


def guidance_from(model: FlexiDiT, settings: Settings) -> Guidance:
    """Kind and scales of guidance."""
    return Guidance(settings.guidance_scale, settings.guidance, settings.weak_guidance_scale, model.config.native)


def resized(settings: Settings, frames: int | None, height: int | None, width: int | None) -> Settings:
    """Settings with frames, height and width replaced where they are given."""
    t, h, w = settings.size
    size = Size3(t if frames is None else frames, h if height is None else height, w if width is None else width)
    return settings._replace(size=size).check()


def label_numbers(model: FlexiDiT, names: Sequence[str] | None) -> list[int] | None:
    """Classes by name or number -> numbers; names of the recipe come first, so that a class named 7 is meant by 7.

    Raises:
        ValueError: If a word is neither.
    """
    if names is None:
        return None
    known = list(model.recipe.get("class_names") or [])
    wrong = [name for name in names if name not in known and not name.isdigit()]
    if wrong:
        have = ", ".join(known[:20]) or f"a number below {model.config.num_classes}"
        raise ValueError(f"got label {wrong[0]!r}; expected one of {have}; change --label")
    return [known.index(name) if name in known else int(name) for name in names]


def labels_for(model: FlexiDiT, num_videos: int | None, labels: Sequence[int] | Tensor | None) -> Tensor:
    """Class of each video, int64 (n,); given ones are repeated in turn. Without classes: the null class.

    Raises:
        ValueError: If a label is out of range, or the number of videos is below 1.
    """
    classes = model.config.num_classes
    given = torch.as_tensor([] if labels is None else labels, dtype=torch.long).flatten()
    if len(given) and not classes:
        raise ValueError(f"got labels {given.tolist()}; expected none, the model has no classes; leave them out")
    if len(given) and not 0 <= int(given.min()) <= int(given.max()) < classes:
        raise ValueError(
            f"got labels {given.tolist()}; expected whole numbers from 0 to {classes - 1}; choose among the classes"
        )
    count = num_videos if num_videos is not None else max(1, len(given))
    if count < 1:
        raise ValueError(f"got {count} videos; expected at least 1; change num_videos")
    pool = given if len(given) else torch.arange(max(1, classes))
    return pool.repeat(-(-count // len(pool)))[:count]

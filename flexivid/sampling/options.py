"""The sampling options: each is one line of :class:`Sampling`, from which every program makes its flags.

Imports no torch, so that ``--help`` is fast: what checks a value against diffusion or a device is imported on use.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from jsonargparse import Namespace

from flexivid.budget.cost import macs
from flexivid.budget.schedule import Step, schedule_macs
from flexivid.diffusion.guidance import KINDS
from flexivid.patching.shapes import PatchMode, Size3

if TYPE_CHECKING:
    from flexivid.model.config import FlexiDiTConfig
    from flexivid.model.flexidit import FlexiDiT

PACKING = ("auto", "always", "never")
WINDOWS = ("auto", "none")
PLANNERS = ("staged", "weak_first", "searched", "adaptive", "three_phase", "searched_fvd", "fewer_steps", "spectral")

NEWER = ("frame_guidance", "num_frames", "text_tokens", "window_frames")  # settings without which others were stored
NO_CONDITION = "the model has no classes and no text"
# settings that sampling must have as a measurement had them, beside those that are named only where they are set
MEASURED_UNDER = ("num_inference_steps", "guidance_scale", "guide_mode", "solver", "shift", "guidance")


def _option(default: Any, words: str) -> Any:
    """A field that programs have as a flag; ``words`` are its help."""
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True)
class Sampling:
    """How to sample. ``None`` = as the model's recipe says, else the default that the help of the option names.

    If ``num_inference_steps`` is given, every plan has as many solver steps, unless a planner is named that chooses the
    number itself (``staged``, ``fewer_steps``, ``spectral``, ``searched_fvd``), and a budget is a fraction of the cost
    of as many native steps. Otherwise plans may have fewer or more than the recipe's, of whose cost a budget is a
    fraction. Without ``planner``, what was searched under these settings goes first, then ``staged``, or ``weak_first``
    with a number of steps. Guidance: see ``diffusion.guidance``.

    Example:
        >>> Sampling(num_inference_steps=10, guidance_scale=2.0).batch_size
        16
    """

    num_inference_steps: int | None = _option(None, "solver steps (default: as the model says, else 20)")
    guidance_scale: float | None = _option(None, "classifier-free guidance, 1 = none (default: as the model says)")
    guide_mode: str | None = _option(None, "weak guidance: patch mode of the second branch (default: the step's own)")
    solver: str | None = _option(None, "euler, heun, unipc, dpm++ (flow); ddim, ddpm, unipc, dpm++ (DDPM)")
    shift: float | None = _option(None, "time shift of flow models; above 1 more steps at high noise")
    size: tuple[int, int, int] | None = None  # of the latent; no flag, for programs ask for frames and pixels
    batch_size: int = _option(16, "videos in one call of the native mode; coarser ones take more")
    precision: str = _option("auto", "auto, fp32, bf16 or fp16")
    modes: tuple[str, ...] | None = _option(None, "patch modes a budget may use (default: all the model has)")
    planner: str | None = _option(None, f"{', '.join(PLANNERS)} (default: what was searched, else staged)")
    guidance: str | None = _option(None, "kind: ordinary, weak or auto (default: ordinary; weak with --guide-mode)")
    guidance_interval: tuple[float, float] | None = _option(None, "times with guidance, 1 = noise (default: 0 1)")
    compensate_guidance: bool = _option(False, "a little more guidance for less compute (default: off)")
    packing: str = _option("auto", "both branches in one call: auto, always or never")
    weak_guidance_scale: float | None = _option(
        None, "guidance of steps in weak modes, 1 = none (default: as the model says, or as all)"
    )
    frame_guidance: bool = _option(False, "guidance towards given frames too (default: towards class and text alone)")
    window: str = _option("auto", "longer videos than trained: auto = in overlapping windows, none = as they are")

    def filled(self, model: FlexiDiT) -> Settings:
        """Every ``None`` replaced by the recipe's value or the default.

        ``ValueError`` if a value is out of range, or no size is known.
        """
        from flexivid.diffusion.solver import check_solver, solvers_of

        recipe = model.recipe
        process, solver = recipe.process, recipe.sampling.solver or solvers_of(recipe.process)[0]
        defaults: dict[str, Any] = {**asdict(recipe.sampling), "solver": solver, "size": recipe.size}
        if self.guidance_scale is not None:  # asked for in all steps
            defaults["weak_guidance_scale"] = None
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {name: defaults.get(name) for name, value in values.items() if value is None}
        if values["size"] is None:
            raise ValueError("got no size; expected (t, h, w) of the latent; pass size=, the model's recipe has none")
        check_solver(process, values["solver"], values["num_inference_steps"])
        if self.shift not in (None, defaults["shift"]) and process.path != "flow":
            warnings.warn(f"shift has no effect on a {process.path} process, only on flow", stacklevel=2)
            values["shift"] = defaults["shift"]
        values["size"] = Size3(*values["size"])
        values["guidance"] = values["guidance"] or ("ordinary" if values["guide_mode"] is None else "weak")
        is_as_trained = values["size"] == recipe.size and recipe.codec.source != "pixel"
        num_frames = recipe.num_frames if is_as_trained else None
        settings = Settings(**values, fixed_steps=self.num_inference_steps is not None, num_frames=num_frames).check()
        return self._with_guidance(settings.windowed(recipe.size), model)

    def _with_guidance(self, settings: Settings, model: FlexiDiT) -> Settings:
        """Fill in the guide mode of weak and auto guidance; warn of settings of guidance that have no effect."""
        if settings.guidance != "ordinary" and settings.guide_mode is None:
            cheapest = min(model.config.modes, key=lambda mode: macs(model.config, settings.call_size, mode))
            settings = settings._replace(guide_mode=str(cheapest))
        settings = self._with_weak_scale(settings, model)
        branches_differ = settings.guidance != "ordinary" or self._has_condition(model)
        if not branches_differ and settings.guidance_scale != 1:
            if self.guidance_scale is not None:
                warnings.warn(f"guidance_scale has no effect: {NO_CONDITION}; using 1", stacklevel=3)
            settings = settings._replace(guidance_scale=1.0)  # both branches would be the same
        if settings.frame_guidance and not model.config.given_frames:
            warnings.warn("frame_guidance has no effect: the model takes no given frames", stacklevel=3)
        is_without = settings.weak_scale == 1 == settings.guidance_scale
        if is_without and (self.guidance or self.guidance_interval or self.compensate_guidance):
            warnings.warn("guidance settings have no effect: guidance_scale is 1, which is none", stacklevel=3)
        return settings

    def _with_weak_scale(self, settings: Settings, model: FlexiDiT) -> Settings:
        """Drop a weak scale that equals the scale of all steps, so that tables measured without one are found."""
        if settings.guidance == "ordinary" and not self._has_condition(model):
            if self.weak_guidance_scale not in (None, 1):
                warnings.warn(f"weak_guidance_scale has no effect: {NO_CONDITION}; using 1", stacklevel=4)
            return settings._replace(weak_guidance_scale=None)
        same = settings.weak_guidance_scale == settings.guidance_scale
        return settings._replace(weak_guidance_scale=None) if same else settings

    def _has_condition(self, model: FlexiDiT) -> bool:
        """Whether there is something that guidance could leave out."""
        config = model.config
        return bool(config.num_classes or config.text_channels or (self.frame_guidance and config.given_frames))


@dataclass(frozen=True, kw_only=True)
class Settings(Sampling):
    """:class:`Sampling` without a ``None`` that a sampler could not do without; made by ``Sampling.filled``."""

    num_inference_steps: int
    guidance_scale: float
    solver: str
    shift: float
    size: Size3
    guidance: str
    fixed_steps: bool = False  # whether the number of steps was asked for
    num_frames: int | None = None  # frames of a video; ``None`` = as many as the latent decodes to
    text_tokens: int = 0  # tokens of each text, padding included; 0 without text
    window_frames: int | None = None  # latent frames of a window; ``None`` = the network sees a video at once

    @property
    def call_size(self) -> Size3:
        """Latent size that the network sees in a call."""
        return self.size if self.window_frames is None else self.size._replace(t=self.window_frames)

    @property
    def window_starts(self) -> list[int]:
        """First latent frame of each window; neighbours overlap by half, the last two by more where they must."""
        last, step = self.size.t - self.call_size.t, max(1, self.call_size.t // 2)
        return [min(start, last) for start in range(0, last + step, step)]

    def windowed(self, trained: Size3 | None) -> Settings:
        """The same with windows as long as the videos trained on, if those of the settings are longer."""
        is_longer = trained is not None and self.window == "auto" and self.size.t > trained.t
        return self._replace(window_frames=trained.t if trained is not None and is_longer else None)

    def call_macs(self, config: FlexiDiTConfig, mode: str | PatchMode | None = None) -> int:
        """MACs of one step of one video in a mode, without guidance."""
        return len(self.window_starts) * macs(config, self.call_size, mode, text_tokens=self.text_tokens)

    def schedule_macs(self, config: FlexiDiTConfig, schedule: Sequence[Step]) -> int:
        """MACs of one video under a schedule, its texts included."""
        windows, tokens = len(self.window_starts), self.text_tokens
        return schedule_macs(schedule, config, self.call_size, text_tokens=tokens, windows=windows)

    @property
    def weak_scale(self) -> float:
        """Guidance scale of steps in weak modes."""
        return self.guidance_scale if self.weak_guidance_scale is None else self.weak_guidance_scale

    def _replace(self, **changes: Any) -> Settings:
        """The same with other values, as of a named tuple."""
        return replace(self, **changes)

    def _asdict(self) -> dict[str, Any]:
        """Names and values in order, as of a named tuple; newer ones are left out where they change nothing."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "window"}  # window_frames tells it
        return {name: value for name, value in values.items() if name not in NEWER or value not in (None, 0)}

    def check(self) -> Settings:
        """Return itself; ``ValueError`` if a value is out of range."""
        from flexivid.runtime.device import PRECISIONS

        for key, low in (("guidance_scale", 1), ("weak_guidance_scale", 1), ("shift", 1e-3), ("batch_size", 1)):
            value = getattr(self, key)
            if value is not None and not low <= value < math.inf:
                raise ValueError(f"got {key}={value}; expected a number >= {low}; change {key}")
        if min(self.size) < 1:
            raise ValueError(f"got size {tuple(self.size)}; expected frames, height, width >= 1; change the size")
        choices_of = {"precision": PRECISIONS, "packing": PACKING, "planner": PLANNERS, "guidance": KINDS}
        choices_of["window"] = WINDOWS
        for key, choices in choices_of.items():
            value = getattr(self, key)
            if value is not None and value not in choices:
                raise ValueError(f"got {key} {value!r}; expected one of {', '.join(choices)}; choose one")
        if self.guidance == "ordinary" and self.guide_mode is not None:
            raise ValueError(
                f"got guidance ordinary with guide_mode {self.guide_mode}; expected weak or auto, whose second branch"
                " has a mode of its own; leave one out"
            )
        low, high = self.guidance_interval or (0, 1)
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"got guidance_interval {low:g} to {high:g}; expected 0 <= low < high <= 1, times with 1 = noise;"
                " change it"
            )
        return self


OPTIONS = tuple(f.name for f in fields(Sampling) if f.metadata)


def add_sampling(add: Callable[..., Any], **changes: dict[str, Any]) -> None:
    """Add a flag for each option; ``changes`` are keywords of ``add_argument`` that differ in a program, by option.

    Example:
        >>> from jsonargparse import ArgumentParser
        >>> parser = ArgumentParser()
        >>> add_sampling(parser.add_argument)
        >>> parser.parse_args(["--guidance_interval", "0.2", "0.8"]).guidance_interval
        [0.2, 0.8]
    """
    types = get_type_hints(Sampling)
    for f in fields(Sampling):
        if f.metadata:
            keywords = {**_keywords(types[f.name], f.default), **f.metadata, **changes.get(f.name, {})}
            add(f"--{f.name}", **keywords)


def _keywords(kind: Any, default: Any) -> dict[str, Any]:
    """How a parser reads values of a type, an optional one as the type itself."""
    if kind is bool:
        return {"action": "store_true"}
    (kind,) = [part for part in get_args(kind) if part is not type(None)] or [kind]
    if get_origin(kind) is tuple:
        number = get_args(kind)
        return {"type": number[0], "nargs": "+" if ... in number else len(number)}
    return {"type": kind, "default": default}


def sampling_options(options: Namespace) -> dict[str, Any]:
    """The options that are sampling settings, by their names; what is not set is ``None``."""
    values = {name: getattr(options, name) for name in OPTIONS}
    return {name: (tuple(value) or None) if isinstance(value, list) else value for name, value in values.items()}

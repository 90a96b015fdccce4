"""The recipe of a model: what a sampler must know and the network does not. Stored beside the weights as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from reprlib import repr as shortened
from typing import Any

from flexivid.budget.spectral import Spectrum
from flexivid.diffusion.process import PATHS, TARGETS, Process
from flexivid.latents.settings import CodecSettings, TextSettings, codec_settings, text_settings
from flexivid.patching.shapes import Size3, whole_number
from flexivid.runtime.errors import check_keys


@dataclass(frozen=True)
class SamplingDefaults:
    """How a model is sampled unless the caller says otherwise.

    Args:
        num_inference_steps: Solver steps.
        guidance_scale: Classifier-free guidance, 1 = none.
        solver: Solver that fits the path; ``None`` = the first of ``solvers_of``.
        shift: Time shift of flow paths.
        weak_guidance_scale: Guidance of the steps in weak modes, 1 = none; ``None`` = ``guidance_scale``.
    """

    num_inference_steps: int = 20
    guidance_scale: float = 1.0
    solver: str | None = None
    shift: float = 1.0
    weak_guidance_scale: float | None = None


@dataclass(frozen=True)
class Recipe:
    """What a sampler must know beside the network. Fields also take the plain data that ``to_dict`` writes.

    Raises:
        ValueError: If a field is of another type or out of range; the message names it.

    Example:
        >>> recipe = Recipe(process={"path": "cosine", "target": "noise"}, size=[8, 32, 32])
        >>> recipe.process.target, recipe.size.volume, recipe.sampling.num_inference_steps
        ('noise', 8192, 20)
    """

    process: Process = field(default_factory=Process)  # noising path and target of the network
    codec: CodecSettings = field(default_factory=CodecSettings)  # between videos and latents; or its source alone
    size: Size3 | None = None  # latent size (t, h, w) trained on; None = unknown
    fps: float = 8.0  # frames a second of the videos trained on, > 0
    class_names: tuple[str, ...] = ()  # in the order of the labels; empty without classes
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    global_step: int | None = None  # optimizer steps of the training; None = unknown
    step_floor: int | None = None  # fewest native steps that are as good as many; None = not measured
    spectrum: Spectrum | None = None  # power spectrum of the training data; None = not measured
    codec_fingerprint: str | None = None  # tells its latents from those of another codec; None = unknown
    text_encoder: TextSettings | None = None  # of the captions; or its source alone; None = the model reads no text
    text_fingerprint: str | None = None  # tells its features from those of another encoder; None = unknown
    num_frames: int | None = None  # frames of the videos trained on; None = as many as the latent decodes to

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, (read, expected) = getattr(self, entry.name), _READERS[entry.name]
            if value is None and entry.default is None:
                continue
            try:
                object.__setattr__(self, entry.name, read(value))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"got a recipe with {entry.name}={shortened(value)}; expected {expected}; correct the recipe, in"
                    " config.json if it is there, or export the model again"
                ) from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Read the plain data of ``config.json`` or a checkpoint; entries that older files lack get their defaults.

        ``ValueError`` if an entry is unknown or of another type; the message names the nearest one.

        Example:
            >>> Recipe.from_dict({"fps": 16, "class_names": ["cat", "dog"]}).class_names
            ('cat', 'dog')
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"got a recipe that is {shortened(values)}; expected names and values; export it again")
        check_keys(values, list(_READERS), what="recipe entry")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON and checkpoints, without what is ``None``."""
        plain = {
            **{name: getattr(self, name) for name in _PLAIN},
            "codec": self.codec.to_plain() if len(self.codec.to_plain()) > 1 else self.codec.source,
            "text_encoder": None if self.text_encoder is None else self.text_encoder.to_plain(),
            "process": self.process._asdict(),
            "size": None if self.size is None else list(self.size),
            "class_names": list(self.class_names),
            "sampling": {name: value for name, value in asdict(self.sampling).items() if value is not None},
            "spectrum": None if self.spectrum is None else self.spectrum.to_plain(),
        }
        return {name: value for name, value in plain.items() if value is not None}


def _checked(read: Callable[[Any], Any], is_right: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """A reader that refuses what ``read`` gives unless it is right."""

    def checked(value: Any) -> Any:
        result = read(value)
        if not is_right(result):
            raise ValueError(value)
        return result

    return checked


def _float(value: Any) -> float:
    return math.nan if isinstance(value, (bool, str)) else float(value)


_text = _checked(lambda value: value, lambda value: isinstance(value, str))
_count = _checked(whole_number, lambda number: number is not None and number >= 0)
_positive_count = _checked(_count, bool)
_number = _checked(_float, math.isfinite)
_positive = _checked(_number, lambda number: number > 0)
_size = _checked(lambda value: Size3(*map(_count, value)), all)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, Mapping)):
        raise TypeError(value)
    return tuple(map(_text, value))


def _sampling(value: Any) -> SamplingDefaults:
    defaults = value if isinstance(value, SamplingDefaults) else SamplingDefaults(**value)
    return SamplingDefaults(
        _count(defaults.num_inference_steps),
        _number(defaults.guidance_scale),
        None if defaults.solver is None else _text(defaults.solver),
        _positive(defaults.shift),
        None if defaults.weak_guidance_scale is None else _number(defaults.weak_guidance_scale),
    )


_PLAIN = ("codec_fingerprint", "text_fingerprint", "num_frames", "fps", "global_step", "step_floor")  # JSON has these
_READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "process": (
        lambda value: (Process(**value) if isinstance(value, Mapping) else Process(*value)).check(),
        f"a path ({', '.join(PATHS)}) and a target ({', '.join(TARGETS)})",
    ),
    "codec": (codec_settings, "the source of a codec, or its settings"),
    "size": (_size, "three whole numbers (t, h, w) above 0"),
    "fps": (_positive, "a number above 0"),
    "class_names": (_names, "a list of names"),
    "sampling": (_sampling, "num_inference_steps, guidance_scale, solver, shift and weak_guidance_scale"),
    "global_step": (_count, "a whole number"),
    "step_floor": (_count, "a whole number"),
    "spectrum": (
        lambda value: value if isinstance(value, Spectrum) else Spectrum.from_plain(value),
        "power (t, h, w), deviation and clips",
    ),
    "codec_fingerprint": (_text, "a text"),
    "text_encoder": (text_settings, "the source of a text encoder, or its settings"),
    "text_fingerprint": (_text, "a text"),
    "num_frames": (_positive_count, "a whole number above 0"),
}

"""What a FlexiDiT is, as plain data. No torch: a budget can be planned from it on any machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import dropwhile
from typing import Any, Literal, get_args, get_origin, get_type_hints

from flexivid.patching.shapes import PatchMode, axis_split, shrinks_far, underlying_patch, whole_number
from flexivid.runtime.errors import check_keys

PRESETS: dict[str, dict[str, int]] = {  # as in DiT (2212.09748, table 1), and two for laptops
    "nano": {"width": 128, "depth": 4, "num_heads": 2},
    "tiny": {"width": 256, "depth": 6, "num_heads": 2},  # two wide heads: the softmax is what bounds it on a CPU
    "S": {"width": 384, "depth": 12, "num_heads": 6},
    "B": {"width": 768, "depth": 12, "num_heads": 12},
    "L": {"width": 1024, "depth": 24, "num_heads": 16},
    "XL": {"width": 1152, "depth": 28, "num_heads": 16},
}

PATHS, TARGETS = ("flow", "cosine", "linear"), ("x0", "velocity", "noise")  # as of diffusion.process
ABSENT = {"num_classes": "classes", "text_channels": "text"}  # what 0 of a field means


@dataclass(frozen=True)
class FlexiDiTConfig:
    """Shape of a FlexiDiT.

    Args:
        width: Token width d; a multiple of ``num_heads``.
        depth: Number of blocks.
        num_heads: Attention heads; ``width / num_heads`` is even and >= 6.
        in_channels: Channels of the latent (3 for pixels).
        modes: Patch modes, as text or :class:`PatchMode`; the first one is native.
        num_classes: Classes of the condition, 0 or ``None`` for none. The null class comes on top.
        mlp_ratio: Hidden width of the feed-forward over ``width``.
        out_channels: Channels of the output; ``None`` = ``in_channels``.
        attention: ``joint`` over space and time, or ``factorised``: spatial and temporal blocks in turn (Latte).
        attention_backend: ``sdpa`` or ``xformers`` (falls back to sdpa where xformers has no operator).
        gradient_checkpointing: Recompute blocks in the backward pass instead of keeping their activations.
        resize: How embedding weights come to sides below half of the largest one: ``area``, or ``bilinear`` as in
            models saved before there was a choice. Without such sides it makes no difference and reads ``area``.
        output_conv: Add a small convolution over the output, which can smooth the borders between patches. It costs the
            same in all modes, so large patches become dearer.
        text_channels: Features of the text encoder whose texts the network attends to in every block; 0 = no text.
        given_frames: Show the network given frames (first, last, any) and a mask, in more input channels.
        positions: ``rotary`` in every block; or ``sinusoids`` added to the tokens once: of columns and rows as in DiT,
            of frames before the second block where attention is factorised (Latte), at once otherwise.
        position_span: Rows and columns of tokens that sinusoids are stretched to, whatever the size (DiT); 0 = they
            count native tokens.
        time_embedding: ``continuous`` = 1000 x time; ``ddpm`` = timesteps 0 to 999, as DiT and Latte have them;
            ``ddpm_shifted`` = likewise, with the frequencies that diffusers' DiT has.
        modulation: ``block`` = a layer in every block; ``single`` = one for all, and a table in each (PixArt, Latte).
        block_conditioning: Each block embeds time and class by itself, as diffusers' DiT may.
        qk_norm: Norms of queries and keys.
        attention_bias: Biases of queries, keys and values.
        activation: Of the feed-forward: ``gelu``, or ``gelu_tanh``, its approximation.
        cross_attention: ``normed`` = in every block, with norms and a null token before every text; ``plain`` = without
            these, in spatial blocks only where attention is factorised, as Latte's.
        attention_eps: Of the norm before self-attention.
        mlp_eps: Of the norm before the feed-forward.
        weak_detail: Path and target of a process, as ``linear noise``: weak modes add to their output what the process
            says of the detail that large patches cannot hold, most of which is noise. So a network that predicts
            noise or velocity can gain modes. ``none`` = they do not.

    Raises:
        ValueError: If the numbers do not fit together, or a field is of another type; the message names it. Numbers and
            truth values may be numpy's.

    Example:
        >>> config = FlexiDiTConfig.preset("XL", in_channels=4, modes=["1x2x2", "1x4x4"], num_classes=1000)
        >>> config.width, config.native
        (1152, PatchMode('1x2x2'))
    """

    width: int = 256
    depth: int = 6
    num_heads: int = 2
    in_channels: int = 3
    modes: tuple[str | PatchMode, ...] = ("1x2x2", "2x2x2", "1x4x4", "2x4x4")
    num_classes: int = 0
    mlp_ratio: float = 4.0
    out_channels: int | None = None
    attention: Literal["joint", "factorised"] = "joint"
    attention_backend: Literal["sdpa", "xformers"] = "sdpa"
    gradient_checkpointing: bool = False
    resize: Literal["area", "bilinear"] = "area"  # the fields from here on are newer than some stored models
    output_conv: bool = False
    text_channels: int = 0
    given_frames: bool = False
    positions: Literal["rotary", "sinusoids"] = "rotary"
    position_span: float = 0.0
    time_embedding: Literal["continuous", "ddpm", "ddpm_shifted"] = "continuous"
    modulation: Literal["block", "single"] = "block"
    block_conditioning: bool = False
    qk_norm: bool = True
    attention_bias: bool = False
    activation: Literal["gelu", "gelu_tanh"] = "gelu"
    cross_attention: Literal["normed", "plain"] = "normed"
    attention_eps: float = 1e-6
    mlp_eps: float = 1e-6
    weak_detail: str = "none"

    def __post_init__(self) -> None:
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        values["modes"] = _modes(values["modes"])
        defaults = {"num_classes": 0, "out_channels": values["in_channels"]}
        values |= {name: default for name, default in defaults.items() if values[name] is None}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()
        if not self._shrinks_far:
            object.__setattr__(self, "resize", "area")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> FlexiDiTConfig:
        """A named size: ``tiny``, ``S``, ``B``, ``L`` or ``XL``, with any field changed."""
        if name not in PRESETS:
            raise ValueError(f"got preset {name!r}; expected one of {', '.join(PRESETS)}; choose one of these")
        return cls(**{**PRESETS[name], **changes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FlexiDiTConfig:
        """Build from plain data, as in ``config.json``; an unknown key is an error that names the nearest field.

        Fields that did not exist when the data were written mean what networks did then.

        Example:
            >>> FlexiDiTConfig.from_dict({"modes": ["1x2x2", "1x8x8"]}).resize, FlexiDiTConfig().resize
            ('bilinear', 'area')
        """
        check_keys(values, [field.name for field in fields(cls)], what="model setting")
        return cls(**{**OLDER_VALUES, **values})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``config.json``; modes as text. Newer fields are left out where they change nothing."""
        values = {**asdict(self), "modes": [str(mode) for mode in self.modes]}
        if not self._shrinks_far:
            values["resize"] = OLDER_VALUES["resize"]
        return {
            name: value for name, value in values.items() if name not in OLDER_VALUES or value != OLDER_VALUES[name]
        }

    @property
    def native(self) -> PatchMode:
        """The first mode: the paper's powerful one."""
        return self.modes[0]  # type: ignore[return-value]

    @property
    def head_dim(self) -> int:
        """Width of a head, e."""
        return self.width // self.num_heads

    @property
    def embedded_channels(self) -> int:
        """Channels that the patch embedding reads: the noisy latent, the given frames and their mask."""
        return 2 * self.in_channels + 1 if self.given_frames else self.in_channels

    @property
    def hidden(self) -> int:
        return int(self.width * self.mlp_ratio)

    def mode(self, mode: str | PatchMode | None) -> PatchMode:
        """Resolve a mode as users name it, ``None`` = ``native``; a mode that the model lacks is a ``ValueError``."""
        chosen = self.native if mode is None or mode == "native" else PatchMode(mode)
        if chosen not in self.modes:
            have = ", ".join(map(str, self.modes))
            raise ValueError(f"got mode {chosen}; expected one the model has ({have}); choose one or retrain with it")
        return chosen

    @property
    def _shrinks_far(self) -> bool:
        """Whether a mode has a side below half of the largest one."""
        modes: tuple[PatchMode, ...] = self.modes  # type: ignore[assignment]
        largest = underlying_patch(modes)
        return any(shrinks_far(old, new) for mode in modes for old, new in zip(largest, mode, strict=True))

    def _check(self) -> None:
        for name in ("width", "depth", "num_heads", "in_channels", "out_channels", *ABSENT):
            value, least = whole_number(getattr(self, name)), int(name not in ABSENT)
            if value is None or value < least:
                none = f"; use 0 for no {ABSENT[name]}" if name in ABSENT else f"; change {name}"
                raise ValueError(f"got {name}={getattr(self, name)!r}; expected a whole number >= {least}{none}")
        self._check_types()
        if not self.modes or len(set(self.modes)) != len(self.modes):
            have = ", ".join(map(str, self.modes)) or "none"
            raise ValueError(f"got modes {have}; expected at least one and none twice; change modes")
        if self.width % self.num_heads:
            raise ValueError(
                f"got width={self.width} and num_heads={self.num_heads}; expected a width that is a multiple of"
                " num_heads; change one of them"
            )
        if self.hidden < 1:
            raise ValueError(f"got mlp_ratio={self.mlp_ratio}; expected mlp_ratio x width >= 1; change mlp_ratio")
        if self.positions == "rotary":
            axis_split(self.head_dim)
        elif self.width % 4:
            raise ValueError(f"got width={self.width} with sinusoids; expected a multiple of 4; change width")
        if self.modulation == "single" and self.block_conditioning:
            raise ValueError(
                "got modulation=single with block_conditioning; expected one conditioning where blocks share a"
                " modulation; set block_conditioning to False"
            )

    def _check_types(self) -> None:
        """Fields that are no whole numbers."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                raise ValueError(f"got {name}={value!r}; expected {' or '.join(choices)}; choose one")
        for field in fields(self):
            value, name = getattr(self, field.name), field.name
            if field.type == "bool" and not isinstance(value, bool):
                raise ValueError(f"got {name}={value!r}; expected True or False; change {name}")
            if field.type == "float" and not _is_number(value):
                raise ValueError(f"got {name}={value!r}; expected a finite number; change {name}")
        for name in ("position_span", "attention_eps", "mlp_eps"):
            if getattr(self, name) < 0:
                raise ValueError(f"got {name}={getattr(self, name)}; expected a number >= 0; change {name}")


CHOICES = {name: get_args(hint) for name, hint in get_type_hints(FlexiDiTConfig).items() if get_origin(hint) is Literal}
CHOICES["weak_detail"] = ("none", *(f"{path} {target}" for path in PATHS for target in TARGETS))
OLDER_VALUES: dict[str, Any] = {  # what configs mean that were written before a field was there
    field.name: field.default for field in dropwhile(lambda field: field.name != "resize", fields(FlexiDiTConfig))
} | {"resize": "bilinear"}


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """A number or truth value of numpy or torch as Python's; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _modes(modes: Any) -> tuple[PatchMode, ...]:
    if isinstance(modes, str) or not isinstance(modes, Iterable):
        modes = (modes,)
    return tuple(PatchMode(mode) for mode in modes)

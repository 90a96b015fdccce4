"""What the network is told beside the latent: time, class, mode as one vector, text as keys and values, given frames.

Text shapes: l tokens, f features of the encoder, k heads, e head dim. Keys and values do not depend on the time or the
patch mode, so a sampler computes them once a sample (``FlexiDiT.prepare``), not once a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME_FEATURES = 256  # as in DiT
TIME_SCALE = 1000.0  # times in [0, 1] reach the sinusoids as the customary 0..1000


class Text(NamedTuple):
    """Captions, one a sample, as features of a text encoder."""

    features: Tensor  # (b, l, f)
    mask: Tensor | None = None  # bool (b, l), False for padding; a sample without any token has the null text


class TextKeys(NamedTuple):
    """Captions as keys and values of the network's blocks."""

    pooled: Tensor  # mean of the caption, which adds to the time, (b, d)
    keys: tuple[Tensor, ...]  # one for each block that attends to text, (b, l + 1, k, e)
    values: tuple[Tensor, ...]  # likewise
    mask: Tensor  # True for tokens that may be attended to, bool (b, l + 1)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Keys, values and mask of each block that attends to text, in order."""
        return ((keys, values, self.mask) for keys, values in zip(self.keys, self.values, strict=True))


def join_texts(texts: Sequence[TextKeys]) -> TextKeys:
    """Several batches as one; shorter texts are padded with tokens that nobody attends to."""
    longest = max(text.mask.shape[1] for text in texts)
    padded = [_pad(text, longest - text.mask.shape[1]) for text in texts]
    return TextKeys(
        torch.cat([text.pooled for text in padded]),
        tuple(torch.cat(keys) for keys in zip(*(text.keys for text in padded), strict=True)),
        tuple(torch.cat(values) for values in zip(*(text.values for text in padded), strict=True)),
        torch.cat([text.mask for text in padded]),
    )


def _pad(text: TextKeys, count: int) -> TextKeys:
    if not count:
        return text
    keys, values = (tuple(F.pad(x, (0, 0, 0, 0, 0, count)) for x in part) for part in (text.keys, text.values))
    return TextKeys(text.pooled, keys, values, F.pad(text.mask, (0, count)))


class TextProjection(nn.Module):
    """Features of the encoder (f = ``channels``) -> tokens of the network's width.

    A learned null token stands before every caption and is always attended to: without a caption it is seen alone. With
    ``plain``, as in PixArt and Latte, it is seen only where a sample has no caption; there is no norm, and GELU is the
    tanh form.
    """

    def __init__(self, channels: int, width: int, *, plain: bool = False) -> None:
        super().__init__()
        self.channels, self.plain = channels, plain
        # encoders differ in scale by orders of magnitude
        self.norm = nn.Identity() if plain else nn.LayerNorm(channels, bias=False)
        self.project_in = nn.Linear(channels, width)
        self.project_out = nn.Linear(width, width)
        self.null = nn.Parameter(torch.randn(width))
        for linear in (self.project_in, self.project_out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, text: Text | None, batch: int) -> tuple[Tensor, Tensor]:
        """-> tokens (b, l + 1, d) and their mask, bool (b, l + 1); ``ValueError`` if features or mask do not fit."""
        null = self.null.expand(batch, 1, -1)  # b 1 d
        seen = torch.ones(batch, 1, dtype=torch.bool, device=self.null.device)
        if text is None:
            return null, seen
        features, mask = text
        if features.ndim != 3 or len(features) != batch or features.shape[2] != self.channels:
            raise ValueError(
                f"got text features of shape {tuple(features.shape)}; expected ({batch}, l, {self.channels});"
                " encode one text a sample with the encoder of the training"
            )
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        elif mask.shape != features.shape[:2]:
            raise ValueError(
                f"got a text mask of shape {tuple(mask.shape)}; expected {tuple(features.shape[:2])}; give one value"
                " a token"
            )
        features = features.masked_fill(~mask[..., None].bool(), 0)  # padding may hold anything, NaN included
        hidden = self.project_in(self.norm(features.to(self.project_in.weight.dtype)))
        tokens = self.project_out(F.gelu(hidden, approximate="tanh" if self.plain else "none"))  # b l d
        seen = ~mask.bool().any(1, keepdim=True) if self.plain else seen
        return torch.cat((null.to(tokens.dtype), tokens), dim=1), torch.cat((seen, mask.bool()), dim=1)


def pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of the captions, without the null token; 0 where there are none: (b, l + 1, d) -> (b, d)."""
    weight = mask[:, 1:, None].to(tokens.dtype)
    return (tokens[:, 1:] * weight).sum(1) / weight.sum(1).clamp_min(1)


class Frames(NamedTuple):
    """Frames of the video that are given."""

    latent: Tensor  # clean, (b, c, t, h, w); counts where the mask is 1
    mask: Tensor  # 1 for given cells, 0 elsewhere, (b, 1, t, h, w)

    def channels(self) -> Tensor:
        """What stands beside the noisy latent: (b, c + 1, t, h, w)."""
        return torch.cat((torch.where(self.mask > 0, self.latent, 0), self.mask.to(self.latent.dtype)), dim=1)


class Condition(NamedTuple):
    """What samples should show: classes, captions, given frames.

    Args:
        label: Classes, int64 (b,); the value ``num_classes`` is the null class. ``None`` = null class for all.
        text: Captions, as features of a text encoder or as the network has read them; ``None`` = null text for all.
        frames: Given frames; ``None`` = none.

    Example:
        >>> Condition(label=torch.tensor([3, 8])).label.tolist()
        [3, 8]
    """

    label: Tensor | None = None
    text: Text | TextKeys | None = None
    frames: Frames | None = None

    def split(self, samples: int, shares: int) -> list[Condition]:
        """Equal shares of a batch, in order."""
        return _split(self, samples, shares)


def _split(batch: Any, samples: int, shares: int) -> list[Any]:
    """Shares of a tensor, of ``None``, or of tuples of these."""
    if batch is None or isinstance(batch, Tensor):
        return [None] * shares if batch is None else list(batch.split(samples))
    parts = zip(*(_split(part, samples, shares) for part in batch), strict=True)
    return [batch._make(part) if hasattr(batch, "_make") else part for part in parts]


def time_features(time: Tensor, embedding: str = "continuous") -> Tensor:
    """Sinusoids of the time, (b,) in [0, 1] -> float32 (b, 256), as in DDPM (arXiv:2006.11239) and DiT.

    ``embedding`` is that of ``FlexiDiTConfig.time_embedding``.
    """
    half = TIME_FEATURES // 2
    last = half - 1 if embedding == "ddpm_shifted" else half
    exponents = -math.log(10000) * torch.arange(half, device=time.device, dtype=torch.float32) / last
    scaled = TIME_SCALE * time.float()
    angles = (scaled if embedding == "continuous" else _timesteps(scaled))[:, None] * exponents.exp()
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _timesteps(scaled: Tensor) -> Tensor:
    """Times in [0, 1000] -> timesteps of a DDPM chain, 0..999, where k is the time k + 1; exact for whole ones."""
    steps = (scaled - 1).clamp_min(0)
    nearest = steps.round()
    return torch.where((steps - nearest).abs() < 1e-3, nearest, steps)  # k / 1000 in float32 is off by up to 3e-8


class Conditioning(nn.Module):
    """Time, class and mode as one vector. One more row of the class table is kept for the null class.

    The vector of each mode starts at zero. Through it the adaLN layers, and with them the normalisation, may depend on
    the mode (2502.20126, sec. 3.1).
    """

    def __init__(self, width: int, num_classes: int, num_modes: int, time_embedding: str = "continuous") -> None:
        super().__init__()
        self.num_classes, self.time_embedding = num_classes, time_embedding
        self.time_in = nn.Linear(TIME_FEATURES, width)
        self.time_out = nn.Linear(width, width, bias=False)  # the mode's vector is its bias
        self.label = nn.Embedding(num_classes + 1, width)
        self.mode = nn.Parameter(torch.zeros(num_modes, width))
        for linear in (self.time_in, self.time_out):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.time_in.bias)
        nn.init.normal_(self.label.weight, std=0.5)  # with DiT's 0.02 a short training never gets to see the class

    def forward(self, time: Tensor, label: Tensor | None, mode_index: int) -> Tensor:
        """(b,) times in [0, 1] and classes -> (b, d)."""
        if label is None:
            label = torch.full_like(time, self.num_classes, dtype=torch.long)
        features = time_features(time, self.time_embedding).to(self.time_in.weight.dtype)
        embedded = self.time_out(F.silu(self.time_in(features)))
        return embedded + self.label(label) + self.mode[mode_index]


class BlockConditioning(nn.ModuleList):
    """A :class:`Conditioning` for each block, one after the other in the vector: (b, depth d)."""

    def forward(self, time: Tensor, label: Tensor | None, mode_index: int) -> Tensor:
        """(b,) times in [0, 1] and classes -> (b, depth d)."""
        return torch.cat([conditioning(time, label, mode_index) for conditioning in self], dim=-1)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels outside ``[0, num_classes]`` with ``ValueError``; the last one is the null class.

    Reads the values, which waits for the device: not for loops.
    """
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) <= num_classes:
        raise ValueError(
            f"got labels from {int(labels.min())} to {int(labels.max())}; expected 0 to {num_classes - 1}, or"
            f" {num_classes} for the null class; choose classes the model was trained on"
        )

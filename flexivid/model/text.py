"""Text in the network: features of a text encoder become keys and values that all blocks attend to.

Shapes: b samples, l text tokens, f features of the encoder, d width, k heads, e head dim. Keys and values do not depend
on the time or the patch mode, so a sampler computes them once a sample (``FlexiDiT.prepare``), not once a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexivid.model.attention import attend


class Text(NamedTuple):
    """What a text encoder makes of one caption a sample.

    Args:
        features: (b, l, f).
        mask: True for tokens of the caption, False for padding, bool (b, l); ``None`` = no padding. A sample
            without any token has the null text.
    """

    features: Tensor
    mask: Tensor | None = None

    def split(self, samples: int) -> list[Text]:
        """Shares of the batch, in order."""
        masks = [None] * -(-len(self.features) // samples) if self.mask is None else self.mask.split(samples)
        return [Text(*pair) for pair in zip(self.features.split(samples), masks, strict=True)]


class TextKeys(NamedTuple):
    """A text that the network has read.

    Args:
        pooled: Mean of the caption, which adds to the time, (b, d).
        keys: One for each block, (b, l + 1, k, e). Likewise ``values``.
        mask: True for tokens that may be attended to, bool (b, l + 1).
    """

    pooled: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor

    def split(self, samples: int) -> list[TextKeys]:
        """Shares of the batch, in order."""
        keys = zip(*(key.split(samples) for key in self.keys), strict=True)
        values = zip(*(value.split(samples) for value in self.values), strict=True)
        parts = zip(self.pooled.split(samples), keys, values, self.mask.split(samples), strict=True)
        return [TextKeys(*part) for part in parts]

    def block(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and mask for a block."""
        return self.keys[index], self.values[index], self.mask


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
    """Features of the encoder -> tokens of the network's width.

    A learned null token stands before every caption and is always attended to: without a caption it is seen alone.

    Args:
        channels: Features f of the encoder.
        width: Width d.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.norm = nn.LayerNorm(channels, bias=False)  # encoders differ in scale by orders of magnitude
        self.project_in = nn.Linear(channels, width)
        self.project_out = nn.Linear(width, width)
        self.null = nn.Parameter(torch.randn(width))
        for linear in (self.project_in, self.project_out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, text: Text | None, batch: int) -> tuple[Tensor, Tensor]:
        """-> tokens (b, l + 1, d) and their mask, bool (b, l + 1).

        Raises:
            ValueError: If the features or the mask have another shape.
        """
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
        tokens = self.project_out(F.gelu(self.project_in(self.norm(features.to(self.norm.weight.dtype)))))  # b l d
        return torch.cat((null.to(tokens.dtype), tokens), dim=1), torch.cat((seen, mask.bool()), dim=1)


def pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of the captions, without the null token; 0 where there are none: (b, l + 1, d) -> (b, d)."""
    weight = mask[:, 1:, None].to(tokens.dtype)
    return (tokens[:, 1:] * weight).sum(1) / weight.sum(1).clamp_min(1)


class CrossAttention(nn.Module):
    """Attention of video tokens to text tokens, with QK-norm. Starts as nothing, since its output layer starts at zero.

    Args:
        width: Width d.
        num_heads: Heads k.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, bias=False)
        self.q_norm, self.k_norm = (nn.LayerNorm(width // num_heads, bias=False) for _ in range(2))
        for linear in (self.q, self.k, self.v):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens (b, l + 1, d) -> keys and values (b, l + 1, k, e)."""
        keys, values = (linear(tokens).unflatten(2, (self.num_heads, -1)) for linear in (self.k, self.v))
        return self.k_norm(keys), values

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """(b, n, d) -> (b, n, d).

        Args:
            x: Video tokens.
            keys: From :meth:`read`, as ``values``.
            mask: True for text tokens that may be attended to, bool (b, l + 1).
        """
        queries = self.q_norm(self.q(self.norm(x)).unflatten(2, (self.num_heads, -1)))  # b n k e
        return self.out(attend(queries, keys, values, mask=mask).flatten(2))

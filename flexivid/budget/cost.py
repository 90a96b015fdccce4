"""What a forward pass costs, in closed form. No torch.

Multiply-accumulates (1 MAC = 2 FLOPs; published DiT "Gflops" are MACs) of matrix products and attention, one sample.
Element-wise work, norms and the softmax are left out, as in PyTorch's FlopCounterMode / 2, which the formulas equal
exactly. Resizing the patch weights is done once a call, not once a sample, and without matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

from flexivid.patching.shapes import PatchMode, grid_of

TIME_FEATURES = 256
OUTPUT_CONV_CELLS, OUTPUT_CONV_HIDDEN = 27, 16  # cells that a cell of the output sees, channels inside


class NetworkShape(Protocol):
    """The numbers a cost depends on; ``FlexiDiTConfig`` has them."""

    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int | None: ...
    @property
    def attention(self) -> str: ...
    @property
    def modes(self) -> tuple: ...
    @property
    def output_conv(self) -> bool: ...
    @property
    def text_channels(self) -> int: ...
    @property
    def embedded_channels(self) -> int: ...
    @property
    def modulation(self) -> str: ...
    @property
    def block_conditioning(self) -> bool: ...
    @property
    def cross_attention(self) -> str: ...
    def mode(self, mode: str | PatchMode | None) -> PatchMode: ...


def macs(
    config: NetworkShape, size: tuple[int, int, int], mode: str | PatchMode | None = None, *, text_tokens: int = 0
) -> int:
    """MACs of one forward pass of one sample whose text has been read, see :func:`text_macs`.

    Args:
        config: Shape of the network, e.g. a ``FlexiDiTConfig``.
        size: Latent size (t, h, w); sides that the mode does not divide are padded, and the padding is paid for.
        mode: Patch mode; ``None`` = native.
        text_tokens: Tokens of the text that video tokens attend to, padding included. Means nothing without text.

    Raises:
        ValueError: If the network does not have the mode.

    Source:
        DiT (arXiv:2212.09748, table 4): DiT-XL/2 takes 118.6 G at 256 and 524.6 G at 512 pixels.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> dit = FlexiDiTConfig.preset("XL", in_channels=4, modes=["1x2x2"], num_classes=1000)
        >>> [round(macs(dit, (1, side, side)) / 1e9, 1) for side in (32, 64)]
        [118.6, 524.5]
    """
    patch = config.mode(mode)
    grid = grid_of(size, patch)
    n, d = grid.volume, config.width
    patches = n * patch.volume * (config.embedded_channels + (config.out_channels or config.in_channels)) * d
    condition = (TIME_FEATURES * d + d * d) * (config.depth if config.block_conditioning else 1)
    modulation = 6 * d * d if config.modulation == "single" else (6 * config.depth + 2) * d * d
    linears = config.depth * n * (4 * d * d + 2 * d * config.hidden)  # qkv, out, feed-forward
    attention = _attention(config, grid) + _cross_attention(config, n, text_tokens)
    return patches + condition + modulation + linears + attention + _output_conv(config, size)


def text_macs(config: NetworkShape, text_tokens: int) -> int:
    """MACs of reading the text of one sample: its projection, and keys and values of all blocks. Once a sample.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> text_macs(FlexiDiTConfig(width=64, depth=2, num_heads=2, text_channels=32), 10)
        241664
    """
    if not config.text_channels:
        return 0
    d = config.width
    return text_tokens * (config.text_channels * d + d * d) + _text_blocks(config) * 2 * (text_tokens + 1) * d * d


def _text_blocks(config: NetworkShape) -> int:
    """Blocks that attend to text: all, or the spatial ones."""
    is_spatial = config.cross_attention == "plain" and config.attention == "factorised"
    return (config.depth + 1) // 2 if is_spatial else config.depth


def _cross_attention(config: NetworkShape, tokens: int, text_tokens: int) -> int:
    """Queries, output, scores and weighted sums; the null token stands before every text."""
    if not config.text_channels:
        return 0
    d = config.width
    return _text_blocks(config) * (2 * tokens * d * d + 2 * d * tokens * (text_tokens + 1))


def _attention(config: NetworkShape, grid: tuple[int, int, int]) -> int:
    """Scores and weighted sums of all blocks: 2 d for each pair of tokens that see each other."""
    frames, tokens = grid[0], grid[1] * grid[2]  # tokens of one frame
    if config.attention == "joint":
        return config.depth * 2 * config.width * (frames * tokens) ** 2
    pairs_space, pairs_time = frames * tokens**2, tokens * frames**2
    return 2 * config.width * ((config.depth + 1) // 2 * pairs_space + config.depth // 2 * pairs_time)


def _output_conv(config: NetworkShape, size: tuple[int, int, int]) -> int:
    """MACs of the convolution over the output, which sees the size without padding: the same in every mode."""
    if not config.output_conv:
        return 0
    channels = config.out_channels or config.in_channels
    return math.prod(size) * channels * OUTPUT_CONV_HIDDEN * (OUTPUT_CONV_CELLS + 1)  # a pointwise one comes after


def full_cost(
    native_cost: int, *, guided: bool, num_steps: int, plain_calls: Collection[int] = (), guide_cost: int | None = None
) -> int:
    """Cost of native steps throughout, guidance's branch native too: what a budget is a fraction of.

    ``native_cost`` is that of one native call for one sample, in any unit; ``plain_calls`` have no guidance. Others
    cost ``guide_cost`` more, ``None`` = another call.

    Example:
        >>> full_cost(100, guided=True, num_steps=10, plain_calls={0, 1})
        1800
        >>> full_cost(100, guided=True, num_steps=10, plain_calls={0, 1}, guide_cost=60)
        1480
    """
    guide_cost = native_cost if guide_cost is None else guide_cost
    return native_cost * num_steps + (guide_cost * (num_steps - len(plain_calls)) if guided else 0)


def human(count: float) -> str:
    """MACs for people: three digits and a unit.

    Example:
        >>> human(118_600_000_000), human(1_240_000)
        ('119 GMACs', '1.24 MMACs')
    """
    for unit, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            value = count / scale
            return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}MACs"
    return f"{count:.0f} MACs"

"""FlexiDiT: one video diffusion transformer for several patch sizes (arXiv 2502.20126).

Latent (b, c, t, h, w) in, the same shape out; the mode decides how many tokens are in between. Knows nothing of
diffusion: what the output means (noise, velocity, clean video) is the process's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flexivid.diffusion.process import Process
from flexivid.model.block import Block, Packed, Part, Tokens, join, modulate, modulation_of, packed_tokens, part_from
from flexivid.model.conditioning import (
    BlockConditioning,
    Condition,
    Conditioning,
    Frames,
    Text,
    TextKeys,
    TextProjection,
    pool,
)
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.formats import read_model, write_model
from flexivid.model.positions import Positions
from flexivid.model.recipe import Recipe
from flexivid.patching.embed import FlexiPatchEmbed, FlexiPatchOutput, OutputConv, zero
from flexivid.patching.shapes import PatchMode, Size3


class FlexiDiT(nn.Module):
    """Spatio-temporal FlexiDiT.

    Args:
        config: Its shape, see :class:`FlexiDiTConfig`.

    Attributes:
        detail_process: Process by which weak modes add detail (``weak_detail``); that of the training is in ``recipe``.
        recipe: How it was trained and how to sample it; filled by ``flexivid.load``, all defaults otherwise.
        stand_ins: A faster copy that computes instead while the weights stay as they are, see ``model.frozen``.

    Example:
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")))
        >>> x, time = torch.zeros(1, 3, 5, 8, 8), torch.tensor([0.5])
        >>> model(x, time).shape, model(x, time, mode="2x4x4").shape
        (torch.Size([1, 3, 5, 8, 8]), torch.Size([1, 3, 5, 8, 8]))
    """

    def __init__(self, config: FlexiDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.recipe = Recipe()
        self.detail_process = None if config.weak_detail == "none" else Process(*config.weak_detail.split())
        self.stand_ins: tuple[FlexiDiT, ...] = ()  # a tuple: no part of the module tree
        modes: tuple[PatchMode, ...] = config.modes  # type: ignore[assignment]
        self.embed = FlexiPatchEmbed(config.embedded_channels, config.width, modes, resize=config.resize)
        self.positions = Positions(config)
        self.mode_embedding = nn.Parameter(torch.zeros(len(modes), config.width))
        self.conditioning = _conditioning(config)
        is_plain = config.cross_attention == "plain"
        self.text = TextProjection(config.text_channels, config.width, plain=is_plain) if config.text_channels else None
        axes = ("space", "time") if config.attention == "factorised" else ("joint",)
        self.blocks = nn.ModuleList(Block(config, axes[i % len(axes)]) for i in range(config.depth))
        is_single = config.modulation == "single"
        self.shared_modulation = zero(nn.Linear(config.width, 6 * config.width)) if is_single else None
        self.out_modulation = modulation_of(config, 2)
        self.out = FlexiPatchOutput(config.width, config.out_channels or config.in_channels, modes)
        self.out_conv = OutputConv(self.out.out_channels) if config.output_conv else None

    @classmethod
    def from_pretrained(cls, path: str | Path, *, ema: bool = True, device: str | torch.device = "cpu") -> FlexiDiT:
        """Load a model for sampling: ``flexivid.load`` as a method, with its arguments.

        Example:
            >>> FlexiDiT.from_pretrained("moving_digits").num_parameters
            7759872
        """
        stored = read_model(path, ema=ema)
        model = cls(stored.config)
        stored.fill(model)
        model.recipe = stored.recipe
        return model.eval().to(device)

    @classmethod
    def holding(cls, config: FlexiDiTConfig, weights: Mapping[str, Tensor]) -> FlexiDiT:
        """A network whose weights are these tensors themselves: large ones are in memory once, and none is drawn first.

        ``RuntimeError`` if names or shapes are not those of the network.

        Example:
            >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2))
            >>> weights = model.state_dict()
            >>> FlexiDiT.holding(model.config, weights).out.weight.data_ptr() == weights["out.weight"].data_ptr()
            True
        """
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):  # buffers are computed, not loaded
            model = cls(config)
        model.load_state_dict({name: value.contiguous() for name, value in weights.items()}, assign=True)
        return model

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors``, as ``flexivid.save`` does; returns the folder.

        Example:
            >>> import tempfile
            >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2))
            >>> FlexiDiT.from_pretrained(model.save_pretrained(tempfile.mkdtemp())).config == model.config
            True
        """
        return write_model(folder, self.config, self.recipe, self.state_dict())

    @property
    def num_parameters(self) -> int:
        """Number of learned values."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        condition: Condition | None = None,
        mode: str | PatchMode | Packed | None = None,
    ) -> Tensor:
        """One pass.

        Args:
            x: Noisy latent, (b, c, t, h, w), any size.
            time: Times, (b,), 0 = data, 1 = noise.
            condition: What to show; ``None`` is the null class, the null text and no given frames.
            mode: Patch mode, ``"2x4x4"`` or :class:`PatchMode`; ``None`` is the native one; :class:`Packed` several,
                each for an equal share of the batch.

        Returns:
            (b, out_channels, t, h, w).

        Raises:
            ValueError: If the shapes do not fit or the model does not have the mode.
        """
        self._check(x, time, mode)
        return (self.stand_ins or (self,))[0]._answer(x, time, condition, mode)

    def _answer(
        self, x: Tensor, time: Tensor, condition: Condition | None, mode: str | PatchMode | Packed | None
    ) -> Tensor:
        """As :meth:`forward`, by this network's own layers."""
        if isinstance(mode, Packed):
            return self._packed(x, time, condition, mode)
        patch, condition = self.config.mode(mode), self.prepare(condition or Condition(), len(x))
        h, tokens = self._embed(x, condition, patch)  # b n d
        conditioning = self._condition(time, condition, patch)  # b d
        h = self._run(h, conditioning, tokens, condition.text)  # b n d
        return self._unembed(h, patch, x, time)  # b c t h w

    def enable_gradient_checkpointing(self) -> None:
        """Recompute blocks in the backward pass, as the models of diffusers do after the method of this name."""
        self.config = replace(self.config, gradient_checkpointing=True)

    def prepare(self, condition: Condition, batch: int) -> Condition:
        """Read the text of a condition: keys and values depend on no time and no mode, so once a sample is enough.

        The condition of ``batch`` samples comes back with :class:`TextKeys`, or as it is where the network takes no
        text or has read it. A text that does not fit, or that the network does not take, is a ``ValueError``.
        """
        text = condition.text
        if isinstance(text, TextKeys) or (self.text is None and text is None):
            return condition
        if self.text is None:
            raise ValueError("got a text for a network without; expected no text; train with text_channels set")
        tokens, mask = self.text(text, batch)  # b l+1 d
        blocks: Iterable[Any] = self.blocks
        pairs = [block.cross.read(tokens) for block in blocks if block.cross is not None]
        keys, values = zip(*pairs, strict=True)
        return condition._replace(text=TextKeys(pool(tokens, mask), keys, values, mask))

    def _packed(self, x: Tensor, time: Tensor, condition: Condition | None, modes: Packed) -> Tensor:
        """As :meth:`forward`, with all samples' tokens in one row."""
        share = len(x) // len(modes)
        patches = [self.config.mode(mode) for mode in modes]
        condition = self.prepare(condition or Condition(), len(x))
        shares = list(zip(time.split(share), condition.split(share, len(modes)), patches, strict=True))
        conditioning = torch.cat([self._condition(*each) for each in shares])  # b d
        embedded = [
            self._embed(part, shown, patch) for part, (_, shown, patch) in zip(x.split(share), shares, strict=True)
        ]
        parts = tuple(Part(share, h.shape[1], tokens.frames) for h, tokens in embedded)
        row = packed_tokens([tokens for _, tokens in embedded], parts)
        h = self._run(join([h for h, _ in embedded]), conditioning, row, condition.text)  # 1 n d
        outs = zip(part_from(h, parts), patches, x.split(share), time.split(share), strict=True)
        return torch.cat([self._unembed(*each) for each in outs])  # b c t h w

    def _embed(self, x: Tensor, condition: Condition, patch: PatchMode) -> tuple[Tensor, Tokens]:
        """Latent (b, c, t, h, w) -> tokens (b, n, d) with their positions and mode added."""
        if self.config.given_frames:
            x = torch.cat((x, self._given(x, condition.frames)), dim=1)  # b 2c+1 t h w
        h = self.embed(x, patch)  # b n d
        tokens, table = self.positions(Size3(*x.shape[2:]), patch, h)
        index = self.config.modes.index(patch)
        return h + (table + self.mode_embedding[index]).to(h.dtype), tokens  # b n d

    def _given(self, x: Tensor, frames: Frames | None) -> Tensor:
        """Given frames and their mask, (b, c + 1, t, h, w); zeros where none are given."""
        if frames is None:
            return torch.zeros_like(x[:, :1]).expand(-1, x.shape[1] + 1, -1, -1, -1)
        if frames.latent.shape != x.shape or frames.mask.shape != x[:, :1].shape:
            raise ValueError(
                f"got given frames {tuple(frames.latent.shape)} with a mask {tuple(frames.mask.shape)}; expected"
                f" {tuple(x.shape)} and {tuple(x[:, :1].shape)}; make them as large as the latent"
            )
        return frames.channels().to(x.dtype)

    def _unembed(self, h: Tensor, patch: PatchMode, x: Tensor, time: Tensor) -> Tensor:
        """Tokens (b, n, d) of the latent ``x`` -> (b, out_channels, t, h, w)."""
        y = self.out(h, patch, Size3(*x.shape[2:]))  # b c t h w
        y = y if self.out_conv is None else self.out_conv(y)
        if self.detail_process is None or patch == self.config.native:
            return y
        return y + self.detail_process.passed_detail(x, time, patch, self.config.native, channels=y.shape[1])

    def _condition(self, time: Tensor, condition: Condition, patch: PatchMode) -> Tensor:
        """The activated conditioning that modulates every block, (b, d); wider where blocks differ, see ``_share``."""
        vector = self.conditioning(time, condition.label, self.config.modes.index(patch))
        if isinstance(condition.text, TextKeys) and self.config.cross_attention != "plain":
            vector = vector + condition.text.pooled.repeat(1, vector.shape[1] // self.config.width)
        if self.shared_modulation is None:
            return F.silu(vector)
        return torch.cat((self.shared_modulation(F.silu(vector)), vector, vector), dim=-1)  # b 8d

    def _share(self, conditioning: Tensor, index: int | None) -> Tensor:
        """The part of the conditioning that block ``index`` reads; ``None`` = the last layer."""
        width = self.config.width
        if self.shared_modulation is not None:
            return conditioning[:, 6 * width :] if index is None else conditioning[:, : 6 * width]
        if self.config.block_conditioning:
            return conditioning.unflatten(1, (-1, width))[:, index or 0]
        return conditioning

    def _run(self, h: Tensor, conditioning: Tensor, tokens: Tokens, text: Text | TextKeys | None) -> Tensor:
        """All blocks and the last norm, (b, n, d) -> (b, n, d)."""
        texts: Any = text.blocks() if isinstance(text, TextKeys) else repeat(None)
        blocks: Iterable[Any] = self.blocks
        for index, block in enumerate(blocks):
            if index == 1 and tokens.late is not None:
                h = h + tokens.late
            arguments = (self._share(conditioning, index), tokens, None if block.cross is None else next(texts))
            if self.config.gradient_checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, *arguments, use_reentrant=False)
            else:
                h = block(h, *arguments)  # b n d
        shift, scale = tokens.spread(self.out_modulation(self._share(conditioning, None))).chunk(2, dim=-1)
        return modulate(h, shift, scale)

    def _check(self, x: Tensor, time: Tensor, mode: str | PatchMode | Packed | None) -> None:
        channels = self.embed.in_channels  # those of a folded latent in weak modes of flexify
        channels -= self.config.embedded_channels - self.config.in_channels
        if x.ndim != 5 or x.shape[1] != channels:
            raise ValueError(f"got x of shape {tuple(x.shape)}; expected (b, {channels}, t, h, w); add or move axes")
        if isinstance(mode, Packed) and len(x) % len(mode):
            raise ValueError(f"got {len(x)} samples for modes {mode}; expected equal shares; repeat the batch")
        if time.shape != x.shape[:1]:
            raise ValueError(f"got time of shape {tuple(time.shape)}; expected ({len(x)},); pass one time a sample")


def _conditioning(config: FlexiDiTConfig) -> nn.Module:
    arguments = (config.width, config.num_classes, len(config.modes), config.time_embedding)
    if not config.block_conditioning:
        return Conditioning(*arguments)
    return BlockConditioning(Conditioning(*arguments) for _ in range(config.depth))

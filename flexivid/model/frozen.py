"""Calls of a network whose weights stay as they are: what depends on weights alone is computed once, not at every call.

While :func:`frozen` lasts, a stand-in answers for the network. It has the same layers, with weights in the dtype that
autocast would cast them to. Layers that read the same input are joined to one product, which costs as many MACs, and
the patch kernels of each mode are resized once. Outputs are the same but for the order of sums inside a product. The
stand-in is kept for the next time and built anew when the weights have changed. Hooks on the network run as ever.

A stand-in may be compiled: then it is a graph for each mode and batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexivid.model.block import Block, CrossAttention, SelfAttention, Tokens
from flexivid.model.conditioning import Condition, Conditioning, TextProjection
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.positions import Positions
from flexivid.patching.embed import FlexiPatchEmbed, FlexiPatchOutput, OutputConv, patchify, unpatchify
from flexivid.patching.shapes import PatchMode, Size3
from flexivid.runtime.device import autocast, dtype_of
from flexivid.runtime.weights import Snapshot, is_plain

KEPT_PARAMETERS = 1 << 26  # above this a network is slow enough to build its stand-in again, and memory matters more
MOST_TABLES = 32  # of positions, one a size and mode
KINDS = {FlexiDiT, Block, SelfAttention, Conditioning, OutputConv, Positions, FlexiPatchEmbed, FlexiPatchOutput}
KINDS |= {CrossAttention, TextProjection}
KINDS |= {nn.ModuleList, nn.Identity, nn.Linear, nn.LayerNorm, nn.Embedding, nn.Conv3d}


class _Built(NamedTuple):
    network: _StandIn
    weights: Snapshot  # of the network that it was built from
    dtype: torch.dtype | None  # of its products


_stand_ins: WeakKeyDictionary[nn.Module, _Built] = WeakKeyDictionary()
_compiled: WeakSet[nn.Module] = WeakSet()  # networks whose stand-ins are compiled


def compile_stand_in(model: FlexiDiT) -> bool:
    """Let the stand-in of a network be compiled from now on; ``False`` if the network can have none."""
    if not _can_be_replaced(model):
        return False
    _stand_ins.pop(model, None)
    _compiled.add(model)
    return True


def has_compiled_stand_in(model: nn.Module) -> bool:
    """Whether :func:`compile_stand_in` was called for a network."""
    return model in _compiled


@contextmanager
def frozen(model: FlexiDiT, dtype: torch.dtype | None = None) -> Iterator[None]:
    """While it lasts, the model's weights must not change, and calls of it may cost less. Without gradients only.

    A model that is not made of flexivid's own layers alone, or that has hooks inside, is called as it is. ``dtype`` is
    that of autocast, in which linear layers and convolutions compute; ``None`` = there is no autocast.
    """
    if torch.is_grad_enabled() or not _can_be_replaced(model):
        yield
        return
    stand_in = _stand_ins.get(model)
    if stand_in is None or stand_in.dtype != dtype or not stand_in.weights.holds(model):
        stand_in = _Built(_build(model, dtype), Snapshot(model), dtype)
        if model in _compiled:
            stand_in.network.compile_answers()
        if model.num_parameters <= KEPT_PARAMETERS or model in _compiled:
            _stand_ins[model] = stand_in
    model.stand_ins = (stand_in.network,)
    try:
        yield
    finally:
        model.stand_ins = ()


@contextmanager
def sampling_calls(model: FlexiDiT, precision: str = "auto") -> Iterator[None]:
    """Autocast, and the model's weights frozen: for calls without gradients between which the weights do not change."""
    device = next(model.parameters()).device
    with autocast(device, precision):
        dtype = dtype_of(device, precision)
        with frozen(model, None if dtype == torch.float32 else dtype):
            yield


def _can_be_replaced(model: FlexiDiT) -> bool:
    """Whether every layer does what its class says: no other class, no method of its own, no hook inside."""
    for module in model.modules():
        is_shared = module in (model, model.text)  # hooks on these run as ever
        inside = not is_shared and (module._forward_hooks or module._forward_pre_hooks)
        if type(module) not in KINDS or "forward" in vars(module) or inside:
            return False
    return type(model) is FlexiDiT and (model in _stand_ins or is_plain(model))


@torch.inference_mode(False)
def _build(model: FlexiDiT, dtype: torch.dtype | None) -> _StandIn:
    with torch.device("meta"):
        network = _StandIn(model.config)
    for path, module in network.named_modules():
        for name, weight in model.get_submodule(path).named_parameters(recurse=False):
            is_cast = dtype is not None and isinstance(module, nn.Linear | nn.Conv3d)
            value = weight.detach().to(dtype) if is_cast else weight.detach()
            setattr(module, name, nn.Parameter(value, requires_grad=False))
    network.embed = _FrozenEmbed(model.embed, dtype)  # type: ignore[assignment]
    network.out = _FrozenOutput(model.out, dtype)  # type: ignore[assignment]
    network.join()
    network.text = model.text  # texts are read by the model itself
    return network


class _StandIn(FlexiDiT):
    """A FlexiDiT that makes one product where it would make several of one input, and remembers where tokens sit."""

    def join(self) -> None:
        """Put one layer in the place of those that read the same input."""
        owners: list[Any] = list(self.blocks)
        last: Any = self.out_modulation
        self._modulations = _joined([*(block.modulation for block in owners), last])
        ends = accumulate([block.modulation.out_features for block in owners])
        for end, block in zip(ends, owners, strict=True):
            block.modulation = _Share(end - block.modulation.out_features, end)
            block.attention = _StandInAttention(self.config, block.attention)
        self.out_modulation = _Share(end, None)
        self.positions = _FrozenPositions(self.config)

    def compile_answers(self) -> None:
        """Answer by a compiled graph for each mode and batch size."""
        from torch._inductor import config

        eager, compiled, seen = self._answer, torch.compile(self._answer, dynamic=False), set()

        def answer(x: Tensor, time: Tensor, condition: Condition | None, mode: Any) -> Tensor:
            if (x.shape, mode) in seen:
                return compiled(x, time, condition, mode)
            seen.add((x.shape, mode))
            eager(x, time, condition, mode)  # remembers what it computes of weights: a graph built before would change
            with config.patch(freezing=x.device.type == "cpu"):  # weights laid out for the products that read them
                return compiled(x, time, condition, mode)

        self._answer = answer  # type: ignore[method-assign]

    def _condition(self, time: Tensor, condition: Condition, patch: PatchMode) -> Tensor:
        """The modulations of all blocks, (b, 6 d for each and 2 d in the end)."""
        return F.linear(super()._condition(time, condition, patch), *self._modulations)


class _FrozenPositions(Positions):
    """``Positions`` with the tables of each size and mode computed once."""

    def __init__(self, config: FlexiDiTConfig) -> None:
        super().__init__(config)
        self._tables: dict[Any, tuple[Tokens, Tensor]] = {}

    def forward(self, size: Size3, patch: PatchMode, like: Tensor) -> tuple[Tokens, Tensor]:
        key = (size, patch, like.dtype)
        if key not in self._tables:
            self._tables = self._tables if len(self._tables) < MOST_TABLES else {}
            self._tables[key] = super().forward(size, patch, like)
        return self._tables[key]


class _Share(nn.Module):
    """Some of the features of its input, in the place of the layer that computes them alone."""

    def __init__(self, start: int, stop: int | None) -> None:
        super().__init__()
        self._features = slice(start, stop)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self._features]


class _StandInAttention(SelfAttention):
    """``SelfAttention`` with one product for queries, keys and values."""

    def __init__(self, config: FlexiDiTConfig, attention: SelfAttention) -> None:
        with torch.device("meta"):
            super().__init__(config, attention.axes)
        self._joined = _joined([attention.q, attention.k, attention.v])
        del self.q, self.k, self.v
        self.out, self.q_norm, self.k_norm = attention.out, attention.q_norm, attention.k_norm

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        return F.linear(x, *self._joined).chunk(3, dim=-1)


def _joined(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of one layer that gives the outputs of several, one after the other.

    A weight in float32 lies with its inputs as rows: one or two samples read it twice as fast so on a CPU.
    """
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    weight = torch.cat([layer.weight.detach() for layer in layers])
    if weight.dtype == torch.float32:
        weight = weight.t().contiguous().t()
    return weight, torch.cat(biases) if biases else None


class _FrozenPatchLayer(nn.Module):
    """The linear layers of an embedding or a de-embedding, each resized and cast once, when its mode is first used."""

    def __init__(self, source: FlexiPatchEmbed | FlexiPatchOutput, dtype: torch.dtype | None) -> None:
        super().__init__()
        self._source = (source,)  # a tuple: no part of this module's tree
        self._dtype = dtype
        self._layers: dict[PatchMode, tuple[Tensor, Tensor]] = {}

    def layer(self, mode: PatchMode) -> tuple[Tensor, Tensor]:
        if mode not in self._layers:
            (source,) = self._source
            with torch.inference_mode(False):
                weight, bias = (value.detach() for value in source.layer(mode))
                self._layers[mode] = weight.to(self._dtype or weight.dtype), bias.to(self._dtype or bias.dtype)
        return self._layers[mode]


class _FrozenEmbed(_FrozenPatchLayer):
    def forward(self, latent: Tensor, mode: PatchMode) -> Tensor:
        return F.linear(patchify(latent, mode), *self.layer(mode))  # b n d


class _FrozenOutput(_FrozenPatchLayer):
    def forward(self, tokens: Tensor, mode: PatchMode, size: Size3) -> Tensor:
        return unpatchify(F.linear(tokens, *self.layer(mode)), mode, size)  # b c t h w

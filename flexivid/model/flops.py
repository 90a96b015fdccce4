"""Measures what was computed: counts every call of a network and costs it by PyTorch's counter on the meta device.

Independent of the formulas in ``flexivid.budget``, so that the two can be compared.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from flexivid.model.block import Packed
from flexivid.model.conditioning import Condition, Text, TextKeys
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode, Size3


class CallCounter:
    """Context manager that counts a network's calls by size and mode; ``macs`` is what they cost."""

    def __init__(self, model: FlexiDiT) -> None:
        self._model = model
        self._samples: Counter[tuple[Size3, PatchMode, int]] = Counter()  # size, mode, tokens of the text
        self._texts: Counter[int] = Counter()  # texts that were read, by their tokens
        self.calls = 0

    def __enter__(self) -> CallCounter:
        self._handles = [self._model.register_forward_pre_hook(self._count, with_kwargs=True)]
        if self._model.text is not None:
            self._handles.append(self._model.text.register_forward_pre_hook(self._count_text))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def macs(self) -> int:
        """MACs of all calls so far, all samples together."""
        config = self._model.config
        reading = sum(n * meta_text_macs(config, tokens) for tokens, n in self._texts.items())
        return reading + sum(n * meta_macs(config, *call) for call, n in self._samples.items())

    def _count(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        call = dict(zip(("x", "time", "condition", "mode"), args, strict=False)) | kwargs
        x, condition, mode = call["x"], call.get("condition"), call.get("mode")
        modes = mode if isinstance(mode, Packed) else [mode]
        for patch in modes:
            key = Size3(*x.shape[2:]), self._model.config.mode(patch), _tokens(condition and condition.text)
            self._samples[key] += len(x) // len(modes)
        self.calls += 1

    def _count_text(self, module: torch.nn.Module, args: tuple) -> None:
        text, batch = args
        self._texts[_tokens(text)] += batch


def _tokens(text: Text | TextKeys | None) -> int:
    """Tokens of a text, padding included, without the null token."""
    if text is None:
        return 0
    return text.mask.shape[1] - 1 if isinstance(text, TextKeys) else text.features.shape[1]


@cache
def meta_macs(config: FlexiDiTConfig, size: Size3, mode: PatchMode, text_tokens: int = 0) -> int:
    """Return the MACs of a forward pass of one sample, counted on the meta device; its text has been read."""
    with torch.device("meta"), torch.no_grad():
        network = FlexiDiT(config)
        condition = network.prepare(_empty_text(config, text_tokens), 1)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, config.in_channels, *size), torch.empty(1), condition, mode)
    return counter.get_total_flops() // 2


@cache
def meta_text_macs(config: FlexiDiTConfig, text_tokens: int) -> int:
    """Return the MACs of reading a text, counted in the same way.

    Example:
        >>> meta_text_macs(FlexiDiTConfig(width=64, depth=2, num_heads=2, text_channels=32), 10)
        241664
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        FlexiDiT(config).prepare(_empty_text(config, text_tokens), 1)
    return counter.get_total_flops() // 2


def _empty_text(config: FlexiDiTConfig, text_tokens: int) -> Condition:
    return Condition(text=Text(torch.empty(1, text_tokens, config.text_channels)) if config.text_channels else None)

"""Measures what was computed: counts every call of a network and costs it by PyTorch's counter on the meta device.

Independent of the formulas in ``flexivid.budget``, so that the two can be compared.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from types import TracebackType

import torch
from torch.utils.flop_counter import FlopCounterMode

from flexivid.model.block import Packed
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.shapes import PatchMode, Size3


class CallCounter:
    """Context manager that counts a network's calls by size and mode.

    Args:
        model: The network to watch.

    Example:
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2",)))
        >>> with CallCounter(model) as counter:
        ...     _ = model(torch.zeros(2, 3, 1, 8, 8), torch.zeros(2))
        >>> counter.calls, counter.macs // 1000
        (1, 485)
    """

    def __init__(self, model: FlexiDiT) -> None:
        self._model = model
        self._samples: Counter[tuple[Size3, PatchMode]] = Counter()
        self.calls = 0

    def __enter__(self) -> CallCounter:
        self._handle = self._model.register_forward_pre_hook(self._count, with_kwargs=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    @property
    def macs(self) -> int:
        """MACs of all calls so far, all samples together."""
        config = self._model.config
        return sum(n * meta_macs(config, size, mode) for (size, mode), n in self._samples.items())

    def _count(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else kwargs["x"]
        mode = args[3] if len(args) > 3 else kwargs.get("mode")
        modes = mode if isinstance(mode, Packed) else [mode]
        for patch in modes:
            self._samples[Size3(*x.shape[2:]), self._model.config.mode(patch)] += len(x) // len(modes)
        self.calls += 1


@cache
def meta_macs(config: FlexiDiTConfig, size: Size3, mode: PatchMode) -> int:
    """Return the MACs of one sample, counted by ``FlopCounterMode`` in a forward pass without data (meta device).

    Args:
        config: Shape of the network.
        size: Latent size (t, h, w).
        mode: Patch mode.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        FlexiDiT(config)(torch.empty(1, config.in_channels, *size), torch.empty(1), mode=mode)
    return counter.get_total_flops() // 2

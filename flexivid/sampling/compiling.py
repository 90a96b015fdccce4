"""Compiling a network for sampling: one static graph for each mode and batch size that occurs.

Only the forward pass is compiled. Hooks stay outside of it, so calls are still counted.
"""

from __future__ import annotations

from typing import Any

import torch

from flexivid.model.flexidit import FlexiDiT

MOST_GRAPHS = 64  # modes x batch sizes x one or two branches; Dynamo's own limit is 8


def compile_forward(model: FlexiDiT) -> FlexiDiT:
    """Let the forward pass of a model be compiled on first use of each mode; returns the model.

    Args:
        model: The network, on its device.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")))
        >>> is_compiled(model), is_compiled(compile_forward(model))
        (False, True)
    """
    if not is_compiled(model):
        from torch import _dynamo as dynamo  # a second of imports that only those who compile wait for

        limits: Any = dynamo.config  # Dynamo has one limit for the process
        limits.recompile_limit = max(limits.recompile_limit, MOST_GRAPHS)
        model.forward = torch.compile(model.forward, dynamic=False)  # type: ignore[method-assign]
    return model


def is_compiled(model: FlexiDiT) -> bool:
    """Whether the forward pass, or the whole call, was compiled."""
    return "forward" in vars(model) or model._compiled_call_impl is not None

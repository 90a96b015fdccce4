"""The denoising loss, measurable in any of the three spaces whatever the network predicts.

At fixed x_t an error e of x0 is an error -(alpha / sigma) e of the noise and -e / sigma of the velocity (both kinds).
So changing the space only weighs the squared error by a function of time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flexivid.diffusion.process import SMALLEST, Process


def space_weight(process: Process, time: Tensor, space: str) -> Tensor:
    """Factor that turns a squared error of the process's target into one of ``x0``, ``noise`` or ``velocity``, (b,).

    Example:
        >>> space_weight(Process("flow", "x0"), torch.tensor([0.5]), "velocity").item()
        4.0
    """
    alpha, sigma = (value.clamp_min(SMALLEST) for value in process.alpha_sigma(time))
    error = {"x0": torch.ones_like(alpha), "noise": alpha / sigma, "velocity": 1 / sigma}
    if space not in error:
        raise ValueError(f"got loss space {space!r}; expected one of {', '.join(error)}; choose one")
    return (error[space] / error[process.target]).square()


def denoising_loss(process: Process, output: Tensor, target: Tensor, time: Tensor, *, space: str) -> Tensor:
    """Mean squared error of each sample, (b,), float32, measured in ``space``: ``x0``, ``noise`` or ``velocity``.

    The output of the network and ``process.target_of(x0, noise, time)`` are (b, ...), the times (b,).
    """
    error = (output.float() - target.float()).square().flatten(1).mean(1)
    return error * space_weight(process, time, space)

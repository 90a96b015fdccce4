"""The denoising loss, measurable in any of the three spaces whatever the network predicts; a distance of samples.

At fixed x_t an error e of x0 is an error -(alpha / sigma) e of the noise and -e / sigma of the velocity (both kinds).
So changing the space only weighs the squared error by a function of time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flexivid.diffusion.process import SMALLEST, Process

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels' widths, over the mean distance in the data


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


def maximum_mean_discrepancy(samples: Tensor, real: Tensor) -> Tensor:
    """Squared maximum mean discrepancy under a mixture of Gaussian kernels; unbiased, so it can be below 0.

    Samples (n, ...), n >= 2, carry the gradient; ``real`` has their shape. Sample i and real i may be noised versions
    of one clip, so their kernel values are left out, like those of a sample with itself.

    Source:
        Gretton et al., JMLR 13 (2012), eq. 5. The loss of FlexiDiT (2502.20126) between what weak and then native
        steps make of noised data, and noised data.

    Example:
        >>> row = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> maximum_mean_discrepancy(row, row).item() < maximum_mean_discrepancy(row + 3, row).item()
        True
    """
    if samples.shape != real.shape or len(samples) < 2:
        raise ValueError(
            f"got samples {tuple(samples.shape)} and real {tuple(real.shape)}; expected equal shapes of at least two;"
            " pass as many of both"
        )
    count = len(samples)
    both = torch.cat([samples.flatten(1), real.flatten(1)]).float()
    square = both.square().sum(1)
    distance = (square[:, None] + square[None] - 2 * both @ both.T).clamp_min(0)
    width = distance.detach().sum() / (2 * count * (2 * count - 1))  # the mean over pairs
    kernel = sum(torch.exp(-distance / (2 * scale * width.clamp_min(1e-12))) for scale in SCALES) / len(SCALES)
    pairs = torch.as_tensor(kernel) * (1 - torch.eye(count, device=both.device)).repeat(2, 2)
    within = pairs[:count, :count].sum() + pairs[count:, count:].sum()
    return (within - 2 * pairs[:count, count:].sum()) / (count * (count - 1))

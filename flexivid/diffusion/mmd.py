"""How far two sets of samples are apart as distributions: maximum mean discrepancy. Knows tensors only."""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels' widths, over the mean distance in the data


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

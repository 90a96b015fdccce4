"""Noising paths and what a network may predict. Time 0 = data, 1 = noise, for every process.

    x_t = alpha(t) x0 + sigma(t) noise

A network's output is one of three targets; from any of them both x0 and noise follow. Tensors are (b, ...), times (b,).
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flexivid.patching.embed import detail
from flexivid.patching.shapes import PatchMode

NUM_TRAIN_TIMESTEPS = 1000  # of the discrete DDPM chains, as in diffusers; time (k + 1) / 1000 is their timestep k
PATHS = ("flow", "cosine", "linear")
TARGETS = ("x0", "velocity", "noise")
SMALLEST = 0.05  # alpha and sigma are kept above this where they divide (2511.13720, sec. 4)
SMALLEST_SIGMA = 1e-4  # but when solving: a step is never longer than sigma, and with 0.05 noise would stay in the end

DETAIL_POWER = 0.04  # of what large patches lose of smooth data, over that of the noise


class Process(NamedTuple):
    """A noising path and the target a network is trained to predict.

    Args:
        path: ``flow`` (rectified flow, 2209.03003: alpha = 1 - t, sigma = t), or the DDPM chains ``cosine``
            (2102.09672) and ``linear`` (2006.11239), continued linearly between their 1000 steps.
        target: ``x0`` (the clean latent), ``noise``, or ``velocity``: noise - x0 on the flow path, alpha noise -
            sigma x0 (2202.00512) on the others.

    Example:
        >>> process = Process("flow", "velocity")
        >>> x0, noise, time = torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([0.25])
        >>> process.add_noise(x0, noise, time).item(), process.target_of(x0, noise, time).item()
        (1.5, 2.0)
    """

    path: str = "flow"
    target: str = "x0"

    def check(self) -> Process:
        """Return itself; ``ValueError`` if path or target is unknown."""
        for key, choices in (("path", PATHS), ("target", TARGETS)):
            if getattr(self, key) not in choices:
                raise ValueError(
                    f"got process {key} {getattr(self, key)!r}; expected one of {', '.join(choices)}; choose one"
                )
        return self

    def alpha_sigma(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise amplitudes at ``time``, float32, the shape of ``time``."""
        time = time.float()
        if self.path == "flow":
            return 1 - time, time
        table = _alpha_bar(self.path).to(time.device)
        index = time.clamp(0, 1) * NUM_TRAIN_TIMESTEPS
        low = index.floor().long().clamp(max=NUM_TRAIN_TIMESTEPS - 1)
        alpha_bar = torch.lerp(table[low], table[low + 1], index - low)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """x_t of the path, (b, ...)."""
        alpha, sigma = self._amplitudes(x0, time)
        return alpha * x0 + sigma * noise

    def target_of(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the network should output for this x0 and noise, (b, ...)."""
        if self.target == "x0":
            return x0
        if self.target == "noise":
            return noise
        if self.path == "flow":
            return noise - x0
        alpha, sigma = self._amplitudes(x0, time)
        return alpha * noise - sigma * x0

    def split(self, output: Tensor, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Network output at (x, time) -> (x0, noise), in float32.

        Divisions are by an alpha of at least 0.05 and a sigma of at least 0.0001. Channels of the output beyond those
        of x, a learned variance, are not used.
        """
        output, x = _mean(output, x).float(), x.float()
        alpha, sigma = self._amplitudes(x, time)
        if self.target == "x0":
            return output, (x - alpha * output) / sigma.clamp_min(SMALLEST_SIGMA)
        if self.target == "noise":
            return (x - sigma * output) / alpha.clamp_min(SMALLEST), output
        if self.path == "flow":
            return x - sigma * output, x + alpha * output
        return alpha * x - sigma * output, sigma * x + alpha * output

    def convert(self, output: Tensor, x: Tensor, time: Tensor, target: str) -> Tensor:
        """Network output at (x, time) -> the same prediction expressed as another target, (b, ...)."""
        if target == self.target:
            return _mean(output, x).float()
        return self._replace(target=target).check().target_of(*self.split(output, x, time), time)

    def detail_gain(self, time: Tensor) -> Tensor:
        """What of the detail of x_t stands in the target, float32, the shape of ``time``: the best linear estimate.

        Detail of real data is weak, its variance 0.04 of that of the noise. So at high times, detail is noise.

        Example:
            >>> time = torch.tensor([0.9])
            >>> [round(Process("flow", target).detail_gain(time).item(), 2) for target in TARGETS]
            [0.0, 1.11, 1.11]
        """
        alpha, sigma = self.alpha_sigma(time)
        of_data, of_noise = alpha * DETAIL_POWER, sigma  # covariance of x_t with x0 and with the noise
        if self.target == "x0":
            shared = of_data
        elif self.target == "noise":
            shared = of_noise
        else:
            shared = of_noise - of_data if self.path == "flow" else alpha * of_noise - sigma * of_data
        return shared / (sigma.square() + alpha.square() * DETAIL_POWER)

    def passed_detail(self, x: Tensor, time: Tensor, mode: PatchMode, native: PatchMode, *, channels: int) -> Tensor:
        """What weak modes add to their output: the detail of x, (b, c, t, h, w), at times (b,) or (1,), by its gain.

        Of ``channels`` channels, of which those after c, a learned variance, are 0.
        """
        passed = self.detail_gain(time).view(-1, 1, 1, 1, 1) * detail(x, mode, native)
        return F.pad(passed, (0, 0, 0, 0, 0, 0, 0, channels - x.shape[1]))

    def _amplitudes(self, like: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (like.ndim - 1))
        alpha, sigma = self.alpha_sigma(time)
        return alpha.view(shape), sigma.view(shape)


def _mean(output: Tensor, x: Tensor) -> Tensor:
    """The output without the channels of a learned variance (DiT, Latte), which come last."""
    return output if output.shape == x.shape else output[:, : x.shape[1]]


@cache
def _alpha_bar(path: str) -> Tensor:
    """alpha^2 at times 0, 1/1000, ..., 1: a leading one, then diffusers' ``alphas_cumprod`` of the chain."""
    from diffusers import DDIMScheduler

    schedule = {"cosine": "squaredcos_cap_v2", "linear": "linear"}[path]
    with torch.device("cpu"):  # kept for all calls, so not on the device of the first one, which may be meta
        chain: Any = DDIMScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, beta_schedule=schedule)
        return torch.cat((torch.ones(1), chain.alphas_cumprod))

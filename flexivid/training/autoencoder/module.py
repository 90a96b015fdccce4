"""LightningModule of the causal autoencoder: reconstruction, KL and a perceptual term."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from flexivid.latents.causal_autoencoder import AutoencoderConfig, CausalAutoencoder
from flexivid.media.pixels import to_unit
from flexivid.metrics.extractors.motion import MIN_FRAMES, fit_frames, load_motion_net
from flexivid.metrics.fidelity import psnr
from flexivid.training.guarded import GuardedModule
from flexivid.training.optimizer import OptimizerSettings, build_optimizer, with_rate

SHAPE = AutoencoderConfig()
AVERAGE = 0.99  # share that the running mean and deviation of latents keep in a step


@dataclass(frozen=True)
class ReconstructionLoss:
    """Weights of the terms.

    Args:
        kl: Of the KL divergence to a standard normal distribution, per number of the latent.
        perceptual: Of the distance in the maps of the motion network; 0 leaves it out.
        huber: Errors below it, in units of [-1, 1], count squared, larger ones linearly.
    """

    kl: float = 1e-5
    perceptual: float = 0.05
    huber: float = 0.1


class PerceptualDistance:
    """Distance of videos in the early maps of the motion network: edges and how they move, where pixels alone blur.

    A plain object, so that the frozen network is neither trained nor saved.
    """

    def __init__(self) -> None:
        network = load_motion_net()
        self._layers: tuple[nn.Module, nn.Module] = network.stem, network.early

    def __call__(self, video: Tensor, target: Tensor) -> Tensor:
        """Mean distance of the maps of two (b, 3, t, h, w) in [-1, 1]; 0 for clips of too few frames for the network.

        Each map counts in units of its size in the target.
        """
        if target.shape[2] < MIN_FRAMES:
            return video.new_zeros(())
        for layer in self._layers:
            layer.to(video.device)
        with torch.autocast(video.device.type, enabled=False):
            x, y = fit_frames(video.float()), fit_frames(target.float())
            total = video.new_zeros(())
            for layer in self._layers:
                x, y = F.relu(layer(x)), F.relu(layer(y))
                size = y.abs().mean((2, 3, 4), keepdim=True) + 0.1
                total = total + ((x - y) / size).abs().mean()
        return total / len(self._layers)


class LatentStatistics(nn.Module):
    """Running mean and deviation of each channel of the latents, over the latest batches. Checkpoints keep its state.

    Example:
        >>> statistics = LatentStatistics(1)
        >>> statistics.add(torch.tensor([1.0, 3.0]).view(1, 1, 2, 1, 1))
        >>> [value.item() for value in statistics.values()]
        [2.0, 1.0]
    """

    mean: Tensor
    square: Tensor
    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("square", torch.zeros(channels))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def add(self, latent: Tensor) -> None:
        """Count a batch, (b, c, t, h, w)."""
        latent = latent.float()
        for total, value in ((self.mean, latent.mean((0, 2, 3, 4))), (self.square, latent.square().mean((0, 2, 3, 4)))):
            total.mul_(AVERAGE).add_(value, alpha=1 - AVERAGE)
        self.weight.mul_(AVERAGE).add_(1 - AVERAGE)

    def values(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation, (c,)."""
        mean = self.mean / self.weight
        return mean, (self.square / self.weight - mean.square()).clamp_min(1e-8).sqrt()


class AutoencoderTraining(GuardedModule):
    """Trains a ``CausalAutoencoder`` on clips of 1 + k ``temporal`` frames.

    Args:
        autoencoder: Its shape.
        loss: Weights of the terms.
        optimizer: How weights are updated.
        clip_size: Frames, rows and columns of a clip; the command line fills it from the data.
    """

    def __init__(
        self,
        autoencoder: AutoencoderConfig = SHAPE,
        loss: ReconstructionLoss = ReconstructionLoss(),
        optimizer: OptimizerSettings = OptimizerSettings(),
        clip_size: tuple[int, int, int] = (9, 64, 64),
    ) -> None:
        super().__init__(optimizer)
        self.latent_size = latent_size(autoencoder, clip_size)
        self.network = CausalAutoencoder(autoencoder)
        self.terms, self.perceptual = loss, PerceptualDistance() if loss.perceptual else None
        self.statistics = LatentStatistics(autoencoder.channels)

    def setup(self, stage: str) -> None:
        count = sum(parameter.numel() for parameter in self.network.parameters())
        size = "x".join(map(str, (self.network.config.channels, *self.latent_size)))
        rank_zero_info(f"training an autoencoder of {count / 1e6:.2f} M parameters; latents of a clip: {size}")

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        video = to_unit(batch["video"])
        mean, log_variance = self.network.encode(video, chunk=video.shape[2]).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        self.statistics.add(mean.detach())
        copy = self.network.decode(latent, chunk=4 * video.shape[2]).float()
        error = self._error(copy, video)
        self.zero_loss = self._error(torch.zeros_like(video), video) + self.terms.perceptual
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = error + self.terms.kl * divergence
        if self.perceptual is not None:
            distance = self.perceptual(copy, video)
            loss = loss + self.terms.perceptual * distance
            self.log("train/perceptual", distance.detach(), batch_size=len(video))
        self.log("train/loss", loss.detach(), batch_size=len(video), prog_bar=True)
        self.log("train/kl", divergence.detach(), batch_size=len(video))
        self.log("train/psnr", psnr(copy.detach().clamp(-1, 1), video).mean(), batch_size=len(video), prog_bar=True)
        return loss

    def _error(self, copy: Tensor, video: Tensor) -> Tensor:
        """Huber loss, scaled so that a large error counts as its absolute value."""
        return F.huber_loss(copy, video, delta=self.terms.huber) / self.terms.huber

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """PSNR of held-out clips, in dB; pictures are the second loader."""
        video = to_unit(batch["video"])
        value = psnr(self.reconstruct(video).clamp(-1, 1), video).mean()
        name, log = ("val/psnr", "val/picture_psnr")[dataloader_idx], partial(self.log, add_dataloader_idx=False)
        log(name, value, batch_size=len(video), sync_dist=True, prog_bar=True)

    @torch.no_grad()
    def reconstruct(self, video: Tensor) -> Tensor:
        """Encode videos (b, 3, t, h, w) to the mean of their latents, and decode those."""
        return self.network.decode(self.network.encode(video).chunk(2, dim=1)[0]).float()

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.network, self.optimizer_settings)
        steps = self.trainer.max_steps
        total = max(1, steps if steps > 0 else self.trainer.estimated_stepping_batches)
        return with_rate(optimizer, self.optimizer_settings, lambda step: step / total)


def latent_size(config: AutoencoderConfig, clip: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size (t, h, w) of the latent of a clip; ``ValueError`` if the clip does not fit.

    Example:
        >>> latent_size(AutoencoderConfig(), (9, 64, 64))
        (3, 8, 8)
    """
    frames, height, width = clip
    if (frames - 1) % config.temporal or height % config.spatial or width % config.spatial:
        fit = 1 + math.ceil((frames - 1) / config.temporal) * config.temporal
        raise ValueError(
            f"got clips of {frames} frames of {height}x{width}; expected {config.temporal}k + 1 frames, such as {fit},"
            f" and multiples of {config.spatial} pixels; change data.num_frames or data.size"
        )
    return (frames - 1) // config.temporal + 1, height // config.spatial, width // config.spatial

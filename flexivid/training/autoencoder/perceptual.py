"""Distance of videos in the early maps of the motion network: edges and how they move, where pixels alone blur."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexivid.metrics.extractors.motion import MIN_FRAMES, fit_frames, load_motion_net


class PerceptualDistance:
    """A plain object, so that the frozen network is neither trained nor saved.

    Example:
        >>> distance = PerceptualDistance()
        >>> video = torch.zeros(1, 3, 4, 32, 32)
        >>> distance(video, video).item()
        0.0
    """

    def __init__(self) -> None:
        network = load_motion_net()
        self._layers: tuple[nn.Module, nn.Module] = network.stem, network.early

    def __call__(self, video: Tensor, target: Tensor) -> Tensor:
        """Mean distance of the maps, each in units of its size in the target.

        Args:
            video: (b, 3, t, h, w) in [-1, 1]; gradients go through it.
            target: Likewise. Clips of fewer frames than the network takes count 0.

        Returns:
            A number, at least 0.
        """
        if target.shape[2] < MIN_FRAMES:
            return video.new_zeros(())
        for layer in self._layers:
            layer.to(video.device)
        with torch.autocast(video.device.type, enabled=False):
            maps, (total) = (fit_frames(video.float()), fit_frames(target.float())), video.new_zeros(())
            for layer in self._layers:
                maps = F.relu(layer(maps[0])), F.relu(layer(maps[1]))
                size = maps[1].abs().mean((2, 3, 4), keepdim=True) + 0.1
                total = total + ((maps[0] - maps[1]) / size).abs().mean()
        return total / len(self._layers)

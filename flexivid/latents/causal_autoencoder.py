"""A small video autoencoder of our own, causal in time, to train in latents without a download.

Frames are rows of a batch, slowest axis first, (t b, c, h, w): convolutions in space are 2-D, and those in time are 1x1
ones over a frame and the two before it, which CPUs compute fast. There are no norms: they would look into the future.
Clips can be coded in chunks; what a layer needs of the chunk before is kept in ``Past``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from flexivid.runtime.files import save_json
from flexivid.runtime.finite import require_finite_weights
from flexivid.runtime.weights import save_weights

CONFIG, WEIGHTS, CLASS = "config.json", "diffusion_pytorch_model.safetensors", "CausalAutoencoder"
PATCH = 4  # pixels of a side that the first layer sees as channels
CHUNK = 16  # frames, or those that as many latent frames stand for
Past = dict[nn.Module, Tensor]  # the last two frames that a layer saw, (2b, c, h, w)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of a ``CausalAutoencoder``.

    Args:
        channels: Of the latents.
        spatial: Pixels of a latent's row: 4 or 8.
        temporal: Frames of a latent frame but the first: 2 or 4.
        width: Channels inside.
        depth: Blocks of a stage.
        mean: Of the latents of the training data, for each channel; empty = 0.
        std: Their deviation; empty = 1.
    """

    channels: int = 16
    spatial: int = 8
    temporal: int = 4
    width: int = 96
    depth: int = 2
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.spatial not in (4, 8) or self.temporal not in (2, 4):
            raise ValueError(
                f"got spatial={self.spatial}, temporal={self.temporal} of an autoencoder; expected 4 or 8, and 2 or 4;"
                " change model.autoencoder"
            )
        if min(self.channels, self.width, self.depth) < 1 or {len(self.mean), len(self.std)} - {0, self.channels}:
            raise ValueError(
                f"got channels={self.channels}, width={self.width}, depth={self.depth}, {len(self.mean)} means and"
                f" {len(self.std)} deviations; expected at least 1, and one or none of each a channel; change"
                " model.autoencoder"
            )


def with_past(layer: nn.Module, x: Tensor, batch: int, past: Past) -> Tensor:
    """Stack each frame on the two before it, (t b, c, h, w) -> (t b, 3c, h, w); the first frame is repeated.

    Example:
        >>> frames = torch.arange(3.0).view(3, 1, 1, 1)
        >>> with_past(nn.Identity(), frames, 1, {}).flatten(1).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 2.0]]
    """
    before = past.get(layer)
    x = torch.cat([x[:batch], x[:batch], x] if before is None else [before, x])
    past[layer] = x[-2 * batch :]
    return torch.cat([x[: -2 * batch], x[batch:-batch], x[2 * batch :]], dim=1)


class Block(nn.Module):
    """Two convolutions in space and one in time, each side of a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.time = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor, batch: int, past: Past) -> Tensor:
        x = x + self.second(F.relu(self.first(F.relu(x))))
        return x + self.time(with_past(self, F.relu(x), batch, past))


class TimeDown(nn.Module):
    """Halve the frame rate; each frame sees the two before it: 1 + 2k frames -> 1 + k, in later chunks 2k -> k."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor, batch: int, past: Past) -> Tensor:
        first = 1 if self in past else 0
        stacked = with_past(self, F.relu(x), batch, past)
        halves = [rows.unflatten(0, (-1, batch))[first::2].flatten(0, 1) for rows in (x, stacked)]
        return halves[0] + self.time(halves[1])


class TimeUp(nn.Module):
    """Double the frame rate after the first frame: 1 + k frames -> 1 + 2k, in later chunks k -> 2k."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Conv2d(3 * width, 2 * width, 1)

    def forward(self, x: Tensor, batch: int, past: Past) -> Tensor:
        is_first = self not in past
        pair = self.time(with_past(self, F.relu(x), batch, past)) + torch.cat([x, x], dim=1)
        frames = torch.stack([part.unflatten(0, (-1, batch)) for part in pair.chunk(2, dim=1)], dim=1)  # t 2 b c h w
        return frames.flatten(0, 2)[batch if is_first else 0 :]


class Resize(nn.Module):
    """Halves or doubles rows and columns."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, batch: int, past: Past) -> Tensor:
        return self.layers(x)


class CausalAutoencoder(nn.Module):
    """Videos (b, 3, 1 + k temporal, h, w) in [-1, 1] to latents (b, c, 1 + k, h / spatial, w / spatial) and back.

    Example:
        >>> network = CausalAutoencoder(AutoencoderConfig(width=16))
        >>> network.encode(torch.zeros(1, 3, 9, 32, 32)).shape  # means and logarithms of variances
        torch.Size([1, 32, 3, 4, 4])
        >>> network.decode(torch.zeros(1, 16, 3, 4, 4)).shape
        torch.Size([1, 3, 9, 32, 32])
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        width, pixels = config.width, 3 * PATCH**2
        half = config.spatial // PATCH == 2
        halvings = config.temporal // 2
        down: list[nn.Module] = [Block(width) for _ in range(config.depth)]
        down += [Resize(nn.Conv2d(width, width, 3, 2, 1))] if half else []
        up: list[nn.Module] = [Block(width) for _ in range(config.depth)]
        for _ in range(halvings):
            down += [TimeDown(width), *(Block(width) for _ in range(config.depth))]
            up += [TimeUp(width), *(Block(width) for _ in range(config.depth))]
        up += [Resize(nn.Conv2d(width, 4 * width, 1), nn.PixelShuffle(2)), Block(width)] if half else []
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        self.pixels_in, self.latent_out = conv(pixels, width), conv(width, 2 * config.channels)
        self.latent_in, self.pixels_out = conv(config.channels, width), conv(width, pixels)
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)

    def encode(self, video: Tensor, chunk: int = CHUNK) -> Tensor:
        """Means and logarithms of variances, (b, 2c, t, h, w); in chunks of so many frames, a multiple of 4."""
        past: Past = {}
        return torch.cat([self._encode(part, past) for part in _chunks(video, chunk)], dim=2)

    def decode(self, latent: Tensor, chunk: int = CHUNK) -> Tensor:
        """Videos (b, 3, t, h, w); in chunks that make so many frames."""
        past: Past = {}
        return torch.cat([self._decode(part, past) for part in _chunks(latent, chunk // self.config.temporal)], dim=2)

    def save(self, folder: str | Path) -> Path:
        """Write ``config.json`` and the weights into a folder that ``build_codec`` reads; returns the folder.

        Nothing is written if a weight holds NaN or infinity (``NotFiniteError``).
        """
        folder = Path(folder)
        weights = {name: tensor.float() for name, tensor in self.state_dict().items()}
        require_finite_weights(weights, f"an autoencoder for {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / WEIGHTS, weights)
        save_json(folder / CONFIG, {"_class_name": CLASS, **asdict(self.config)})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> CausalAutoencoder:
        """Read what ``save`` wrote; in evaluation mode, float32."""
        network = cls.without_weights(folder)
        network.load_state_dict(load_file(Path(folder) / WEIGHTS))
        return network.eval()

    @classmethod
    def without_weights(cls, folder: str | Path) -> CausalAutoencoder:
        """Make a network of the shape that a folder holds, with random weights."""
        settings: dict[str, Any] = json.loads((Path(folder) / CONFIG).read_text())
        settings.pop("_class_name", None)
        settings |= {name: tuple(settings[name]) for name in ("mean", "std")}
        return cls(AutoencoderConfig(**settings))

    def normalised(self, mean: Tensor, std: Tensor) -> None:
        """Store the mean and deviation of latents, (c,), in the configuration."""
        self.config = replace(self.config, mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def _encode(self, video: Tensor, past: Past) -> Tensor:
        batch = len(video)
        x = F.pixel_unshuffle(_rows(video), PATCH)  #       (t b) 48 h/4 w/4
        x = self.pixels_in(x.contiguous(memory_format=torch.channels_last))
        for layer in self.down:
            x = layer(x, batch, past)
        return _video(self.latent_out(x), batch)

    def _decode(self, latent: Tensor, past: Past) -> Tensor:
        batch = len(latent)
        x = self.latent_in(_rows(latent).contiguous(memory_format=torch.channels_last))
        for layer in self.up:
            x = layer(x, batch, past)
        return _video(F.pixel_shuffle(self.pixels_out(F.relu(x)), PATCH), batch)


def _rows(video: Tensor) -> Tensor:
    """(b, c, t, h, w) -> (t b, c, h, w)."""
    return video.permute(2, 0, 1, 3, 4).flatten(0, 1)


def _video(rows: Tensor, batch: int) -> Tensor:
    """(t b, c, h, w) -> (b, c, t, h, w)."""
    return rows.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4).contiguous()


def _chunks(x: Tensor, chunk: int) -> list[Tensor]:
    """The first frame with as many more, then so many at a time."""
    first = min(x.shape[2], 1 + chunk)
    rest = x[:, :, first:]
    return [x[:, :, :first], *(rest.split(chunk, dim=2) if rest.shape[2] else [])]

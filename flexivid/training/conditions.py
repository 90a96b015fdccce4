"""What a batch becomes before the network sees it: latents, labels, text, given frames. Trains nothing.

Autoencoder and text encoder are loaded on first use, and not at all where the data bring latents and encoded text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.budget.cost import macs, text_macs
from flexivid.latents.codec import Codec, build_codec
from flexivid.latents.settings import CodecSettings, TextSettings, codec_settings, require_fingerprint, text_settings
from flexivid.latents.text_encoder import LONGEST, TextEncoder, text_channels
from flexivid.media.pixels import to_unit
from flexivid.model.conditioning import Condition, Frames, Text
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.recipe import Recipe
from flexivid.patching.shapes import PatchMode
from flexivid.sampling.encoders import share_encoders
from flexivid.training.objective import GivenFrames, Objective
from flexivid.training.resume import FINGERPRINTS


class Clips(NamedTuple):
    """What the module must know about the data before it sees any."""

    size: tuple[int, int, int] = (8, 32, 32)  # frames, height, width in pixels
    num_classes: int = 0  # 0 for none
    batch_size: int = 32  # clips of a native step on each rank
    latent: tuple[int, int, int, int] | None = None  # channels and size (c, t, h, w), where the data bring latents
    codec: CodecSettings | None = None  # what made them
    text_encoder: TextSettings | None = None  # what encoded the captions, where the data bring them encoded
    text_channels: int = 0  # features of the encoded captions


class Encoders:
    """The autoencoder and the text encoder of a run. A plain object that copies of the module share.

    ``codec=None`` is the one that made the latents, or ``pixel``; ``text_encoder=None`` the one that encoded the
    captions, or none.

    Example:
        >>> encoders = Encoders(Clips(size=(8, 32, 32)))
        >>> encoders.latent_shape, encoders.codec_settings.source, encoders.text_settings
        ((3, 8, 32, 32), 'pixel', None)
    """

    def __init__(
        self,
        clips: Clips,
        codec: str | Mapping[str, Any] | CodecSettings | None = None,
        text_encoder: str | Mapping[str, Any] | TextSettings | None = None,
    ) -> None:
        self.clips = clips
        self.codec_settings = codec_settings(codec or clips.codec or "pixel")
        text, made_by = text_settings(text_encoder) if text_encoder else clips.text_encoder, clips.text_encoder
        if text and made_by and text.source == made_by.source and text.max_length in (None, made_by.max_length):
            text = made_by  # what the run leaves open is as it was encoded, for samples too
        self.text_settings = text
        self.text_tokens = text.max_length or LONGEST if text else 0  # of the latest batch, padding included
        self._codec: Codec | None = None
        self._text_encoder: TextEncoder | None = None
        self._fingerprints: dict[str, str | None] = {}  # of what encoded the data

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoders:
        """Averages of the weights copy the module, but there is one autoencoder."""
        return self

    @cached_property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels and size (c, t, h, w) of the latent of a clip; reads the configuration of the codec alone."""
        if self.clips.latent is not None:
            return self.clips.latent
        codec = build_codec(self.codec_settings, weights=False)
        return (codec.channels, *codec.latent_size(*self.clips.size))

    def shape_of(self, network: FlexiDiTConfig, shares: GivenFrames) -> FlexiDiTConfig:
        """Fill in what the data and the encoders say about a network."""
        channels = self.clips.text_channels
        if self.text_settings is not None and not channels:
            channels = text_channels(self.text_settings)
        return replace(
            network,
            num_classes=self.clips.num_classes,
            in_channels=self.latent_shape[0],
            out_channels=None,
            text_channels=channels,
            given_frames=network.given_frames or shares.is_used,
        )

    def described(self) -> list[str]:
        """Lines for people: what the codec makes of a clip, and what encodes captions; none for pixels without text."""
        lines, (channels, *latent) = [], self.latent_shape
        when = ("encoded in every step", "encoded beforehand")
        sizes = " -> ".join("x".join(map(str, size)) for size in (self.clips.size, latent))
        if (source := self.codec_settings.source) != "pixel":
            lines.append(f"codec {source}: {sizes}, {channels} channels, {when[bool(self.clips.latent)]}")
        if text := self.text_settings:
            ready = when[bool(self.clips.text_channels)]
            lines.append(f"text encoder {text.source}: at most {self.text_tokens} tokens, {ready}")
        return lines

    def codec(self, device: torch.device | str) -> Codec:
        self._codec = self._codec or build_codec(self.codec_settings)
        return self._codec.to(device)

    def text_encoder(self, device: torch.device | str) -> TextEncoder:
        """The text encoder, loaded on first use; it stays on that device."""
        assert self.text_settings is not None
        self._text_encoder = self._text_encoder or TextEncoder(self.text_settings, device)
        return self._text_encoder

    def share_with(self, network: FlexiDiT) -> None:
        """Let samples of the network use what is loaded here."""
        share_encoders(network, self._codec, self._text_encoder)

    def latents(self, batch: Mapping[str, Any], device: torch.device, seed: int) -> Tensor:
        """Latents of a batch, (b, c, t, h, w) float32: its ``latent``, or its encoded ``video``, (b, 3, t, h, w) uint8.

        The seed is for latents that are drawn from the posterior.
        """
        if "latent" in batch:
            return batch["latent"].float()
        video = to_unit(batch["video"])
        if not self.codec_settings.sample:
            return self.codec(device).encode(video)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            return self.codec(device).encode(video)

    def text(self, batch: Mapping[str, Any], device: torch.device) -> Text | None:
        """Text of a batch; ``None`` where the run has none. A batch without captions is a ``ValueError``."""
        if self.text_settings is None and not self.clips.text_channels:
            return None
        if "text_features" in batch:
            text = Text(batch["text_features"], batch["text_mask"])
        elif "caption" in batch:
            text = Text(*self.text_encoder(device).encode(batch["caption"]))
        else:
            raise ValueError(_no_captions(self.text_settings))
        self.text_tokens = text.features.shape[1]
        return text

    def prepare(self, data: Any, device: torch.device, start: Recipe | None = None) -> None:
        """Check a data module after its ``setup`` against the codec and the text encoder, and load those it needs.

        ``start`` is the recipe of the weights that the run starts from. ``ValueError`` if these do not fit together.
        """
        self._prepare(data, device)
        needed = {kind: expected for kind, key in FINGERPRINTS.items() if (expected := getattr(start, key, None))}
        entries = self.recipe_entries() if needed else {}
        for kind, expected in needed.items():
            if fingerprint := entries[FINGERPRINTS[kind]]:
                why = "that of the weights of model.init_from; encode the data with it, or start from other weights"
                require_fingerprint(kind.replace("_", " "), entries[kind].source, fingerprint, expected, why=why)

    def _prepare(self, data: Any, device: torch.device) -> None:
        made_by = getattr(data, "latent_codec", None)
        if made_by is not None:
            self._fingerprints["codec"] = getattr(data, "codec_fingerprint", None)
            self._require_same_codec(codec_settings(made_by))
        elif data is not None:
            self.codec(device)
        if self.text_settings is None or data is None:
            return
        if getattr(data, "text_channels", 0):
            self._fingerprints["text"] = getattr(data, "text_fingerprint", None)
            self._require_same_text(text_settings(data.text_encoder))
        elif getattr(data, "has_captions", True):
            self.text_encoder(device)
        else:
            raise ValueError(_no_captions(self.text_settings))

    def recipe_entries(self) -> dict[str, Any]:
        """What a recipe says about both; fingerprints are ``None`` for pixels, without text and where unknown."""
        is_pixel = self.codec_settings.source == "pixel"
        codec, text = self._fingerprints.get("codec"), self._fingerprints.get("text")
        if "codec" not in self._fingerprints and not is_pixel and self.clips.latent is None:
            codec = (self._codec or self.codec("cpu")).fingerprint
        if "text" not in self._fingerprints and self.text_settings is not None and not self.clips.text_channels:
            encoder = self._text_encoder or TextEncoder(self.text_settings)
            text = self._fingerprints["text"] = encoder.fingerprint()
        return {
            "codec": self.codec_settings,
            "codec_fingerprint": codec,
            "text_encoder": self.text_settings,
            "text_fingerprint": text,
            "num_frames": None if is_pixel else self.clips.size[0],
        }

    def _require_same_codec(self, made_by: CodecSettings) -> None:
        """Settings of another source may be of the same weights: these are read only then."""
        if self.clips.latent is not None and made_by.source == self.codec_settings.source:
            return
        why = f"that of {made_by.source}, which made the latents of the data; change data.root or model.codec"
        source, fingerprint = self.codec_settings.source, build_codec(self.codec_settings).fingerprint
        require_fingerprint("codec", source, fingerprint, self._fingerprints["codec"], why=why)

    def _require_same_text(self, made_by: TextSettings) -> None:
        assert self.text_settings is not None
        if made_by == self.text_settings:
            return
        why = f"that of {made_by.to_plain()}, which encoded the captions; change model.text_encoder, or encode again"
        source, fingerprint = str(self.text_settings.to_plain()), TextEncoder(self.text_settings).fingerprint()
        require_fingerprint("text encoder", source, fingerprint, self._fingerprints["text"] or "unknown", why=why)


def dropped(condition: Condition, chance: Tensor | None, objective: Objective, *, num_classes: int) -> Condition:
    """Replace some conditions by the null ones, as guidance needs it, and labels below 0 by the null class.

    ``chance`` are uniform draws, (b,); one decides on label and text of a sample. ``None`` drops nothing.

    Example:
        >>> condition, chance = Condition(torch.tensor([3, 8, -1])), torch.tensor([0.05, 0.5, 0.5])
        >>> dropped(condition, chance, Objective(label_dropout=0.1), num_classes=10).label.tolist()
        [10, 8, 10]
    """
    label, text = condition.label, condition.text
    assert label is not None
    chance = torch.ones(len(label)) if chance is None else chance
    label = torch.where((chance < objective.label_dropout).to(label.device) | (label < 0), num_classes, label)
    if isinstance(text, Text) and text.mask is not None:
        text = text._replace(mask=text.mask & (chance >= objective.text_dropout).to(text.mask.device)[:, None])
    return condition._replace(label=label, text=text)


def step_macs(
    network: FlexiDiTConfig,
    size: tuple[int, int, int],
    calls: Sequence[tuple[PatchMode, int]],
    batch: int,
    *,
    text_tokens: int,
) -> int:
    """MACs of a training step on a rank, text read. ``calls`` are modes and passes; a backward pass counts as two."""
    reading = text_macs(network, text_tokens)
    return batch * sum(n * (macs(network, size, mode, text_tokens=text_tokens) + reading) for mode, n in calls)


def given_mask(shares: GivenFrames, frames: int, samples: int, generator: torch.Generator) -> Tensor:
    """Draw which of the latent frames of each sample are given, bool (b, t); never all frames of one.

    Example:
        >>> given_mask(GivenFrames(both=1.0), 4, 1, torch.Generator()).tolist()
        [[True, False, False, True]]
    """
    kinds = torch.tensor([shares.first, shares.last, shares.both, shares.prefix]).cumsum(0)
    kind, share = torch.rand(2, samples, 1, generator=generator)
    kind = torch.searchsorted(kinds, kind, right=True)  # 4 = none
    length = 1 + (share * shares.longest_prefix(frames)).long()
    position = torch.arange(frames)
    is_first = (position == 0) & ((kind == 0) | (kind == 2))
    is_last = (position == frames - 1) & ((kind == 1) | (kind == 2))
    mask = is_first | is_last | ((position < length) & (kind == 3))
    return mask & ~mask.all(1, keepdim=True)


def frames_of(x0: Tensor, mask: Tensor) -> Frames:
    """Given frames by their mask (b, t), as the network takes them."""
    return Frames(x0, mask.to(x0.device, x0.dtype)[:, None, :, None, None].expand(-1, -1, -1, *x0.shape[3:]))


def _no_captions(settings: TextSettings | None) -> str:
    return (
        f"got text encoder {settings.source if settings else 'of the data'} for data without captions; expected some"
        " (a column `text` of metadata.csv, or class names encoded as captions); add them, or remove model.text_encoder"
    )

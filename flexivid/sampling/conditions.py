"""What all samples of a run should show: classes, prompts, given frames, by global index.

Prompts are encoded once a run, all to one length, so that what a sample costs depends on no batch. The network reads
the texts of a batch once, not at every step. A second branch of guidance is without class and prompt; the negative
prompt, where there is one, stands in it. It has the given frames too, unless guidance goes over them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flexivid.data.lists.cells import text_of
from flexivid.data.lists.text import read_lines
from flexivid.model.conditioning import Condition, Frames, Text, check_labels
from flexivid.model.flexidit import FlexiDiT
from flexivid.sampling.encoders import encoder_of
from flexivid.sampling.settings import Settings, labels_for

ENCODED = 64  # prompts that the text encoder sees at once


@dataclass(frozen=True, eq=False)
class Conditions:
    """What each sample should show.

    Example:
        >>> conditions = Conditions(torch.tensor([3, 8, 3]))
        >>> len(conditions), conditions.take([1, 2]).labels.tolist(), conditions.text_tokens
        (3, [8, 3], 0)
    """

    labels: Tensor  # classes, int64 (n,)
    prompts: tuple[str, ...] = ()  # of each sample; empty without prompts
    negative_prompt: str = ""  # what guidance leads away from; empty = the null text
    text: Text | None = None  # features of the distinct prompts and of the negative one, which is the last, (m, l, f)
    rows: Tensor | None = None  # which of these each sample has, int64 (n,)
    frames: Frames | None = None  # given frames of all samples, latent (1, c, t, h, w)
    own_frames: Tensor | None = None  # of each sample, in their place, (n, c, k, h, w) for k latent frames of the mask
    frames_source: str = ""  # where these are from, in words
    source: str = ""  # where the prompts are from, in words
    seen: str = ""  # how many of them were trained on, in words; empty = unknown

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def text_tokens(self) -> int:
        """Tokens of each text, padding included."""
        return 0 if self.text is None else self.text.features.shape[1]

    def take(self, indices: Sequence[int]) -> Conditions:
        """Those of some samples."""
        index = torch.as_tensor(list(indices), dtype=torch.long)
        return replace(
            self,
            labels=self.labels[index],
            prompts=tuple(self.prompts[i] for i in index.tolist()) if self.prompts else (),
            rows=None if self.rows is None else self.rows[index],
            own_frames=None if self.own_frames is None else self.own_frames[index],
        )

    def check(self, model: FlexiDiT) -> Conditions:
        """Return itself; ``ValueError`` if the model cannot show them."""
        check_labels(self.labels, model.config.num_classes)
        if self.text is not None and not model.config.text_channels:
            raise ValueError("got prompts for a model without text; expected none; leave them out")
        if self.frames is not None and not model.config.given_frames:
            raise ValueError(
                "got given frames for a model without; expected none; leave them out, or train with given_frames"
            )
        return self

    def shown(self, device: torch.device) -> Condition:
        """What a batch of all these samples should show."""
        return Condition(self.labels.to(device), self._texts(self.rows, device), self.frames_on(device))

    def null(self, model: FlexiDiT, device: torch.device, *, frames: bool) -> Condition:
        """What the second branch of guidance shows instead: no class, the negative prompt, the given frames or none."""
        labels = torch.full_like(self.labels, model.config.num_classes).to(device)
        rows = None if self.text is None else torch.full((len(self),), len(self.text.features) - 1)
        return Condition(labels, self._texts(rows, device), self.frames_on(device) if frames else None)

    def describe(self) -> dict[str, Any]:
        """What all samples have in common beside the classes, plain data; empty without text and given frames."""
        texts = {"negative_prompt": self.negative_prompt} if self.text is not None else {}
        return texts if self.frames is None else {**texts, "given_frames": self.frames_source or _digest(self.frames)}

    def protocol(self) -> dict[str, Any]:
        """The same, with the prompts: what an evaluation says of them."""
        words = "\n".join(self.prompts).encode()
        texts = {"prompts": f"{self.source} {hashlib.sha256(words).hexdigest()[:16]}".strip()} if self.prompts else {}
        return {**texts, **self.describe()}

    def prompt_digests(self) -> Tensor | None:
        """A number for the prompt of each sample, int64 (n,); ``None`` without prompts."""
        digests = [hashlib.sha256(prompt.encode()).digest()[:8] for prompt in self.prompts]
        numbers = [int.from_bytes(digest, "big", signed=True) for digest in digests]
        return torch.tensor(numbers, dtype=torch.long) if numbers else None

    def _texts(self, rows: Tensor | None, device: torch.device) -> Text | None:
        if self.text is None or rows is None:
            return None
        return Text(*(part[rows].to(device) for part in self.text if part is not None))

    def frames_on(self, device: torch.device) -> Frames | None:
        """Given frames for each of the samples."""
        if self.frames is None:
            return None
        latent, mask = (part.to(device).expand(len(self), -1, -1, -1, -1) for part in self.frames)
        if self.own_frames is not None:
            latent = latent.clone()
            latent[:, :, is_given(self.frames)] = self.own_frames.to(device)
        return Frames(latent, mask)


def conditions_for(
    model: FlexiDiT,
    num_videos: int | None = None,
    *,
    labels: Sequence[int] | Tensor | None = None,
    prompts: Sequence[str] | None = None,
    negative_prompt: str | None = None,
    frames: Frames | None = None,
) -> Conditions:
    """What the videos of a run should show: labels and prompts in turn, prompts alone, or else all classes in turn.

    ``num_videos`` is by default one a label or prompt, whichever are more, or one. Prompts above the encoder's limit
    are cut, with a warning; guidance leads away from ``negative_prompt``; ``frames`` are from ``given_frames``.
    ``ValueError`` if the model cannot show what is asked for, or a label is out of range.

    Example:
        >>> from flexivid import FlexiDiTConfig
        >>> model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, num_classes=3))
        >>> conditions_for(model, 5).labels.tolist()
        [0, 1, 2, 0, 1]
    """
    count = max(0 if labels is None else len(labels), len(prompts or ())) or None
    classes = labels_for(model, count if num_videos is None else num_videos, labels)
    if prompts and labels is None:  # a prompt says all
        classes = torch.full_like(classes, model.config.num_classes)
    conditions = Conditions(classes, frames=frames)
    if prompts or negative_prompt:
        texts = list(prompts or [""])
        cycle = [texts[i % len(texts)] for i in range(len(classes))]
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(cycle))}
        text = encode_prompts(model, [*numbers, negative_prompt or ""])
        rows = torch.tensor([numbers[prompt] for prompt in cycle])
        conditions = replace(
            conditions, prompts=tuple(cycle), negative_prompt=negative_prompt or "", text=text, rows=rows
        )
    return conditions.check(model)


def read_prompts(prompts: Sequence[str] | None, file: str | None) -> list[str] | None:
    """Prompts of the command line, or the lines of a file; ``None`` without.

    ``ValueError`` if there are both, a file without lines, or bytes that are no text.

    Example:
        >>> read_prompts(["a red square"], None)
        ['a red square']
    """
    if file is None:
        return [checked_prompt(prompt) for prompt in prompts] if prompts else None
    if prompts:
        raise ValueError("got --prompt and --prompts-file; expected one of them; leave one out")
    lines = read_lines(file)
    if not lines:
        raise ValueError(f"got --prompts-file {file} without a line; expected a prompt a line; write some")
    return lines


def checked_prompt(prompt: str) -> str:
    """Return a prompt that came as an argument, whose bytes must be UTF-8."""
    try:
        return text_of(prompt) or ""
    except ValueError as error:
        raise ValueError(f"got a prompt, which holds {error}; give it as UTF-8") from error


def null_conditions(model: FlexiDiT, settings: Settings, num_videos: int) -> Conditions:
    """Class 0 and empty texts of the length in the settings, for calls that only warm up or are only timed."""
    labels = torch.zeros(num_videos, dtype=torch.long)
    if not settings.text_tokens:
        return Conditions(labels)
    shape = (1, settings.text_tokens)
    text = Text(torch.zeros(*shape, model.config.text_channels), torch.zeros(shape, dtype=torch.bool))
    return Conditions(labels, ("",) * num_videos, text=text, rows=torch.zeros_like(labels))


def encode_prompts(model: FlexiDiT, prompts: Sequence[str]) -> Text:
    """Features of prompts by the model's text encoder, all of one length, on the CPU: (n, l, f) and mask (n, l)."""
    encoder = encoder_of(model)
    blocks = [encoder.encode(prompts[first : first + ENCODED]) for first in range(0, len(prompts), ENCODED)]
    longest = max(block.mask.shape[1] for block in blocks)
    padding = [longest - block.mask.shape[1] for block in blocks]
    features = [F.pad(block.features.cpu(), (0, 0, 0, pad)) for block, pad in zip(blocks, padding, strict=True)]
    masks = [F.pad(block.mask.cpu(), (0, pad)) for block, pad in zip(blocks, padding, strict=True)]
    return Text(torch.cat(features), torch.cat(masks))


def is_given(frames: Frames) -> Tensor:
    """Which latent frames are given, bool (t,) on the CPU.

    Example:
        >>> is_given(Frames(torch.zeros(1, 3, 2, 4, 4), torch.ones(1, 1, 2, 4, 4))).tolist()
        [True, True]
    """
    return frames.mask[0, 0, :, 0, 0].cpu() > 0


def take(part: Any, rows: slice | Tensor) -> Any:
    """Some samples of a batch, of tensors and named tuples of them.

    Example:
        >>> take(Condition(torch.tensor([3, 8, 5])), slice(1, 3)).label.tolist()
        [8, 5]
    """
    if isinstance(part, tuple):
        parts = [take(each, rows) for each in part]
        return type(part)(*parts) if hasattr(part, "_fields") else tuple(parts)
    return None if part is None else part[rows]


def _digest(frames: Frames) -> str:
    data = b"".join(part.float().contiguous().numpy().tobytes() for part in frames)
    return hashlib.sha256(data).hexdigest()[:16]

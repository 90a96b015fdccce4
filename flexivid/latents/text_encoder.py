"""Text encoders: captions become features that a network attends to. Any encoder of transformers, by folder or hub id.

Loads frozen weights and knows no network. An empty caption is the null text: it has no tokens at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexivid.latents.settings import TextSettings as TextSettings
from flexivid.runtime.device import DTYPES
from flexivid.runtime.hub import cache_alone, cached_folder
from flexivid.runtime.paths import HUB_ID, resolve
from flexivid.runtime.weights import add_weights

LONGEST = 256  # tokens, where neither the settings nor the encoder have a limit
PIPELINE = ("text_encoder", "tokenizer")  # folders of a pipeline of diffusers


class CutCaptionWarning(UserWarning):
    """A caption is longer than the encoder reads, and the rest of it is left out."""


class EncodedText(NamedTuple):
    """Captions as features."""

    features: Tensor  # (b, l, f), zero where there is no token
    mask: Tensor  # True for tokens of the caption, bool (b, l)


class TextEncoder:
    """A frozen text encoder with its tokenizer. A plain object, never a submodule of what is trained."""

    def __init__(self, settings: TextSettings, device: str | torch.device = "cpu") -> None:
        self.settings = settings
        self.device = torch.device(device)
        self._model, self._tokenizer = _load(settings)
        self._model.to(self.device)
        self.channels = int(self._model.config.hidden_size)
        self.max_length = settings.max_length or min(LONGEST, _limit(self._tokenizer, self._model))

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> EncodedText:
        """Captions, one a sample -> features, as long as the longest caption of the batch.

        An empty caption is the null text. Captions above ``max_length`` tokens are cut, with a warning.

        Raises:
            ValueError: If there are none, or one is no text.
        """
        if not captions or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"got captions {captions!r}; expected one text a sample; give at least one")
        tokens = self._tokens(captions).to(self.device)
        if not tokens.input_ids.shape[1]:  # only null texts, of a tokenizer that marks no end
            features = torch.zeros(len(captions), 1, self.channels, device=self.device)
            return EncodedText(features, torch.zeros(len(captions), 1, dtype=torch.bool, device=self.device))
        with torch.autocast(self.device.type, enabled=False):  # features encoded beforehand are those of a training
            features = self._model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        spoken = torch.tensor([bool(caption.strip()) for caption in captions], device=self.device)
        mask = tokens.attention_mask.bool() & spoken[:, None]
        return EncodedText(features.masked_fill(~mask[..., None], 0), mask)

    def fingerprint(self) -> str:
        """Identify the features by 16 hexadecimal digits of weights, precision, vocabulary size and limit.

        The length of a batch does not change features, so it does not count; the limit cuts captions, so it does.
        """
        digest = hashlib.sha256(f"{self.max_length} {self.settings.dtype} {len(self._tokenizer)}".encode())
        add_weights(digest.update, self._model.state_dict())
        return digest.hexdigest()[:16]

    def _tokens(self, captions: Sequence[str]) -> Any:
        """Token ids and mask, (b, l) each. Captions are tokenised again only if one of them must be cut."""
        tokens = self._tokenizer(list(captions), padding=True, return_tensors="pt", verbose=False)
        length, longest = tokens.attention_mask.sum(1).max(0)
        if length <= self.max_length:
            return tokens
        warnings.warn(
            f"got a caption of {length} tokens ({captions[longest][:40]!r}...); expected at most"
            f" {self.max_length}; the rest is cut: shorten it",
            CutCaptionWarning,
            stacklevel=3,
        )
        options = {"truncation": True, "max_length": self.max_length}
        return self._tokenizer(list(captions), padding=True, return_tensors="pt", **options)


def text_channels(settings: TextSettings) -> int:
    """Return the number of features of an encoder, by its configuration alone.

    Raises:
        ValueError: If there is no such encoder.
    """
    from transformers import AutoConfig

    source, (encoder, _), options = _source_of(settings)
    with _plain_loading(settings):
        return int(AutoConfig.from_pretrained(source, subfolder=encoder, **options).get_text_config().hidden_size)


def _load(settings: TextSettings) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    source, (encoder, tokenizer), options = _source_of(settings)
    with _plain_loading(settings):
        config = AutoConfig.from_pretrained(source, subfolder=encoder, **options)
        model = _encoder_class(config).from_pretrained(
            source, subfolder=encoder, dtype=DTYPES[settings.dtype], use_safetensors=True, **options
        )
        words = AutoTokenizer.from_pretrained(source, subfolder=tokenizer, **options)
    return model.eval().requires_grad_(False), words


@contextmanager
def _plain_loading(settings: TextSettings) -> Iterator[None]:
    """Hide the progress bar of transformers, and turn every error of loading into one ``ValueError``."""
    from transformers.utils import logging

    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"got text encoder {settings.source}, which cannot be loaded ({reason}); expected an encoder of"
            " transformers with safetensors and its tokenizer, in a folder or on the"
            " hub; check the name, the folder and the network"
        ) from error
    finally:
        if shows_bars:
            logging.enable_progress_bar()


def _source_of(settings: TextSettings) -> tuple[str, tuple[str, str], dict[str, Any]]:
    """A folder or hub id, the sub-folders of encoder and tokenizer in it, and what transformers is to read."""
    options = {"revision": settings.revision, "local_files_only": settings.local_files_only}
    options = {name: value for name, value in options.items() if value}
    folder = Path(resolve(settings.source))
    if folder.is_dir():
        is_pipeline = all((folder / name).is_dir() for name in PIPELINE)
        return os.fspath(folder), PIPELINE if is_pipeline else ("", ""), options
    if re.fullmatch(HUB_ID, settings.source):
        options |= {} if settings.local_files_only else cache_alone(settings.source)
        cached = cached_folder(settings.source, settings.revision) if "local_files_only" in options else None
        if cached:  # of a folder, transformers asks nothing of the hub
            return _source_of(replace(settings, source=cached))
        return settings.source, PIPELINE if _is_pipeline(settings.source, options) else ("", ""), options
    raise ValueError(
        f"got text encoder {settings.source}; expected a folder or an id of the Hugging Face hub (owner/name); check it"
    )


def _is_pipeline(hub_id: str, options: Mapping[str, Any]) -> bool:
    """Whether a hub model is a diffusers pipeline; False if that cannot be found out, since loading it will say why."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(hub_id, "model_index.json", **options)
    except Exception:  # no such file, no such repository, no network
        return False
    return True


def _encoder_class(config: Any) -> Any:
    """The class of transformers that loads the text encoder without its decoder or image encoder."""
    import transformers

    halves = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel", "mt5": "MT5EncoderModel", "clip": "CLIPTextModel"}
    halves |= {"clip_text_model": "CLIPTextModel"}
    return getattr(transformers, halves.get(config.model_type, "AutoModel"))


def _limit(tokenizer: Any, model: Any) -> int:
    """Most tokens that the encoder can read: its tokenizer says, or the table of its positions."""
    positions = getattr(model.config, "max_position_embeddings", None)
    limits = [limit for limit in (tokenizer.model_max_length, positions) if limit and limit < 1 << 20]
    return min(limits, default=LONGEST)

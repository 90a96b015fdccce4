"""Batches out of an encoded folder: reads and copies, a few batches ahead, in threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from flexivid.data.clips.dataset import Address
from flexivid.data.clips.loader import Batch, described
from flexivid.data.clips.trainer_state import FollowsRun
from flexivid.data.encoded.clips import EncodedClips

AHEAD = 3  # batches


class EncodedLoader(FollowsRun):
    """An iterable of batches. Iterating again starts anew.

    ``latent`` is float32 (b, c, t, h, w); ``label`` and ``caption`` are as a ``ClipLoader`` gives them. Where captions
    were encoded, there are ``text_features``, float32 (b, l, f), zero behind the last token, and ``text_mask``, bool
    (b, l). With ``replace``, another clip takes the place of one without a latent; else it is left out.
    """

    def __init__(self, dataset: EncodedClips, batches: Iterable[list[Address]], *, replace: bool) -> None:
        self.dataset, self.batches, self.replace = dataset, batches, replace
        self.pin_memory = torch.cuda.is_available()

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        ahead: deque[Future[Batch | None]] = deque()
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="encoded")
        try:
            for addresses in self.batches:
                ahead.append(pool.submit(self._batch, addresses))
                if len(ahead) > AHEAD:
                    yield from _there(ahead.popleft().result())
            while ahead:
                yield from _there(ahead.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, addresses: list[Address]) -> Batch | None:
        clips = [clip for address in addresses if (clip := self.dataset.present(address, replace=self.replace))]
        if not clips:
            return None
        batch = {"latent": torch.stack([self.dataset.latent(clip) for clip, _ in clips]).float()}
        if self.dataset.encoded.text_encoder is not None:
            batch |= self._text([self.dataset.caption_number(*clip) for clip in clips])
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()} if self.pin_memory else batch
        return {**batch, **described(self.dataset, clips)}

    def _text(self, captions: list[int]) -> dict[str, Tensor]:
        texts = [self.dataset.text(number) for number in captions]
        lengths = torch.tensor([len(text) for text in texts])
        features = torch.zeros(len(texts), max(1, int(lengths.max())), self.dataset.encoded.text_channels)
        for row, text in zip(features, texts, strict=True):
            row[: len(text)] = text
        return {"text_features": features, "text_mask": torch.arange(features.shape[1]) < lengths[:, None]}


def _there(batch: Batch | None) -> list[Batch]:
    return [] if batch is None else [batch]

"""Batches in the order asked for, out of a data set that plans clips and a pool that decodes them.

What an address (clip, epoch) gives depends neither on the number of processes nor on who is done first. Where a clip's
file fails, the next clip of the same epoch that can be decoded takes its place. Imports no Lightning.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flexivid.data.clips.sampler import Address
from flexivid.data.clips.trainer_state import FollowsRun
from flexivid.data.clips.windows import MAX_TRIES
from flexivid.data.decoding.probe import VideoError
from flexivid.data.workers.pool import DecodePool, DecoderDiedError, Ticket

BATCHES_AHEAD = 2  # for each process
Batch = dict[str, Tensor | list[str]]


class ClipLoader(FollowsRun):
    """An iterable of batches: ``video``, (b, c, t, h, w) uint8, and ``label``, (b,) int64. Iterating again starts anew.

    Where the data set has captions, ``caption`` is a list of b strings. If a file hangs or crashes its decoder, or
    takes too much memory, its remaining clips are replaced without another try. Remaining means later in the order of
    the batches, not in time, so what a clip gives does not depend on what was read before it. Any other failure is met
    again by each clip of the file.

    Args:
        dataset: Plans clips, as ``ClipDataset`` does.
        batches: The addresses of each batch.
        pool: Decodes clips; several loaders may share it.
        on_bad: Called with path and reason when a file fails for the first time, in the order of the batches.
        on_batch: Called for each batch before it is handed out.
        died: Files that killed their decoders before, by path; those that do so later are added.
        prefetch: Batches that are decoded ahead; by default two for each process, or until ``max_bytes``.
        pin_memory: Whether batches lie in pinned memory; by default where there is CUDA.
        substitute: Gives the ``number``-th clip that takes the place of a clip, from 1; by default those after it.
        replace: False leaves the place of a clip that fails empty: its batch is smaller, or left out. If that would
            leave no batch at all, one clip is replaced: other ranks wait for one that has nothing to average.

    >>> class Grey:
    ...     has_captions = False
    ...     def __len__(self): return 3
    ...     def label(self, clip): return clip
    ...     def cached(self, address): return np.full((2, 4, 4, 3), address[0], np.uint8)
    ...     def plan(self, address): raise NotImplementedError
    >>> loader = ClipLoader(Grey(), [[(2, 0), (1, 0)], [(0, 0)]], pool=DecodePool(0))
    >>> [(tuple(batch["video"].shape), batch["label"].tolist()) for batch in loader]
    [((2, 3, 2, 4, 4), [2, 1]), ((1, 3, 2, 4, 4), [0])]
    """

    def __init__(  # noqa: PLR0913
        self,
        dataset: Any,
        batches: Iterable[list[Address]],
        *,
        pool: DecodePool,
        on_bad: Callable[[str, str], None] | None = None,
        on_batch: Callable[[], None] | None = None,
        died: dict[str, str] | None = None,
        prefetch: int | None = None,
        max_bytes: int = 1 << 30,
        pin_memory: bool | None = None,
        substitute: Callable[[int, int], int] | None = None,
        replace: bool = True,
    ) -> None:
        self.dataset, self.batches, self.pool, self.on_bad = dataset, batches, pool, on_bad
        self.on_batch = on_batch or (lambda: None)
        self.prefetch = BATCHES_AHEAD * max(1, pool.num_workers) if prefetch is None else max(1, prefetch)
        self.max_bytes, self.replace = max_bytes, replace
        self.substitute = substitute or (lambda clip, number: (clip + number) % len(dataset))
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.num_substituted = 0
        self._reported: set[str] = set()
        self._died = {} if died is None else died

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        source = iter(self.batches)  # all of this runs at the first ``next``: Lightning calls iter() just to look
        ahead: deque[list[_Place]] = deque()
        is_empty = True
        try:
            self._look_ahead(ahead, source)
            while ahead:
                places = ahead.popleft()
                batch = self._collate(places)
                self._look_ahead(ahead, source)
                self.on_batch()
                if batch is None and is_empty and not ahead:
                    batch = self._only_batch(places[0].address)
                if batch is not None:
                    is_empty = False
                    yield batch
        finally:
            for places in ahead:
                for slot in places:
                    slot.cancel()

    def one_by_one(self, addresses: Iterable[Address]) -> Iterator[tuple[int, np.ndarray] | None]:
        """Yield the number and frames, (t, h, w, c) uint8, of the clip that a batch has for each address.

        Frames may be shared memory that is reused. None where nothing takes the place of a clip that fails.
        """
        for address in addresses:
            yield self._take(_Place(address, self.replace))

    def _only_batch(self, address: Address) -> Batch | None:
        """Return a batch of one clip in the place of one that fails; None where no clip can be decoded."""
        try:
            return self._collate([_Place(address, True)])
        except VideoError:
            return None

    def _look_ahead(self, ahead: "deque[list[_Place]]", source: Iterator[list[Address]]) -> None:
        """Ask for the next batches, and for substitutes of what has failed meanwhile."""
        for places in ahead:
            for slot in places:
                if slot.has_failed:
                    self._ask(slot, len(slot.answers))
        num_bytes = sum(slot.num_bytes for places in ahead for slot in places)
        while len(ahead) < self.prefetch and (not ahead or num_bytes < self.max_bytes):
            addresses = next(source, None)
            if addresses is None:
                return
            ahead.append([_Place(address, self.replace) for address in addresses])
            for slot in ahead[-1]:
                self._ask(slot, 0)
                num_bytes += slot.num_bytes

    def _ask(self, slot: "_Place", number: int) -> None:
        """Ask for the clip itself, or for a substitute, unless that was done before."""
        if number < len(slot.answers) or number >= min(MAX_TRIES, len(self.dataset)):
            return
        address = self._address(slot, number)
        if address is None:
            return
        frames = self.dataset.cached(address)
        if frames is not None:
            slot.answers.append(frames)
            slot.num_bytes = frames.nbytes
            return
        request = self.dataset.plan(address)
        ticket = None if request.path in self._died else self.pool.submit(request)
        slot.answers.append((request.path, ticket))
        slot.num_bytes = len(request.indices) * request.size[0] * request.size[1] * 3

    def _address(self, slot: "_Place", number: int) -> Address | None:
        clip, epoch = slot.address
        if number and not slot.is_replaced:
            return None
        return (self.substitute(clip, number) if number else clip), epoch

    def _take(self, slot: "_Place") -> tuple[int, np.ndarray] | None:
        """Wait for the clip of a place or its first substitute that can be had, and return which clip it is."""
        for number in range(min(MAX_TRIES, len(self.dataset))):
            address = self._address(slot, number)
            if address is None:
                return None
            self._ask(slot, number)
            answer = slot.answers[number]
            try:
                frames = answer if isinstance(answer, np.ndarray) else self._result(*answer)
            except VideoError as error:
                failure = error
                continue
            self.num_substituted += number > 0
            slot.cancel()
            return address[0], frames
        raise failure

    def _result(self, path: str, ticket: Ticket | None) -> np.ndarray:
        if path in self._died or ticket is None:
            raise VideoError(path, self._died[path])
        try:
            return self.pool.result(ticket)
        except VideoError as error:
            if isinstance(error, DecoderDiedError):
                self._died[path] = error.reason
            if path not in self._reported and self.on_bad is not None:
                self._reported.add(path)
                self.on_bad(path, error.reason)
            raise

    def _collate(self, places: "list[_Place]") -> Batch | None:
        addresses: list[Address] = []
        video = None
        for slot in places:
            taken = self._take(slot)
            if taken is None:
                continue
            planes = taken[1].transpose(3, 0, 1, 2)  # t h w c -> c t h w, which is how the pool lays them out
            if video is None:
                video = torch.empty((len(places), *planes.shape), dtype=torch.uint8, pin_memory=self.pin_memory)
            if planes.shape != video.shape[1:]:
                raise ValueError(
                    f"got a clip of (c, t, h, w) = {planes.shape} in a batch of {tuple(video.shape[1:])}; "
                    f"expected clips of one shape; give each batch clips of one bucket"
                )
            video.numpy()[len(addresses)] = planes
            addresses.append((taken[0], slot.address[1]))
            slot.answers.clear()  # the frames' memory is used again
        return None if video is None else {"video": video[: len(addresses)], **described(self.dataset, addresses)}


def described(dataset: Any, addresses: list[Address]) -> Batch:
    """Return ``label`` and, if there are captions, ``caption`` of the clips at some addresses.

    >>> from flexivid.data.clips.dataset import ClipDataset, ClipSettings, Videos
    >>> dataset = ClipDataset(Videos.of(["a.mp4"], num_frames=8, label=3, caption="a dog"), ClipSettings())
    >>> described(dataset, [(0, 0), (0, 1)])
    {'label': tensor([3, 3]), 'caption': ['a dog', 'a dog']}
    """
    batch: Batch = {"label": torch.tensor([dataset.label(clip) for clip, _ in addresses])}
    return batch | {"caption": [dataset.caption(*address) for address in addresses]} if dataset.has_captions else batch


class _Place:
    """A place in a batch: its address, and what has come or will come for its clip and for substitutes, in turn."""

    def __init__(self, address: Address, is_replaced: bool) -> None:
        self.address, self.is_replaced, self.num_bytes = address, is_replaced, 0
        self.answers: list[np.ndarray | tuple[str, Ticket | None]] = []

    @property
    def has_failed(self) -> bool:
        """Whether the last answer is known to be a failure."""
        if isinstance(self.answers[-1], np.ndarray):
            return False
        ticket = self.answers[-1][1]
        return ticket is None or (ticket.done() and ticket.exception() is not None)

    def cancel(self) -> None:
        for answer in self.answers:
            if not isinstance(answer, np.ndarray) and answer[1] is not None:
                answer[1].cancel()

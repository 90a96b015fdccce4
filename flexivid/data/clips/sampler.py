"""Which clips make the batch of a step: a pure function of (seed, step), so that a resumed run goes on exactly.

The clips of an epoch are a permutation drawn from (seed, epoch); epochs follow each other in one endless stream. Step s
takes the next ``batch_size_at(s) * world_size`` places of the stream, and each rank a contiguous share of them. A batch
may therefore cross from one epoch into the next, and no clip is dropped or repeated within an epoch.

``step`` counts loader batches here; with gradient accumulation several make one optimizer step (see ``module``).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

Address = tuple[int, int]  # (clip, epoch)

NUM_DRAWS = 1024  # random numbers made at a time
PICTURE_STREAM = 2  # keeps this draw apart from those of clips and modes


class PictureSteps(NamedTuple):
    """Which global steps of a run train on pictures instead of videos: drawn from (seed, step), so that ranks agree.

    >>> steps = PictureSteps(seed=0, share=0.25)
    >>> [step for step in range(12) if steps.at(step)]
    [2, 5, 6]
    """

    seed: int = 0  # decides the draw
    share: float = 0.0  # probability of each step

    def at(self, global_step: int) -> bool:
        """Return whether a step trains on pictures."""
        return np.random.default_rng([self.seed, global_step, PICTURE_STREAM]).random() < self.share

    def size_at(self, global_step: int, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the size of a step's clips by that of the videos, (t, h, w): pictures have one frame."""
        return (1, *size[1:]) if self.at(global_step) else size


class StepBatchSampler(Sampler[list[Address]]):
    """Yield for each step, from ``start_step`` on, the list of (clip, epoch) of this rank.

    Args:
        num_clips: Clips of an epoch.
        batch_size_at: Gives the clips per rank of a step; called in the main process only.
        seed: Decides every permutation.
        rank: This process of the ``world_size``.
        start_step: The first step, or a function that is called for it whenever the iteration starts again.
        num_steps: Steps of one iteration; None goes on for ever.
        takes: The steps whose batches come from here; others are passed over. None: all of them.

    >>> sampler = StepBatchSampler(3, lambda step: 2, seed=0, num_steps=3)
    >>> [[epoch for _, epoch in batch] for batch in sampler]
    [[0, 0], [0, 1], [1, 1]]
    """

    def __init__(  # noqa: PLR0913
        self,
        num_clips: int,
        batch_size_at: Callable[[int], int],
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start_step: int | Callable[[], int] = 0,
        num_steps: int | None = None,
        takes: Callable[[int], bool] | None = None,
    ) -> None:
        if num_clips < 1:
            raise ValueError(f"got {num_clips} clips; expected at least 1; give the sampler a data set that has clips")
        assert 0 <= rank < world_size
        self.num_clips, self.batch_size_at, self.seed = num_clips, batch_size_at, seed
        self.rank, self.world_size = rank, world_size
        self.start_step, self.num_steps, self.takes = start_step, num_steps, takes
        self._orders: dict[tuple[int, ...], np.ndarray] = {}  # of the clips, by (epoch,) or (epoch, bucket)

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError("got no num_steps; expected a number of steps; pass num_steps to give the stream an end")
        return self.num_steps

    def _first_step(self) -> int:
        return self.start_step() if callable(self.start_step) else self.start_step

    def __iter__(self) -> Iterator[list[Address]]:
        first = self._first_step()
        offset = self.world_size * sum(self._batch_size(step) for step in range(first))
        step = first
        while self.num_steps is None or step < first + self.num_steps:
            batch_size = self._batch_size(step)
            begin = offset + self.rank * batch_size
            if batch_size:
                yield [self._draw(number, self.num_clips) for number in range(begin, begin + batch_size)]
            offset += self.world_size * batch_size
            step += 1

    def _batch_size(self, step: int) -> int:
        """Clips per rank of a step; 0 if its batch comes from elsewhere."""
        if self.takes is not None and not self.takes(step):
            return 0
        batch_size = self.batch_size_at(step)
        if batch_size < 1:
            raise ValueError(f"got batch size {batch_size} at step {step}; expected at least 1; correct the batch size")
        return batch_size

    def _draw(self, number: int, num_clips: int, *bucket: int) -> Address:
        """Return the clip at a place of the stream of permutations, and its epoch."""
        epoch, index = divmod(number, num_clips)
        key = (epoch, *bucket)
        if key not in self._orders:  # that of the epoch before is kept, since a batch may hold both
            for stale in [old for old in self._orders if old[1:] == key[1:] and old[0] != epoch - 1]:
                del self._orders[stale]
            self._orders[key] = np.random.default_rng([self.seed, *key]).permutation(num_clips)
        return int(self._orders[key][index]), epoch


def fixed_batches(
    groups: Sequence[Sequence[int]], batch_size: int, *, rank: int = 0, world_size: int = 1
) -> list[list[Address]]:
    """Return one rank's share of some clips, in batches of one group each; no clip comes twice or is left out.

    The clips of a group have one shape; a batch has at most ``batch_size`` of them. Where there are too few clips for
    all ranks, each takes all of them: ranks average their results, and wait forever for one that has none.

    >>> fixed_batches([[0, 4, 8], [2]], 2), fixed_batches([[5]], 2, rank=1, world_size=2)
    ([[(0, 0), (4, 0)], [(8, 0)], [(2, 0)]], [[(5, 0)]])
    """
    if max(map(len, groups), default=0) < world_size:
        rank, world_size = 0, 1
    shares = [[(clip, 0) for clip in group[rank::world_size]] for group in groups]
    return [share[i : i + batch_size] for share in shares for i in range(0, len(share), batch_size)]


class BucketBatchSampler(StepBatchSampler):
    """As ``StepBatchSampler``, with all clips of a batch, on every rank, out of one bucket.

    Each bucket has an endless stream of its own. Which bucket a step takes is drawn from (seed, step), in proportion to
    the clips that its epoch has left; a batch at the end of an epoch is filled with the first clips of the bucket's
    next one, which then has that much less left. So here, too, no clip is dropped or repeated within an epoch.

    >>> sampler = BucketBatchSampler([np.array([0, 1]), np.array([2, 3])], lambda step: 2, seed=0, num_steps=2)
    >>> sorted(sorted(clip for clip, _ in batch) for batch in sampler)
    [[0, 1], [2, 3]]
    """

    def __init__(self, buckets: Sequence[np.ndarray], batch_size_at: Callable[[int], int], **options: Any) -> None:
        super().__init__(sum(map(len, buckets)), batch_size_at, **options)
        self.buckets = buckets

    def __iter__(self) -> Iterator[list[Address]]:
        first = self._first_step()
        taken, step, epoch = [0] * len(self.buckets), 0, 0
        draws = np.empty(0)
        while self.num_steps is None or step < first + self.num_steps:
            if step % NUM_DRAWS == 0:
                draws = np.random.default_rng([self.seed, step // NUM_DRAWS, len(self.buckets)]).random(NUM_DRAWS)
            unused = [max(0, (epoch + 1) * len(clips) - used) for clips, used in zip(self.buckets, taken, strict=True)]
            if not any(unused):
                epoch += 1
                continue
            number = int(np.searchsorted(np.cumsum(unused), draws[step % NUM_DRAWS] * sum(unused), side="right"))
            batch_size = self._batch_size(step)
            begin = taken[number] + self.rank * batch_size
            taken[number] += self.world_size * batch_size
            step += 1
            if step > first and batch_size:
                clips = self.buckets[number]
                draws_of_step = (self._draw(i, len(clips), number) for i in range(begin, begin + batch_size))
                yield [(int(clips[index]), clip_epoch) for index, clip_epoch in draws_of_step]

"""Batches are a pure function of (seed, step): exact resume, and ranks that share the stream without overlap."""

import itertools
import time

import pytest

from flexivid.data.clips.sampler import StepBatchSampler, fixed_batches


def sizes(step):
    return (3, 8, 1, 5)[step % 4]


def take(number, **options):
    return list(itertools.islice(StepBatchSampler(23, sizes, seed=7, **options), number))


def test_each_epoch_has_each_clip_once_across_batches():
    stream = [address for batch in take(100) for address in batch]
    for epoch in range(len(stream) // 23):
        assert sorted(stream[23 * epoch : 23 * (epoch + 1)]) == [(clip, epoch) for clip in range(23)]
    assert [clip for clip, epoch in stream if epoch == 0] != [clip for clip, epoch in stream if epoch == 1]
    assert [len(batch) for batch in take(8)] == [3, 8, 1, 5, 3, 8, 1, 5]


@pytest.mark.parametrize("start", [0, 1, 17, 50])
def test_resumes_exactly(start):
    assert take(50 - start if start < 50 else 5, start_step=start) == take(60)[start : max(50, start + 5)]


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_share_the_stream(world_size):
    ranks = [take(30, rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [address for batches in zip(*ranks, strict=True) for batch in batches for address in batch]
    alone = list(itertools.islice(itertools.chain.from_iterable(StepBatchSampler(23, sizes, seed=7)), len(joined)))
    assert joined == alone


def test_seed_decides():
    first, again, other = (list(itertools.islice(StepBatchSampler(23, sizes, seed=seed), 9)) for seed in (1, 1, 2))
    assert first == again != other


def test_start_is_asked_anew_and_length_is_kept():
    start = 0
    sampler = StepBatchSampler(23, sizes, seed=7, start_step=lambda: start, num_steps=4)
    first = list(sampler)
    start = 4
    assert len(sampler) == 4
    assert first + list(sampler) == take(8)
    with pytest.raises(TypeError, match="expected a number of steps"):
        len(StepBatchSampler(23, sizes, seed=7))


def test_late_resume_is_quick():
    begin = time.perf_counter()
    late = next(iter(StepBatchSampler(1000, sizes, seed=0, start_step=100_000)))
    assert time.perf_counter() - begin < 0.5
    assert late[0][1] == 100_000 * 17 // 4 // 1000


def test_refusals():
    with pytest.raises(ValueError, match="got 0 clips; expected at least 1"):
        StepBatchSampler(0, sizes, seed=0)
    with pytest.raises(ValueError, match="got batch size 0 at step 0; expected at least 1"):
        next(iter(StepBatchSampler(5, lambda step: 0, seed=0)))


@pytest.mark.parametrize("groups", [[[4]], [[1, 5], [2]], [range(7)], [range(6), range(6, 9)], []])
def test_no_rank_is_without_held_out_clips_where_there_are_some(groups):
    """Ranks average their results, so that the others would wait for it."""
    for world_size in (1, 2, 3, 8):
        ranks = [fixed_batches(groups, 2, rank=rank, world_size=world_size) for rank in range(world_size)]
        clips = [clip for batches in ranks for batch in batches for clip, _ in batch]
        assert sorted(set(clips)) == sorted(clip for group in groups for clip in group)
        assert all(ranks) or not groups
        assert len(set(clips)) == len(clips) or ranks == [ranks[0]] * world_size  # none twice, or all on each

"""Each video is where most of it is kept; batches are of one shape; an epoch has each clip once on all ranks."""

import itertools

import numpy as np
import pytest

from flexivid.data.clips.buckets import assign, parse_buckets
from flexivid.data.clips.dataset import ClipDataset
from flexivid.data.clips.sampler import BucketBatchSampler
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.index.videos import Videos

BUCKETS = parse_buckets([[8, 32, 32], [8, 32, 56], [32, 32, 56], [8, 56, 32]])


def dataset(number=60, **settings):
    rng = np.random.default_rng(0)
    sizes = np.array([(48, 48), (36, 64), (64, 36)])[rng.integers(0, 3, number)]
    frames = rng.integers(4, 200, number)
    columns = {"num_frames": frames, "height": sizes[:, 0], "width": sizes[:, 1], "fps": 25.0}
    return ClipDataset(Videos.of(["a.mp4"] * number, **columns), ClipSettings(**settings), buckets=BUCKETS)


def test_assignment_keeps_most():
    sizes = np.array([[480, 480], [360, 640], [360, 640], [1080, 1920], [640, 360], [480, 640], [360, 640]])
    frames = np.array([99, 99, 20, 32, 99, 99, 3])
    chosen = assign(BUCKETS, sizes, frames, np.zeros(7), settings=ClipSettings())
    assert chosen.tolist() == [0, 2, 1, 2, 3, 2, 1]


def sizes_at(step):
    return (3, 8, 1, 5)[step % 4]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_clip_once_an_epoch_and_equal_shapes_on_all_ranks(world_size):
    clips = dataset()
    ranks = [
        BucketBatchSampler(clips.clips_by_bucket(), sizes_at, seed=3, rank=rank, world_size=world_size, num_steps=400)
        for rank in range(world_size)
    ]
    seen = []
    for batches in zip(*ranks, strict=True):
        assert len({clips.bucket(clip) for batch in batches for clip, _ in batch}) == 1
        assert len({len(batch) for batch in batches}) == 1
        seen += [address for batch in batches for address in batch]
    assert len(set(seen)) == len(seen)
    whole = [sum(epoch == number for _, epoch in seen) for number in range(5)]
    assert whole[:2] == [len(clips)] * 2
    last = {epoch: max(i for i, (_, e) in enumerate(seen) if e == epoch) for epoch in (0, 1)}
    assert last[0] < last[1]


def test_resumes_exactly_and_interleaves():
    clips = dataset()
    options = {"seed": 3, "world_size": 2, "rank": 1}
    whole = list(BucketBatchSampler(clips.clips_by_bucket(), sizes_at, num_steps=60, **options))
    later = BucketBatchSampler(clips.clips_by_bucket(), sizes_at, start_step=17, **options)
    assert list(itertools.islice(later, 43)) == whole[17:]
    assert len({clips.bucket(batch[0][0]) for batch in whole[:12]}) > 2


def test_plans_and_substitutes_have_the_shape_of_the_bucket():
    clips = dataset(short="pad")
    for clip in range(0, len(clips), 7):
        request = clips.plan((clip, 0))
        assert (len(request.indices), *request.size) == BUCKETS[clips.bucket(clip)]
        others = [clips.substitute(clip, number) for number in range(1, 30)]
        assert {clips.bucket(other) for other in others} == {clips.bucket(clip)}
        same = [other for other in range(len(clips)) if clips.bucket(other) == clips.bucket(clip)]
        assert others[0] == same[(same.index(clip) + 1) % len(same)]


@pytest.mark.parametrize("buckets", [[[8, 32]], [[8, 0, 32]], [[8, 32, 32], [8, 32, 32]]])
def test_refusals(buckets):
    with pytest.raises(ValueError, match=r"data\.buckets.*; expected"):
        parse_buckets(buckets)

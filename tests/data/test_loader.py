"""Batches come in their order, whole, and the same whatever happens to the processes that decode them."""

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from flexivid.data.clips.loader import ClipLoader
from flexivid.data.clips.sampler import StepBatchSampler
from flexivid.data.decoding.probe import VideoError
from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.workers.pool import DecodePool


@pytest.fixture
def stubs(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import decoder_stubs

    return decoder_stubs


class Named:
    """Clips whose pixels are their epoch and number; file ``clip // 2`` has two of them."""

    def __init__(self, num_clips, *, kinds=None, cached=()):
        self.num_clips, self.kinds, self.in_memory = num_clips, kinds or {}, set(cached)
        self.has_captions = False

    def __len__(self):
        return self.num_clips

    def label(self, clip):
        return clip

    def caption(self, clip, epoch=0):
        return f"clip {clip}"

    def plan(self, address):
        clip, epoch = address
        path = f"{self.kinds.get(clip // 2, 'good')}-{clip // 2}.mp4"
        return ClipRequest(path, b"", np.array([epoch, clip, 0]), (4, 6))

    def cached(self, address):
        clip, epoch = address
        if clip not in self.in_memory:
            return None
        return np.broadcast_to(np.array([epoch, clip % 256, clip // 256], np.uint8), (3, 4, 6, 3))


def names(batch):
    """The (clip, epoch) of each clip of a batch, from its pixels, which must agree with the labels."""
    video = batch["video"]
    assert (video.dtype, video.shape[1:]) == (torch.uint8, (3, 3, 4, 6))
    assert video.is_contiguous()
    assert (video == video[:, :, :1, :1, :1]).all()
    values = video[:, :, 0, 0, 0].long()
    clips = values[:, 1] + 256 * values[:, 2]
    assert torch.equal(clips, batch["label"])
    return list(zip(clips.tolist(), values[:, 0].tolist(), strict=True))


def sampler(num_clips, **options):
    return StepBatchSampler(num_clips, lambda step: 3 + step % 2, seed=5, **options)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("cached", [(), range(0, 50, 3)])
def test_batches_are_those_asked_for(stubs, num_workers, cached):
    with DecodePool(num_workers, work=stubs.read_slowly) as pool:
        loader = ClipLoader(Named(50, cached=cached), sampler(50, num_steps=40), pool=pool)
        batches = [names(batch) for batch in loader]
        assert len(loader) == 40
        assert batches == list(sampler(50, num_steps=40))
        assert [names(batch) for batch in loader] == batches  # again
    assert loader.num_substituted == 0
    assert loader.state_dict() == {}


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_two_ranks_share_the_epochs(stubs, num_workers):
    with DecodePool(num_workers, work=stubs.read) as pool:
        ranks = [
            ClipLoader(Named(301), sampler(301, num_steps=87, rank=rank, world_size=2), pool=pool) for rank in range(2)
        ]
        together = [address for pair in zip(*ranks, strict=True) for batch in pair for address in names(batch)]
    for epoch in range(2):
        part = together[301 * epoch : 301 * (epoch + 1)]
        assert sorted(part) == [(clip, epoch) for clip in range(301)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_killed_processes_cost_no_clip(stubs):
    killed = []
    with DecodePool(2, work=stubs.read_slowly) as pool:
        loader = ClipLoader(Named(100), sampler(100, num_steps=60), pool=pool)
        batches = []
        for i, batch in enumerate(loader):
            batches.append(names(batch))
            if i in (5, 30):
                killed.append(pool.result(pool.submit("", work=stubs.process_of)))
                os.kill(killed[-1], signal.SIGKILL)
    assert batches == list(sampler(100, num_steps=60))
    assert (loader.num_substituted, len(set(killed))) == (0, 2)


def substituted(address, bad, number):
    clip, epoch = address
    while clip // 2 in bad:
        clip = (clip + 1) % number
    return clip, epoch


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("kind", ["refuse", "segfault", "hang", "fail"])
def test_the_next_clip_takes_the_place_of_a_bad_one(stubs, num_workers, kind):
    bad, reported = (3, 4, 14), []
    with DecodePool(num_workers, work=stubs.read_slowly, max_seconds=0.5) as pool:
        dataset = Named(30, kinds=dict.fromkeys(bad, kind))
        loader = ClipLoader(dataset, sampler(30, num_steps=20), pool=pool, on_bad=lambda *bad: reported.append(bad))
        batches = [names(batch) for batch in loader]
    asked = list(sampler(30, num_steps=20))
    assert batches == [[substituted(address, bad, 30) for address in batch] for batch in asked]
    order = [clip // 2 for batch in asked for clip, _ in batch if clip // 2 in bad]
    assert loader.num_substituted == len(order)
    assert [path for path, _ in reported] == [f"{kind}-{file}.mp4" for file in dict.fromkeys(expand(order))]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_places_stay_empty_without_replacement_unless_no_clip_is_left(stubs, num_workers):
    """Other ranks wait for one that has nothing to average."""

    def read(batches, **kinds):
        with DecodePool(num_workers, work=stubs.read) as pool:
            dataset = Named(8, kinds={int(name[1:]): kind for name, kind in kinds.items()})
            return [names(batch) for batch in ClipLoader(dataset, batches, pool=pool, replace=False)]

    batches = [[(0, 0), (2, 0)], [(3, 0)]]
    assert read(batches) == batches
    assert read(batches, _1="refuse") == [[(0, 0)]]
    assert read(batches, _0="refuse", _1="segfault") == [[(4, 0)]]
    assert read(batches, **dict.fromkeys(("_0", "_1", "_2", "_3"), "refuse")) == []  # on all ranks


def expand(order):
    """The clips that are tried on the way: file 4 follows on file 3."""
    return [tried for file in order for tried in ((3, 4) if file == 3 else (file,))]


def test_an_ordinary_failure_is_not_held_against_other_clips(stubs):
    class Half(Named):
        def plan(self, address):
            request = super().plan(address)
            return request._replace(path="refuse-0.mp4" if address[0] == 6 else "file-0.mp4")

    with DecodePool(1, work=stubs.read) as pool:
        loader = ClipLoader(Half(12), [[(6, 0)], [(7, 0)], [(6, 1)], [(5, 0)]], pool=pool)
        assert [names(batch) for batch in loader] == [[(7, 0)], [(7, 0)], [(7, 1)], [(5, 0)]]


def test_a_file_that_killed_its_decoder_is_not_tried_again_in_the_order_of_the_batches(stubs):
    class Half(Named):
        """One file, whose decoder crashes at clip 6."""

        def plan(self, address):
            request = super().plan(address)
            return request._replace(path="a.mp4") if 4 <= address[0] <= 7 else request

    def read(num_workers):
        with DecodePool(num_workers, work=stubs.read_or_crash) as pool:
            loader = ClipLoader(Half(12), [[(5, 0)], [(6, 0)], [(5, 1)], [(7, 0)], [(3, 0)]], pool=pool)
            return [names(batch) for batch in loader]

    assert read(0) == read(3) == [[(5, 0)], [(8, 0)], [(8, 1)], [(8, 0)], [(3, 0)]]


def test_what_killed_a_decoder_is_known_to_a_later_loader(stubs):
    died, reported = {}, []

    def read(batches):
        with DecodePool(1, work=stubs.read) as pool:
            loader = ClipLoader(
                Named(12, kinds={1: "segfault"}),
                batches,
                pool=pool,
                died=died,
                on_bad=lambda *bad: reported.append(bad),
            )
            return [names(batch) for batch in loader]

    assert read([[(1, 0)], [(3, 0)]]) == [[(1, 0)], [(4, 0)]]
    assert set(died) == {"segfault-1.mp4"}
    assert read([[(3, 0), (2, 1)]]) == [[(4, 0), (4, 1)]]
    assert len(reported) == 1


def test_captions_and_the_count_of_batches(stubs):
    counted = []
    with DecodePool(1, work=stubs.read) as pool:
        dataset = Named(9)
        dataset.has_captions = True
        loader = ClipLoader(dataset, [[(3, 0), (5, 0)], [(1, 0)]], pool=pool, on_batch=lambda: counted.append(1))
        assert [batch["caption"] for batch in loader] == [["clip 3", "clip 5"], ["clip 1"]]
    assert len(counted) == 2


def test_nothing_but_bad_files_ends_the_run(stubs):
    with DecodePool(1, work=stubs.read) as pool:
        for number in (2, 100):
            loader = ClipLoader(Named(number, kinds=dict.fromkeys(range(50), "refuse")), [[(1, 0)]], pool=pool)
            with pytest.raises(VideoError, match="no video stream"):
                list(loader)


def test_the_account_may_end_the_run(stubs):
    def refuse(path, reason):
        raise ValueError(f"{path}: {reason}")

    with DecodePool(1, work=stubs.read) as pool:
        loader = ClipLoader(Named(10, kinds={0: "refuse"}), [[(0, 0)]], pool=pool, on_bad=refuse)
        with pytest.raises(ValueError, match=r"refuse-0\.mp4: no video stream"):
            next(iter(loader))


def test_an_abandoned_iterator_lets_go(stubs):
    with DecodePool(1, work=stubs.read_slowly) as pool:
        loader = ClipLoader(Named(1000), [[(clip, 0) for clip in range(1000)]] * 100, pool=pool, prefetch=3)
        iterator = iter(loader)
        next(iterator)
        iterator.close()
        assert all(job.ticket.cancelled() for job in list(pool._keeper._waiting))


def test_looking_at_an_iterator_starts_nothing(stubs):
    pool = DecodePool(1, work=stubs.read)
    iter(ClipLoader(Named(10), sampler(10), pool=pool))
    assert pool._keeper._thread is None


def test_look_ahead_is_bounded(stubs):
    asked = []

    def batches():
        for step in itertools.count():
            asked.append(step)
            yield [(clip, 0) for clip in range(4)]

    def ahead(**options):
        asked.clear()
        iterator = iter(ClipLoader(Named(10), batches(), pool=pool, **options))
        next(iterator)
        next(iterator)
        iterator.close()
        return len(asked) - 2

    with DecodePool(2, work=stubs.read) as pool:
        assert ahead() == 4
        assert ahead(prefetch=7) == 7
        assert ahead(prefetch=7, max_bytes=3 * 4 * 6 * 3 * 4 * 2) == 2
        assert ahead(max_bytes=0) == 1


def test_clips_of_one_batch_have_one_shape(stubs):
    class Odd(Named):
        def plan(self, address):
            return super().plan(address)._replace(size=(4, 6 + address[0]))

    with DecodePool(1, work=stubs.read) as pool:
        loader = ClipLoader(Odd(10), [[(0, 0), (1, 0)]], pool=pool)
        with pytest.raises(ValueError, match=r"got a clip of .*\(3, 3, 4, 7\) in a batch of \(3, 3, 4, 6\)"):
            next(iter(loader))

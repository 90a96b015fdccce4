"""A decode process that a file has taken over harms its file only: no code, no crash, no wait, no memory."""

import os
import random
import re
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from flexivid.data.decoding.facts import Facts
from flexivid.data.decoding.probe import Look, VideoError
from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.workers.message import (
    MessageError,
    Reply,
    pack,
    pack_reply,
    pack_request,
    take_replies,
    unpack,
    unpack_request,
)
from flexivid.data.workers.pool import DecodePool

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="looks into /proc")


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import hostile_decoder

    return hostile_decoder


class Memory:
    """Bytes that this process took at most since the block began."""

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        self.before = self.peak()
        return self

    def __exit__(self, *_):
        self.growth = self.peak() - self.before

    @staticmethod
    def peak():
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


REQUESTS = {
    "clip": lambda path: ClipRequest(path, b"", np.arange(4), (8, 12)),
    "look": Look,
    "value": str,
}


def is_right(found, kind):
    if kind == "clip":
        return found.shape == (4, 8, 12, 3) and bool((found == 7).all())
    return found == "good.mp4" if kind == "value" else found.size == (48, 64)


def check_harm(pool, names, kind, *, reason):
    """Ask for files that take the decoder over, then for a good one; returns the longest wait for one, in seconds."""
    tickets, longest = [(name, pool.submit(REQUESTS[kind](f"{name}.mp4"))) for name in names], 0.0
    for name, ticket in tickets:
        started = time.monotonic()
        with pytest.raises(VideoError, match=reason) as caught:
            pool.result(ticket)
        longest = max(longest, time.monotonic() - started)
        assert caught.value.path == f"{name}.mp4"
        assert len(str(caught.value)) < 500
    assert is_right(pool.result(pool.submit(REQUESTS[kind]("good.mp4"))), kind)
    return longest


def test_nonsense_is_refused_as_it_comes(hostile, tmp_path):
    """What a process may send but was not asked for is refused by the keeper, below."""
    asked = ("ready", "zeros", "value", "facts-good", "frames-good")
    answers = {name: content for name, content in hostile.ANSWERS.items() if name not in asked}
    answers |= {name: make(str(tmp_path / name)) for name, make in hostile.PICKLED.items()}
    for name, content in answers.items():
        with pytest.raises(MessageError, match=r"^got ") as caught:
            print(name, list(take_replies(bytearray(content))))
        assert len(str(caught.value)) < 300, name
    assert list(tmp_path.iterdir()) == []


@linux
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("clip", ["garbage", "value", "facts-good"]),
        ("look", ["ready", "zeros", "facts-bomb", "frames-good"]),
        pytest.param("clip", None, marks=pytest.mark.slow),
        pytest.param("look", None, marks=pytest.mark.slow),
        pytest.param("value", None, marks=pytest.mark.slow),
    ],
)
def test_nonsense_ends_its_process_and_skips_its_file(hostile, kind, names):
    own = {"clip": "frames-good", "look": "facts-good", "value": "value"}[kind]
    names = names or [name for name in hostile.ANSWERS if name != own]
    with Memory() as memory, DecodePool(2, work=hostile.answer) as pool:
        longest = check_harm(pool, names, kind, reason=r"the decoder answers nonsense \(got ")
    assert longest < 20  # no wait until a time limit, of 60
    assert memory.growth < 300 << 20


@linux
@pytest.mark.parametrize("kind", ["look", pytest.param("clip", marks=pytest.mark.slow)])
def test_no_pickle_is_loaded(hostile, tmp_path, kind):
    with DecodePool(2, work=hostile.answer) as pool:
        check_harm(
            pool, [str(tmp_path / name) for name in ("mkdir-old", "mkdir-facts")], kind, reason="answers nonsense"
        )
    assert list(tmp_path.iterdir()) == []


@linux
@pytest.mark.parametrize("name", ["endless-garbage", "endless-ready", "endless-body", "child"])
def test_a_process_that_does_not_stop_talking_is_ended(hostile, name):
    with Memory() as memory, DecodePool(1, work=hostile.answer) as pool:
        check_harm(pool, [name], "look", reason="the decoder (answers nonsense|exited)")
    assert memory.growth < 200 << 20


@linux
def test_answers_to_no_request_end_the_process(hostile):
    with DecodePool(1, work=hostile.answer) as pool:
        with pytest.raises(VideoError, match=r"got endless-failed\.mp4: no"):
            pool.result(pool.submit("endless-failed.mp4"))
        deadline, found = time.monotonic() + 60, None
        while found is None and time.monotonic() < deadline:  # more files may have gone to that process until it ended
            with suppress(VideoError):
                found = pool.result(pool.submit("good.mp4"))
        assert found == "good.mp4"


@linux
def test_half_an_answer_costs_its_time_only(hostile):
    with DecodePool(2, work=hostile.answer, max_seconds=1) as pool:
        check_harm(pool, hostile.HALVES, "look", reason="takes longer than 1 seconds")


@linux
def test_shared_memory_cannot_be_taken_away(hostile):
    with DecodePool(1, work=hostile.answer) as pool:
        held = pool.result(pool.submit(REQUESTS["clip"]("good.mp4")))
        assert is_right(pool.result(pool.submit(REQUESTS["clip"]("shrink.mp4"))), "clip")
        assert is_right(held, "clip")
        large = ClipRequest("good.mp4", b"", np.arange(64), (512, 800))  # the file still grows
        assert (pool.result(pool.submit(large)) == 7).all()


def test_frames_of_another_shape_are_a_failure_of_the_file(hostile):
    with DecodePool(1, work=hostile.other_shape) as pool:
        with pytest.raises(VideoError, match=r"got frames of \(1, 2\) float64; expected \(4, 8, 12, 3\) uint8"):
            pool.result(pool.submit(REQUESTS["clip"]("a.mp4")))
        with pytest.raises(VideoError, match="expected plain data"):
            pool.result(pool.submit("a.mp4", work=hostile.no_plain_data))


def test_requests_travel_whole():
    request = ClipRequest(
        "a\udcff\n.mp4", b"\0\1", np.array([3, 1, -1]), (np.int64(8), 12), (0.0, np.float32(0.5)), True
    )
    work, found = unpack_request(pack_request("flexivid.data.decoding.reader:read_clip", request))
    assert work == "flexivid.data.decoding.reader:read_clip"
    assert found._replace(indices=None) == request._replace(indices=None)
    assert found.indices.tolist() == [3, 1, -1]
    assert (type(found.size), type(found.size[0]), found.indices.dtype) == (tuple, int, np.int64)
    assert unpack(pack([None, True, 1.5, b"", ["a"], np.int8(3)])) == [None, True, 1.5, b"", ["a"], 3]


def test_any_bytes_are_replies_or_refused(hostile):
    """Replies with some bytes changed, cut off or put in; facts with some bytes of what they unpack to changed."""
    rng = random.Random(0)
    whole = [Reply("failed", "no"), Reply("value", ["a", 1, b"b"]), Reply("facts", hostile.FACTS), Reply("frames")]
    for _ in range(4000):
        content = bytearray(b"".join(pack_reply(reply) for reply in rng.sample(whole, 2)))
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(content))
            content[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            content = content or bytearray(1)
        try:
            found = list(take_replies(content))
        except MessageError:
            continue
        for reply in found:
            assert reply.kind != "facts" or reply.value.check()


def test_facts_survive_and_damaged_ones_are_refused(hostile):
    import zlib

    plain, rng = zlib.decompress(hostile.FACTS.to_bytes()), random.Random(0)
    assert Facts.from_bytes(hostile.FACTS.to_bytes()).check().ticks.tolist() == [0, 1, 2, 3, 4]
    for _ in range(3000):
        content = bytearray(plain)
        content[rng.randrange(len(content))] = rng.randrange(256)
        try:
            found = Facts.from_bytes(zlib.compress(content, 1))
        except ValueError:
            continue
        assert found.size[0] * found.size[1] <= 1 << 28
        assert np.isfinite([found.fps, found.duration]).all()
        assert isinstance(found.is_variable_rate, bool)
    assert os.path.sep not in found.decoder

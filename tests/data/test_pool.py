"""Decode processes: whatever a decoder does costs its file only; nothing is left behind."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from flexivid.data.decoding.probe import Facts, VideoError
from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.workers.pool import DecodePool, DecoderDiedError, probe_many
from flexivid.data.workers.worker import resident_bytes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stubs(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import decoder_stubs

    return decoder_stubs


def request_for(path, number=0, size=(8, 12)):
    return ClipRequest(path, b"", np.array([7, number, 0, 0]), size)


def children(parent=None):
    """Living child processes; those that have ended and are not waited for do not count."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, owner = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(owner) == (parent or os.getpid()) and state != "Z":
            found.append(int(stat.parent.name))
    return set(found)


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_belong_to_their_requests(stubs, num_workers):
    before = children()
    with DecodePool(num_workers, work=stubs.read_slowly) as pool:
        sizes = [(8, 12), (40, 30), (200, 300)]
        tickets = [pool.submit(request_for("a.mp4", i, sizes[i % 3])) for i in range(60)]
        for i, ticket in enumerate(tickets):
            frames = pool.result(ticket)
            assert (frames.shape, frames.dtype) == ((4, *sizes[i % 3], 3), np.uint8)
            assert (frames == np.array([7, i, 0])).all()
        assert len(children() - before) == max(1, num_workers)
    assert children() == before


def test_frames_keep_their_memory_while_in_use(stubs):
    with DecodePool(2, work=stubs.read) as pool:
        held = [pool.result(pool.submit(request_for("a.mp4", i)))[1:, ::2] for i in range(100)]
    assert all((frames == np.array([7, i, 0])).all() for i, frames in enumerate(held))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("segfault", r"the decoder crashed \(signal 11\)"),
        ("abort", r"the decoder crashed \(signal 6\)"),
        ("exit", r"the decoder exited \(status 3\)"),
        ("hang", "takes longer than 1 seconds"),
        ("hog", "takes more than 0.25 GiB of memory"),
        ("refuse", "no video stream"),
        ("fail", "KeyError: 'fail-1.mp4'"),
    ],
)
def test_what_a_decoder_does_costs_its_file_only(stubs, kind, reason):
    paths = [f"{kind if i in (3, 11) else 'good'}-{i % 2}.mp4" for i in range(20)]
    max_seconds = 1 if kind == "hang" else 60
    with DecodePool(2, work=stubs.read, max_seconds=max_seconds, max_bytes=1 << 28) as pool:
        tickets = [pool.submit(request_for(path, i)) for i, path in enumerate(paths)]
        for i, ticket in enumerate(tickets):
            if i in (3, 11):
                with pytest.raises(VideoError, match=reason) as caught:
                    pool.result(ticket)
                assert caught.value.path == f"{kind}-1.mp4"
                assert isinstance(caught.value, DecoderDiedError) == (kind not in ("refuse", "fail"))
            else:
                assert (pool.result(ticket) == np.array([7, i, 0])).all()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_processes_killed_from_outside_cost_nothing(stubs):
    before = children()
    with DecodePool(2, work=stubs.read_slowly) as pool:
        tickets = [pool.submit(request_for("a.mp4", i)) for i in range(300)]
        for i, ticket in enumerate(tickets):
            assert (pool.result(ticket) == np.array([7, i % 256, i // 256])).all()
            if i in (50, 200):
                os.kill(max(children() - before), signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_process_that_hangs_is_gone(stubs):
    before = children()
    with DecodePool(1, work=stubs.read, max_seconds=0.5) as pool:
        with pytest.raises(DecoderDiedError):
            pool.result(pool.submit(request_for("hang-1.mp4")))
        wait_until(lambda: children() == before)
        assert pool.result(pool.submit(request_for("a.mp4"))).any()


def test_processes_are_replaced(stubs):
    with DecodePool(1, work=stubs.process_of, max_requests=10) as pool:
        processes = [pool.result(pool.submit("a.mp4")) for _ in range(40)]
    assert [processes.count(process) for process in dict.fromkeys(processes)] == [10, 10, 10, 10]


@pytest.mark.skipif(not resident_bytes(os.getpid()), reason="needs /proc")
def test_processes_that_leak_are_replaced(stubs):
    with DecodePool(1, work=stubs.leak, max_bytes=1 << 28) as pool:
        processes = [pool.result(pool.submit("a.mp4")) for _ in range(60)]
    assert len(set(processes)) >= 3


def test_processes_stay_light(stubs):
    with DecodePool(1) as pool:
        assert pool.result(pool.submit("a.mp4", work=stubs.modules)) == []


def test_a_process_that_cannot_start_ends_the_run(stubs, monkeypatch):
    def gone(path):
        return path

    gone.__qualname__, gone.__module__ = "no_such_name", "decoder_stubs"
    with DecodePool(1, work=gone) as pool:
        with pytest.raises(RuntimeError, match=r"end as they start .*decoder_stubs:no_such_name"):
            pool.result(pool.submit("a.mp4"))
        with pytest.raises(RuntimeError, match="end as they start"):
            pool.submit("a.mp4")


def test_a_closed_pool_refuses_and_leaves_no_one_waiting(stubs):
    pool = DecodePool(1, work=stubs.sleep)
    tickets = [pool.submit("3600") for _ in range(5)]
    time.sleep(0.5)
    pool.close()
    assert all(ticket.done() for ticket in tickets)
    with pytest.raises(RuntimeError, match="got a closed decode pool"):
        pool.submit("0")


def test_a_cancelled_request_is_not_done(stubs):
    with DecodePool(1, work=stubs.sleep) as pool:
        tickets = [pool.submit("0.2"), *(pool.submit("3600") for _ in range(3))]
        assert all(ticket.cancel() for ticket in tickets[1:])
        assert pool.result(pool.submit("0")) == "0"


def run_script(tmp_path, code, **options):
    script = tmp_path / "script.py"  # without a main guard
    head = f"import sys, time; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(ROOT)!r}]\n"
    head += "import decoder_stubs as stubs\nfrom flexivid.data.workers.pool import DecodePool\n"
    head += "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # shells' & and nohup ignore it
    script.write_text(head + textwrap.dedent(code))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(script)], **pipes, **options)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_their_parent(tmp_path, end):
    code = """
    pool = DecodePool(2, work=stubs.sleep)
    tickets = [pool.submit("0"), pool.submit("3600"), pool.submit("3600"), pool.submit("3600")]
    pool.result(tickets[0])
    print("started", flush=True)
    pool.result(tickets[1])
    """
    parent = run_script(tmp_path, code, start_new_session=True)
    assert parent.stdout.readline() == "started\n"
    workers = children(parent.pid)
    os.killpg(parent.pid, end)
    _, errors = parent.communicate(timeout=60)
    assert len(workers) == 2
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert errors.count("Traceback") == (end == signal.SIGINT)  # the parent's own


def test_only_python_is_heard(tmp_path):
    code = """
    pool = DecodePool(1, work=stubs.speak)
    for _ in range(3):
        try:
            pool.result(pool.submit("a.mp4"))
        except ValueError as error:
            print(error.reason)
    """
    output, errors = run_script(tmp_path, code).communicate(timeout=60)
    assert output == "TypeError: told by Python\n" * 3
    assert errors.count("Traceback") == errors.count("in speak") == 1
    assert "native noise" not in errors


def test_probe_many_keeps_the_order(make_video, tmp_path):
    paths = [make_video(tmp_path / f"{i}.mp4", 4 + i) for i in range(5)]
    (tmp_path / "bad.mp4").write_bytes(b"junk")
    paths[2:2] = [tmp_path / "bad.mp4"]
    with DecodePool(2) as pool:
        found = list(probe_many(paths, pool))
    assert isinstance(found[2], VideoError)
    assert found[2].path.endswith("bad.mp4")
    assert [len(info.timestamps) for info in found if isinstance(info, Facts)] == [4, 5, 6, 7, 8]


@pytest.mark.skipif(not resident_bytes(os.getpid()), reason="needs /proc")
def test_memory_stays_flat(stubs):
    def read(number):
        tickets = [pool.submit(request_for("a.mp4", i, (64, 64))) for i in range(8)]
        for _ in range(number):
            pool.result(tickets.pop(0))
            tickets.append(pool.submit(request_for("a.mp4", 0, (64, 64))))
        gc.collect()
        return resident_bytes(os.getpid())

    with DecodePool(2, work=stubs.read) as pool:
        first = read(300)
        assert read(3000) - first < 8 << 20

"""What does the loader add to decoding, how does it scale with processes, and does memory stay flat?

The same clips are read by ``read_clip`` in this process and by a ``ClipLoader`` over 1, 2, ... processes, in turn
within each repetition so that drift of the machine hits all alike. Overhead is the loader's time per clip with one
process over that of ``read_clip``, minus 1. Start-up of processes is measured by itself. Then many clips of small
videos go through a loader, and the memory of this process and of the one that decodes is read along the way.

    python benchmarks/bench_loader.py ../shared/videos/train --output benchmarks/results/bench_loader.json

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np

from flexivid.data.clips.loader import ClipLoader
from flexivid.data.decoding.probe import VideoError, probe
from flexivid.data.decoding.reader import ClipRequest, read_clip
from flexivid.data.workers.pool import DecodePool
from flexivid.data.workers.worker import resident_bytes

NUM_FRAMES, BATCH = 16, 8


class Planned:
    """Clips that are planned beforehand."""

    has_captions = False

    def __init__(self, requests: list[ClipRequest]) -> None:
        self.requests = requests

    def __len__(self) -> int:
        return len(self.requests)

    def plan(self, address: tuple[int, int]) -> ClipRequest:
        """The request of a clip."""
        return self.requests[address[0]]

    def label(self, clip: int) -> int:
        """No classes."""
        return -1

    def caption(self, clip: int) -> str:
        """No captions."""
        return ""

    def cached(self, address: tuple[int, int]) -> None:
        """Nothing is in memory."""


def plan(folder: Path, number: int, side: int) -> list[ClipRequest]:
    """Random windows of all videos of a folder that are long enough."""
    videos = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".webm", ".mkv", ".avi", ".mov")):
        try:
            info = probe(str(path))
        except VideoError:
            continue
        if len(info.timestamps) >= NUM_FRAMES:
            videos.append((str(path), info.to_bytes(), len(info.timestamps)))
    rng, requests = np.random.default_rng(0), []
    for i in range(number):
        path, info, num_frames = videos[i % len(videos)]
        start = rng.integers(num_frames - NUM_FRAMES + 1)
        requests.append(ClipRequest(path, info, np.arange(start, start + NUM_FRAMES), (side, side)))
    return requests


def batches(number: int) -> list[list[tuple[int, int]]]:
    """All clips in batches."""
    return [[(clip, 0) for clip in range(i, min(i + BATCH, number))] for i in range(0, number, BATCH)]


def drain(items: Iterable[object]) -> None:
    """Take everything and keep nothing."""
    for _ in items:
        pass


def measure(folder: Path, *, number: int, side: int, workers: list[int], repetitions: int) -> dict:
    """Median clips a second of each candidate, taken in turn."""
    requests = plan(folder, number, side)
    pools = {count: DecodePool(count) for count in workers}
    runs: dict[str, Callable[[], None]] = {"read_clip": lambda: drain(map(read_clip, requests))}
    for count, pool in pools.items():
        loader = ClipLoader(Planned(requests), batches(number), pool=pool)
        runs[f"loader, {count} workers"] = lambda loader=loader: drain(loader)  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if repetition:  # the first starts processes and fills caches
                seconds[name].append(time.perf_counter() - started)
    for pool in pools.values():
        pool.close()
    rates = {name: round(number / statistics.median(values), 1) for name, values in seconds.items()}
    ratios = [mine / raw for mine, raw in zip(seconds["loader, 1 workers"], seconds["read_clip"], strict=True)]
    overhead = round(100 * (statistics.median(ratios) - 1), 1)
    return {"side": side, "clips": number, "clips_per_second": rates, "overhead_percent": overhead}


def start_up() -> float:
    """Seconds until a new process has done its first request."""
    started = time.perf_counter()
    with DecodePool(1) as pool:
        pool.result(pool.submit("nowhere", work=os.path.exists))
        return time.perf_counter() - started


def memory(number: int) -> dict:
    """Memory of this process and of the decoding one while many clips of small videos go through a loader."""
    # one process throughout: replacing it would hide what it gathers
    with tempfile.TemporaryDirectory() as folder, DecodePool(1, max_requests=10 * number) as pool:
        for i in range(8):
            write_small(Path(folder) / f"{i}.mp4", level=20 * i)
        loader = ClipLoader(Planned(plan(Path(folder), number, 32)), batches(number), pool=pool)
        worker = pool.result(pool.submit(0, work=os.getpgid))  # each leads a group of its own
        resident: dict[str, list[float]] = {"parent": [], "worker": []}
        for i, _ in enumerate(loader):
            if i % max(1, number // BATCH // 10) == 0:
                for name, process in (("parent", os.getpid()), ("worker", worker)):
                    resident[name].append(round(resident_bytes(process) / 2**20, 1))
        assert worker == pool.result(pool.submit(0, work=os.getpgid))
    growth = {name: round(values[-1] - values[1], 1) for name, values in resident.items()}
    return {"clips": number, "resident_mib": resident, "growth_mib": growth}


def write_small(path: Path, *, level: int) -> None:
    """A short grey video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(2 * NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8))))
        container.mux(stream.encode())


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="videos to decode")
    parser.add_argument("--clips", type=int, default=96, help="clips of a repetition")
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--memory-clips", type=int, default=20_000)
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    workers = sorted({1, *options.workers})
    settings = {"number": options.clips, "workers": workers, "repetitions": options.repetitions}
    rows = []
    for side in options.sides:
        rows.append(measure(options.folder, side=side, **settings))
        print(rows[-1], file=sys.stderr)
    result = {
        "question": __doc__.splitlines()[0],
        "machine": {"processor": platform.processor(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "start_up_seconds": round(statistics.median(start_up() for _ in range(3)), 3),
        "rows": rows,
        "memory": memory(options.memory_clips),
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

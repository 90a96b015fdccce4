"""How long does a start with a warm index take, and how much memory does an index of ten million videos?

A start lists the folder (or reads the list), compares names, sizes and times with the index, and maps it. The files are
links to a small clip, and what it holds is known: nothing is probed. Then the training program itself is started on
the same files, and timed until the first batch reaches the module: seconds of the clock and of the processor for each
stage, the decode processes' aside.

    python benchmarks/bench_index.py --output benchmarks/results/bench_index.json

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from flexivid.data.decoding.probe import Facts, probe
from flexivid.data.index.build import Check, build_index
from flexivid.data.index.table import TABLE, Table
from flexivid.data.sources.manifest import read_manifests

TOUCH = """
import sys, numpy as np
from flexivid.data.index.table import Table
from flexivid.data.index.videos import Videos
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))}
before = resident()
table = Table.open(sys.argv[1])
videos = Videos(table, slice(0, table.num_good))
opened = resident()
for row in np.random.default_rng(0).integers(len(videos), size=1000).tolist():
    videos.path(row), videos.facts(row), int(videos.num_frames[row])
after = resident()
print({"imports": before["VmRSS"], "opened": opened["VmRSS"], "touched": after["VmRSS"], "own": after["RssAnon"]})
"""
TRAIN = """
import json, os, sys, time
began, marks = float(sys.argv.pop(1)), []
def mark(stage):
    marks.append((stage, time.time() - began, time.process_time()))
from flexivid.runtime.start import swift_imports
with swift_imports():
    import torch, lightning.pytorch.cli
    mark("libraries")
    import flexivid.training.cli
    from flexivid.data import module
    from flexivid.data.clips.loader import ClipLoader
    from flexivid.training.module import FlexiDiffusion
mark("own modules")
setup, load, batches = module.VideoDataModule.setup, module.load_splits, ClipLoader.__iter__
def timed_setup(self, stage=None):
    mark("settings, network, trainer")
    setup(self, stage)
    mark("data set")
def timed_load(*args, **options):
    splits = load(*args, **options)
    mark("index")
    return splits
def timed_batches(self):
    mark("optimizer, loop")
    return (yield from batches(self))
def first_step(self, batch, index):
    mark("decode process, first batch")
    print(json.dumps(marks), flush=True)
    os._exit(0)
module.VideoDataModule.setup, module.load_splits, ClipLoader.__iter__ = timed_setup, timed_load, timed_batches
FlexiDiffusion.training_step = first_step
from flexivid.train import main
main()
"""
RECIPE = Path(__file__).resolve().parents[1] / "conf" / "train_video.yaml"
FACTS = Facts("h264", "mp4", "yuv420p", (240, 320), 0, np.arange(300) * 40, 12000, (1, 1000), np.zeros((1, 2), int))


def write_clip(path: Path) -> Facts:
    """Make a video of 16 small frames, and return what is known of it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for level in range(16):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * level, np.uint8))))
        container.mux(stream.encode())
    return probe(path)


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def starts(root: Path, num_rows: int, repetitions: int) -> dict[str, float]:
    """Time the first and later starts of a folder and of a list of the same files."""
    facts = write_clip(root / "0.mp4")
    for number in range(1, 8):  # file systems limit the links to a file
        shutil.copyfile(root / "0.mp4", root / f"{number}.mp4")
    for number in range(num_rows):
        folder = root / "v" / f"class_{number % 100:02d}"
        if number < 100:
            folder.mkdir(parents=True)
        os.link(root / f"{number % 8}.mp4", folder / f"{number:06d}.mp4")
    paths = [f"v/class_{number % 100:02d}/{number:06d}.mp4" for number in range(num_rows)]
    pa.parquet.write_table(pa.table({"path": paths, "text": ["a caption"] * num_rows}), root / "list.parquet")
    result = {}

    def stand_in(paths: list[str]) -> Iterator[Facts]:
        return (facts for _ in paths)

    for kind, place in (("folder", root / "v"), ("list", root / "list.parquet")):
        for check in ("stat", "names"):

            def start(place: Path = place, check: Check = check) -> None:
                manifest = read_manifests(place).train
                build_index(manifest, progress=False, probe_many=stand_in, check=check)

            first = seconds(start)
            result[f"{kind}_{check}"] = statistics.median(seconds(start) for _ in range(repetitions))
            result |= {"cold_without_probing": first} if (kind, check) == ("folder", "stat") else {}
    return result


def training_start(root: Path, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each stage until the training program has its first batch: by the clock, and of the processor."""
    words = ["fit", "--config", str(RECIPE), "--data.root", str(root / "list.parquet")]
    words += ["--trainer.logger.init_args.save_dir", str(root / "runs"), "--trainer.max_steps", "1000"]
    runs = []
    for _ in range(repetitions + 1):
        command = [sys.executable, "-c", TRAIN, str(time.time()), *words]
        out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
        marks = json.loads(out.strip().splitlines()[-1])
        times = np.array([mark[1:] for mark in marks])
        runs.append(np.concatenate([np.diff(times, axis=0, prepend=np.zeros((1, 2))), times[-1:]]))
    seconds = np.median(runs[1:], axis=0).round(2).tolist()  # the first fills the system's caches
    return dict(zip([*(mark[0] for mark in marks), "all"], seconds, strict=True))


def memory(root: Path, num_rows: int) -> dict[str, float]:
    """Measure what a process that opens a large index and touches a thousand rows takes, in MiB."""
    numbers = pa.array(np.arange(num_rows))
    paths = pa.compute.binary_join_element_wise("/data/videos/class", numbers.cast("string"), "/").cast("large_string")
    same = {field.name: "" if field.type == pa.large_string() else 300 for field in TABLE}
    same |= {"facts": FACTS.to_bytes(), "decoder": "pyav", "is_variable_rate": False, "caption": "a caption"}
    columns = {field.name: pa.repeat(pa.scalar(same[field.name], field.type), num_rows) for field in TABLE}
    columns |= {"path": paths, "number": numbers}
    path = root / "large.arrow"
    Table.write(pa.table(columns, schema=TABLE), path, num_good=num_rows)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", TOUCH, path], capture_output=True, text=True, check=True, env=environment
    )
    return {"gib": path.stat().st_size / 2**30, **json.loads(out.stdout.replace("'", '"'))}


def main() -> None:
    """Measure both, print, and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-rows", type=int, default=100_000)
    parser.add_argument("--num-large", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FLEXIVID_CACHE"] = f"{folder}/cache"
        start = starts(Path(folder), arguments.num_rows, arguments.repetitions)
        training = training_start(Path(folder), arguments.repetitions)
        large = memory(Path(folder), arguments.num_large)
    result = {
        "num_rows": arguments.num_rows,
        "start_seconds": {name: round(value, 3) for name, value in start.items()},
        "training_start_clock_and_processor_seconds": training,
        "num_large": arguments.num_large,
        "memory_mib": {name: round(value, 1) for name, value in large.items() if name != "gib"},
        "file_gib": round(large["gib"], 2),
    }
    document = json.dumps(result)
    if arguments.output:
        arguments.output.write_text(document + "\n")
    print(document)


if __name__ == "__main__":
    main()

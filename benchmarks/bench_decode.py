"""Which decoder returns the right frames of real files, and how many random clips a second each decodes.

For every file of ``FOLDER/check`` (see its MANIFEST.csv): does a decoder count the frames right, and are the first, the
last and random ones equal (4 levels, on average) to those that PyAV decodes in sequence? For files of ``FOLDER/train``:
random clips of 16 frames at 64x64 in a reader opened anew, one thread, decoders in turn, CPU seconds.
Run: python benchmarks/bench_decode.py ../shared/videos
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np

from flexivid.data.decoding.backends import DecordDecoder, TorchcodecDecoder, View
from flexivid.data.decoding.facts import Facts
from flexivid.data.decoding.probe import probe
from flexivid.data.decoding.reader import cover, open_video
from flexivid.data.storage.errors import VideoError

Read = Callable[[Path, Facts, Sequence[int], tuple[int, int] | None], tuple[int, list[np.ndarray]]]
CLIP, SIZE, SEEKS, LEVELS = 16, (64, 64), 20, 4


def ours(path: Path, info: Facts, wanted: Sequence[int], size: tuple[int, int] | None):
    """open_video with facts known."""
    with open_video(path, size=size, info=info) as reader:
        return reader.num_frames, list(reader.frames(wanted))


def pyav_naive(path: Path, info: Facts, wanted: Sequence[int], size: tuple[int, int] | None):
    """Seek to number / rate, and count frames from the time of the one that comes."""
    height, width = cover(info.size, size) if size else (None, None)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate, start, frames, number = float(stream.average_rate), stream.start_time or 0, [], None
        for index in wanted:
            if number is None or index != number + 1:
                container.seek(int(index / rate / stream.time_base) + start, stream=stream)
                decoded = container.decode(stream)
            for frame in decoded:
                number = round((frame.time - float(start * stream.time_base)) * rate)
                if number >= index:
                    frames.append(frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC"))
                    break
        return stream.frames or info.num_frames, frames


def decord(path: Path, info: Facts, wanted: Sequence[int], size: tuple[int, int] | None):
    """The library as it comes."""
    import decord as library

    library.logging.set_level(library.logging.QUIET)
    height, width = cover(info.size, size) if size else info.size
    reader = library.VideoReader(str(path), num_threads=1, width=width, height=height)
    return len(reader), list(reader.get_batch(list(wanted)).asnumpy())


def checked(kind: type) -> Read:
    """One of the decoders behind the interface."""

    def read(path: Path, info: Facts, wanted: Sequence[int], size: tuple[int, int] | None):
        decoder = kind(path, info, View(cover(info.size, size) if size else info.size))
        frames = dict(decoder.pictures(sorted(set(wanted))))
        decoder.close()
        return info.num_frames, [frames[index] for index in wanted]

    return read


DECODERS: dict[str, Read] = {
    "open_video": ours,
    "pyav_naive_seek": pyav_naive,
    "decord": decord,
    "decord_checked_count": checked(DecordDecoder),
}
if find_spec("torchcodec"):
    DECODERS["torchcodec_exact"] = checked(TorchcodecDecoder)


def sequence(path: Path, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    """Frames by number as PyAV decodes them one after another, with square pixels, and how many there are."""
    frames, count = {}, 0
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        for frame in container.decode(stream):
            if count in wanted:
                width = round(frame.width * (stream.sample_aspect_ratio or 1))
                kernel = "BICUBIC" if width != frame.width else None
                picture = frame.to_ndarray(format="rgb24", width=width, height=frame.height, interpolation=kernel)
                frames[count] = np.rot90(picture, frame.rotation // 90)
            count += 1
    return frames, count


def verdict(read: Read, path: Path, info: Facts | None, truth: dict[int, np.ndarray], num_frames: int) -> str:
    """right, wrong frame, wrong count, or refused."""
    try:
        info = info or probe(path)
        order = np.random.default_rng(1).permutation(sorted(truth)).tolist()
        count, frames = read(path, info, order, None)
        if count != num_frames:
            return "wrong count"
        for index, frame in zip(order, frames, strict=True):
            if frame.shape != truth[index].shape or np.abs(frame.astype(int) - truth[index]).mean() >= LEVELS:
                return "wrong frame"
    except Exception:  # whatever a decoder raises is a refusal
        return "refused"
    return "right"


def judge(folder: Path) -> dict[str, dict[str, str]]:
    """Every decoder on every file: file -> decoder -> verdict."""
    table = {}
    for row in csv.DictReader((folder / "MANIFEST.csv").open()):
        path, num_frames = folder / row["file"], int(row["frames"] or 0)
        bad = path.name.startswith("bad__") or not num_frames
        rng, info, truth = np.random.default_rng(0), None, {}
        wanted = {0, max(0, num_frames - 1), *rng.integers(max(1, num_frames), size=SEEKS).tolist()}
        try:
            info = probe(path)
            truth, _ = sequence(path, wanted)
        except (VideoError, av.FFmpegError):
            pass
        table[path.name] = {
            name: verdict(read, path, info, truth, num_frames) if info else "refused"
            for name, read in DECODERS.items()
            if not (bad and name != "open_video") and (info or name == "open_video")
        }
        table[path.name]["expected"] = "refused" if bad else "right"
        print(path.name, table[path.name], file=sys.stderr)
    return table


def speed(folder: Path, num_clips: int, max_files: int) -> list[dict]:
    """Clips per CPU second of each decoder that is right on the clips it was asked for."""
    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".mkv", ".avi"))[:max_files]:
        info, rng = probe(path), np.random.default_rng(0)
        if info.num_frames < CLIP:
            continue
        starts = rng.integers(info.num_frames - CLIP + 1, size=num_clips)
        seconds = {name: 0.0 for name in DECODERS}
        for start in starts:
            wanted, expected = range(start, start + CLIP), None
            for name in list(seconds):
                begun = time.process_time()
                try:
                    _, frames = DECODERS[name](path, info, wanted, SIZE)
                except Exception:
                    seconds.pop(name)
                    continue
                seconds[name] += time.process_time() - begun
                tops = [frame[:, (frame.shape[1] - 64) // 2 :][:64, :64].astype(int) for frame in frames]
                expected = expected or tops
                if any(np.abs(a - b).mean() >= LEVELS for a, b in zip(tops, expected, strict=False)):
                    seconds.pop(name)
        rates = {name: round(num_clips / value, 2) for name, value in seconds.items()}
        best = max((rate for name, rate in rates.items() if name != "open_video"), default=0.0)
        ratio = round(rates["open_video"] / best, 3) if best else None
        rows.append({"file": path.name, "clips_per_second": rates, "ratio_to_fastest_right": ratio})
        print(rows[-1], file=sys.stderr)
    return rows


def main() -> None:
    """Judge and time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds check/ and train/")
    parser.add_argument("--clips", type=int, default=6, help="random clips per file")
    parser.add_argument("--files", type=int, default=100, help="at most so many files are timed")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    table = judge(options.folder / "check")
    valid = [row for row in table.values() if row["expected"] == "right"]
    names = [*DECODERS]
    kinds = ("right", "wrong frame", "wrong count", "refused")
    counts = {name: {kind: sum(row.get(name, "refused") == kind for row in valid) for kind in kinds} for name in names}
    refused = sum(row["open_video"] == "refused" for row in table.values() if row["expected"] == "refused")
    result = {
        "question": __doc__.splitlines()[0],
        "valid_files": len(valid),
        "verdicts_on_valid_files": counts,
        "bad_files": len(table) - len(valid),
        "bad_files_refused_by_open_video": refused,
        "files": table,
        "random_clips": {
            "frames": CLIP,
            "size": SIZE,
            "rows": speed(options.folder / "train", options.clips, options.files),
        },
        "versions": {"av": av.__version__},
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

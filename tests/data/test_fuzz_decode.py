"""Mutated files: frames equal to what PyAV decodes in sequence, or ``VideoError``; no hang, bounded memory."""

import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from flexivid.data.decoding.reader import open_video
from flexivid.data.storage.errors import VideoError

MAX_SECONDS = 10  # for one file
MAX_BYTES = 2 << 30  # of the process that decodes them all


def truth(path):
    """Frames that PyAV decodes from the first on, up to the first failure, at 32x32, and their times."""
    frames, times = [], []
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24", width=32, height=32, interpolation="BICUBIC"))
                times.append(frame.pts)
    except (av.FFmpegError, AttributeError, TypeError, ValueError):
        pass
    return frames, times


def mutate(content, rng):
    """Cut, flip bits, zero a range, or swap the two large boxes of an mp4 without correcting its table of offsets."""
    data, kind = bytearray(content), rng.integers(4)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:
        for place in rng.integers(len(data), size=rng.integers(1, 40)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        first, size = rng.integers(len(data)), rng.integers(1, len(data) // 8)
        data[first : first + size] = bytes(len(data[first : first + size]))
    else:
        moov, mdat = data.find(b"moov"), data.find(b"mdat")
        a, b = sorted((moov - 4, mdat - 4)) if min(moov, mdat) > 4 else (len(data) // 3, 2 * len(data) // 3)
        return bytes(data[:a] + data[b:] + data[a:b])
    return bytes(data)


def check(path, rng):
    """Return what is wrong with the frames of one file, or whether it was refused."""
    started, read, wrong = time.monotonic(), {}, ""
    try:
        with open_video(path, size=(32, 32)) as reader:
            count = reader.num_frames
            square = reader.info.size[0] == reader.info.size[1]
            for index in rng.integers(count, size=4):
                read[int(index)] = reader.frames([index])[0]
    except VideoError:
        count = 0
    expected, _ = truth(path)
    for index, frame in read.items():
        if index >= len(expected):
            wrong = f"frame {index} of {len(expected)}"
        elif square and np.abs(frame.astype(int) - expected[index]).mean() >= 4:
            wrong = f"frame {index} differs"
    if time.monotonic() - started > MAX_SECONDS:
        wrong = "takes too long"
    return wrong, bool(read)


def sources(folder):
    """Small videos of several kinds."""
    pictures = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    kinds = (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.mov", "mpeg4"))
    for name, codec in kinds:
        options = {"movflags": "faststart"} if name == "a.mp4" else {}
        with av.open(str(folder / name), "w", options=options) as container:
            stream = container.add_stream(codec, rate=12, options={"g": "8"})
            stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
            for picture in pictures:
                smooth = np.repeat(np.repeat(picture[::16, ::16], 16, axis=0), 16, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(smooth)))
            container.mux(stream.encode())
        yield folder / name


def run(folder, count):
    """Mutate and check; the last line printed says how it went."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    rng, files = np.random.default_rng(count), list(sources(folder))
    faults, num_read = [], 0
    for number in range(count):
        source = files[number % len(files)]
        path = folder / f"mutated{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), rng))
        wrong, was_read = check(path, rng)
        num_read += was_read
        if wrong:
            faults.append((number, source.name, wrong))
    print("faults", faults, "read", num_read)


def fuzz(folder, count, seconds):
    """What a process says that mutates and checks so many files."""
    command = [sys.executable, __file__, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_mutated_files(tmp_path):
    said = fuzz(tmp_path, 25, seconds=120)
    assert said.startswith("faults [] read")
    assert int(said.split()[-1]) >= 25 // 20  # some do decode


@pytest.mark.slow
def test_many_mutated_files(tmp_path):
    said = fuzz(tmp_path, 500, seconds=900)
    assert said.startswith("faults [] read")
    assert int(said.split()[-1]) >= 500 // 20


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))

"""What decode processes run in the tests: frames that name their clip, and decoders that misbehave on certain paths."""

import ctypes
import os
import sys
import time

import numpy as np

from flexivid.data.decoding.probe import VideoError


def read(request):
    """Frames of one level each: the number in the path, the epoch and the clip, as ``indices`` carry them."""
    kind = os.path.basename(request.path).split("-")[0]
    if kind in BEHAVIOURS:
        BEHAVIOURS[kind](request.path)
    frames = np.zeros((len(request.indices), *request.size, 3), np.uint8)
    frames[..., 0], frames[..., 1], frames[..., 2] = (
        request.indices[0],
        request.indices[1] % 256,
        request.indices[1] // 256,
    )
    return frames


def read_slowly(request):
    time.sleep(0.002 * (request.indices[1] % 5))
    return read(request)


def process_of(path):
    return os.getpid()


def modules(path):
    return sorted({"torch", "lightning", "decord"} & set(sys.modules))


def speak(path):
    os.write(2, b"native noise\n")
    os.write(1, b"native noise\n")
    print("native noise", flush=True)
    raise TypeError("told by Python")


def sleep(path):
    time.sleep(float(path))
    return path


def hog(path):
    held = []
    while True:
        held.append(np.ones(16 << 20, np.uint8))
        time.sleep(0.005)


def leak(path, held=[]):  # noqa: B006
    held.append(np.ones(8 << 20, np.uint8))
    return os.getpid()


def refuse(path):
    raise VideoError(path, "no video stream")


def fail(path):
    raise KeyError(path)


BEHAVIOURS = {
    "segfault": lambda path: ctypes.string_at(0),
    "abort": lambda path: os.abort(),
    "hang": lambda path: time.sleep(3600),
    "hog": hog,
    "exit": lambda path: sys.exit(3),
    "refuse": refuse,
    "fail": fail,
}


def read_or_crash(request):
    if request.indices[1] == 6:
        os.abort()
    return read(request)

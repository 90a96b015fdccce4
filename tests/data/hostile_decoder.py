"""What decode processes run in some tests: a process that a file has taken over, and that answers what it likes."""

import fcntl
import json
import os
import pickle
import stat
import struct
import time
import zlib

import numpy as np

from flexivid.data.decoding.facts import Facts
from flexivid.data.workers.message import HEAD, KINDS, REPLY

FACTS = Facts("h264", "mp4", "yuv420p", (48, 64), 0, np.arange(5), 5, (1, 10), np.zeros((1, 2), np.int64))


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def sockets():
    return [int(name) for name in os.listdir("/proc/self/fd") if _is(int(name), stat.S_ISSOCK)]


def _is(file, what):
    try:
        return what(os.fstat(file).st_mode)
    except OSError:
        return False


def say(content):
    os.write(sockets()[0], content)


def reply(kind, body=b"", *, num_bytes=None):
    number = KINDS.index(kind) if isinstance(kind, str) else kind
    return REPLY.pack(number, 0, len(body) if num_bytes is None else num_bytes) + body


def json_value(text):
    return reply("value", HEAD.pack(len(text)) + text.encode())


def facts(**changes):
    """Facts of a file with some fields of the head replaced."""
    head, _, planes = zlib.decompress(FACTS.to_bytes()).partition(b"\n")
    names = [*Facts._fields[:5], "end", "time_base", "timed", "skips", "decoder", "display", "n"]
    fields = dict(zip(names, json.loads(head), strict=True)) | changes
    return reply("facts", zlib.compress(json.dumps(list(fields.values())).encode() + b"\n" + planes))


ANSWERS = {  # attack: what is sent, whatever was asked for
    "garbage": b"\xff" * 4000,
    "letters": b"HTTP/1.1 200 OK\r\n\r\n" * 9,
    "kind": reply(6),
    "long-value": reply("value", num_bytes=1 << 62),
    "long-facts": reply("facts", num_bytes=(1 << 64) - 1),
    "long-frames": reply("frames", b"x" * 100),
    "ready": reply("ready"),
    "zeros": bytes(10_000),
    "value": json_value("5"),
    "facts-good": reply("facts", FACTS.to_bytes()),
    "frames-good": reply("frames"),
    "nested": json_value("[" * 500_000),
    "digits": json_value("9" * 500_000),
    "object": json_value('{"bytes": -5}'),
    "beyond": json_value('{"bytes": 500}'),
    "overflow": json_value('{"int64": 1e300}'),
    "text": reply("failed", b"\xff\xfe\x00"),
    "facts-bomb": reply("facts", zlib.compress(b"[" * (200 << 20), 9)),
    "facts-cut": facts()[:-3] + b"\0\0\0",
    "facts-negative": facts(size=[-48, 64]),
    "facts-huge": facts(size=[1 << 31, 1 << 31]),
    "facts-float": facts(size=[48.5, 64]),
    "facts-base": facts(time_base=[1, 0]),
    "facts-end": facts(end=1 << 70),
    "facts-number": facts(n=1 << 40),
    "facts-minus": facts(n=-1),
    "facts-nan": facts(rotation=float("nan")),
    "facts-list": reply("facts", zlib.compress(b"{}\n")),
}
HALVES = {"half-head": b"\1", "half-body": reply("failed", b"no", num_bytes=1000)}


def answer(request):
    """Send what the name of the file says, and say no more; otherwise do as one is told."""
    path = getattr(request, "path", request)
    attack = os.path.basename(path).partition(".")[0]
    if attack in ANSWERS or attack in HALVES:
        say((ANSWERS | HALVES)[attack])
        time.sleep(1000)
    if attack.startswith("mkdir"):
        say(PICKLED[attack](path + ".made"))
        time.sleep(1000)
    if attack in BEHAVIOURS:
        BEHAVIOURS[attack]()
    if not hasattr(request, "size"):
        return FACTS if hasattr(request, "decoder") else path
    return np.full((len(request.indices), *request.size, 3), 7, np.uint8)


def pickled(path):
    return pickle.dumps(Payload(path))


PICKLED = {
    "mkdir-bare": pickled,
    "mkdir-old": lambda path: struct.pack("<QQQ", len(pickled(path)), 0, 0) + pickled(path),
    "mkdir-value": lambda path: reply("value", pickled(path)),
    "mkdir-facts": lambda path: reply("facts", pickled(path)),
}


def endless(content):
    while True:
        say(content)


def shrink_memory():
    """Try to take the shared frames from under the main process."""
    for name in os.listdir("/proc/self/fd"):
        if "flexivid-frames" in os.readlink(f"/proc/self/fd/{name}"):
            for attempt in (
                lambda file: os.ftruncate(file, 0),
                lambda file: fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW),
            ):
                try:
                    attempt(int(name))
                except OSError:
                    continue
                os._exit(9)
            return
    os._exit(8)


def leave_a_child():
    """End, while a child keeps the socket and goes on talking."""
    if os.fork() == 0:
        endless(b"\0" * 1000)
    os._exit(3)


BEHAVIOURS = {
    "endless-garbage": lambda: endless(b"\xff" * 100_000),
    "endless-ready": lambda: endless(reply("ready")),
    "endless-failed": lambda: endless(reply("failed", b"no")),
    "endless-body": lambda: (say(reply("facts", num_bytes=32 << 20)), endless(b"\0" * 100_000)),
    "child": leave_a_child,
    "shrink": shrink_memory,
}


def other_shape(request):
    return np.zeros((1, 2))


def no_plain_data(path):
    return open

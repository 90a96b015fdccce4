"""The main loop of a decode process: receive a request, call a function with it, return the result.

It communicates over the socket that is its standard input, and ends when that closes or its parent dies. Output of
native libraries is discarded; tracebacks of Python go to the parent's standard error.
"""

import ctypes
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import IO, Any, NamedTuple

from flexivid.data.decoding.probe import VideoError
from flexivid.data.workers.message import REQUEST, RESULTS, Reply, pack_reply, request_kind, unpack, unpack_request
from flexivid.data.workers.shared_memory import Block, BlockWriter

PR_SET_PDEATHSIG = 1


class Hello(NamedTuple):
    """The first message to a process."""

    work: str  # name of the function that answers most requests; imported at the start
    parent: int  # id of the parent process; this one ends with it
    file: int  # descriptor of the shared memory
    max_seconds: float  # time for a request, in case the parent, which would kill first, is gone
    max_bytes: int  # memory for a request; a second limit, since the parent measures it as well


def name_of(work: Callable[[Any], Any]) -> str:
    """Return the name under which another process can import a function.

    >>> name_of(os.path.getsize)
    'genericpath:getsize'
    >>> name_of(lambda path: path)
    Traceback (most recent call last):
    ...
    ValueError: got work=<lambda>; expected a function that another process can import; define it in a module
    """
    module, name = work.__module__, work.__qualname__
    if module == "__main__" or "<" in name:
        raise ValueError(f"got work={name}; expected a function that another process can import; define it in a module")
    return f"{module}:{name}"


def resident_bytes(process: int) -> int:
    """Return the private memory of a process in bytes; 0 where the system does not report it."""
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            _, resident, shared = file.read().split()[:3]
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Serve requests until the socket closes."""
    os.dup(0)  # never closed: the parent sees the socket close only once this process has an exit status
    channel = socket.socket(fileno=os.dup(0))
    stream = channel.makefile("rb")
    _quieten()
    received = _receive(stream)
    if received is None:
        return
    hello = Hello(*unpack(received[0]))
    _die_with(hello.parent)
    _limit_memory(hello.max_bytes)
    writer = BlockWriter(hello.file)
    _find(hello.work)
    reply = _packed(Reply("ready"))
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent has gone
        while True:
            channel.sendall(reply)
            received = _receive(stream)
            if received is None:
                break
            signal.setitimer(signal.ITIMER_REAL, 2 * hello.max_seconds + 10)  # ends the process, even in native code
            reply = serve(*received, writer=writer)
            signal.setitimer(signal.ITIMER_REAL, 0)
    os._exit(0)  # threads of libraries may not end soon


def serve(message: bytes, block: Block, *, writer: BlockWriter) -> bytes:
    """Run one request and return the reply to send."""
    try:
        return _packed(_result(*unpack_request(message), block=block, writer=writer))
    except VideoError as error:
        reply = Reply("failed", error.reason)
    except MemoryError:
        reply = Reply("memory")
    except Exception as error:
        _show(f"{type(error).__name__}: {error}")
        reply = Reply("failed", f"{type(error).__name__}: {error}")
    return _packed(reply)


def _result(work: str, request: Any, *, block: Block, writer: BlockWriter) -> Reply:
    result = _find(work)(request)
    kind = RESULTS.get(request_kind(request), "value")
    if kind == "frames":
        writer.write(result, block, (len(request.indices), *request.size, 3))
        return Reply(kind)
    return Reply(kind, result.check() if kind == "facts" else result)


def _packed(reply: Reply) -> bytes:
    return pack_reply(reply._replace(resident_bytes=max(0, resident_bytes(os.getpid()))))


@cache
def _find(work: str) -> Callable[[Any], Any]:
    module, _, name = work.partition(":")
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    return function


@cache
def _show(error: str) -> None:
    """Print the traceback of an unexpected error, once."""
    traceback.print_exc()


def _receive(stream: IO[bytes]) -> tuple[bytes, Block] | None:
    header = stream.read(REQUEST.size)
    if len(header) < REQUEST.size:
        return None
    num_bytes, offset, size = REQUEST.unpack(header)
    message = stream.read(num_bytes)
    return (message, Block(offset, size)) if len(message) == num_bytes else None


def _quieten() -> None:
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":  # elsewhere the closing socket ends the process, and the timer if it hangs
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _limit_memory(max_bytes: int) -> None:
    if sys.platform == "linux":
        import resource

        # private writable memory includes the reserved stacks of threads, hence the margin
        most = 2 * max_bytes + (4 << 30)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))

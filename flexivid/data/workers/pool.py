"""Processes that decode, each of which can crash, hang or be killed without harm to anything but the file it was at.

A file that ends its process twice, takes too long or takes too much memory is reported as a ``VideoError``. A process
that is killed from outside costs nothing: what it had to do is done again by another. Processes are replaced after so
many requests, or when their memory has grown, so that libraries that leak do no harm.

A process that a file has taken over cannot reach this one by what it answers: answers are parsed, and what makes no
sense ends the process (``pool_message``). It is no sandbox: until then such a process may do what the user may.

Linux and macOS. Imports no torch.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar
from weakref import finalize

from flexivid.data.decoding.probe import Facts, Look, VideoError, look_at
from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.workers.message import RESULTS, pack_request, request_kind
from flexivid.data.workers.process import Job
from flexivid.data.workers.supervisor import DecoderDiedError, Keeper
from flexivid.data.workers.worker import Hello, name_of

__all__ = ["DecodePool", "DecoderDiedError", "Ticket", "num_cores", "outcomes", "probe_many"]

Ticket = Future
Key = TypeVar("Key")

LOOK_AHEAD = 64  # requests of ``probe_many`` that are on their way for each process
FRAMES_AHEAD = 4  # likewise of those for frames, which take memory


class DecodePool:
    """Processes that decode; started by the first request, and ended by ``close`` or with the interpreter.

    Args:
        num_workers: Number of processes; 0 means one all the same, so that no file can end the run.
        work: What is done with a request: a function at the top level of a module. By default ``decode.read_clip``.
        max_seconds: Time for a request.
        max_bytes: Memory for a request.
        max_requests: Requests after which a process is replaced.

    >>> with DecodePool(1, work=os.path.basename) as pool:
    ...     tickets = [pool.submit(path) for path in ("v/a.mp4", "v/b.mp4")]
    ...     [pool.result(ticket) for ticket in tickets]
    ['a.mp4', 'b.mp4']
    """

    def __init__(
        self,
        num_workers: int,
        *,
        work: Callable[[Any], Any] | None = None,
        max_seconds: float = 60.0,
        max_bytes: int = 2 << 30,
        max_requests: int = 10_000,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"got num_workers={num_workers}; expected 0 or more; give the number of decode processes")
        self.num_workers = num_workers
        self._work = "flexivid.data.decoding.reader:read_clip" if work is None else name_of(work)
        limits = Hello(self._work, os.getpid(), -1, max_seconds, max_bytes)
        self._keeper = Keeper(max(1, num_workers), limits, max_requests=max_requests)
        self._stop = finalize(self, self._keeper.stop)

    def submit(self, request: Any, *, work: Callable[[Any], Any] | None = None) -> Ticket:
        """Ask for something to be done; returns at once.

        Args:
            request: What ``work`` takes: a ``ClipRequest``, whose frames come back through shared memory; a ``Look``,
                for ``Facts``; or plain data, for plain data.
            work: Another function for this request.

        Returns:
            A future; it can be cancelled.
        """
        message = pack_request(self._work if work is None else name_of(work), request)
        shape = (len(request.indices), *request.size, 3) if isinstance(request, ClipRequest) else None
        path = str(getattr(request, "path", request))
        job = Job(message, path, shape=shape, result=RESULTS.get(request_kind(request), "value"))
        self._keeper.add(job)
        return job.ticket

    def result(self, ticket: Ticket) -> Any:
        """Wait for a result. Frames, (t, h, w, 3) uint8, are shared memory, used again once the array is gone.

        Raises:
            VideoError: If the file is at fault; ``DecoderDiedError`` if it took too long, too much, or two processes.
        """
        return ticket.result()

    def close(self) -> None:
        """End the processes; waiting for what is not done raises a ``RuntimeError``."""
        self._stop()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def probe_many(
    paths: Iterable[str | os.PathLike[str]], pool: DecodePool, *, decoder: str = "auto"
) -> Iterator[Facts | VideoError]:
    """Look at files in the processes of a pool, some ahead of what is asked for.

    Args:
        paths: The files.
        pool: The processes.
        decoder: Which decoder to use (see ``probe``).

    Yields:
        What was found, or what is wrong with the file, in the order of the paths.

    >>> with DecodePool(1) as pool:
    ...     [found.reason for found in probe_many(["nowhere.mp4"], pool)]
    ['cannot be opened: No such file or directory']
    """
    looks = ((None, Look(os.fspath(path), decoder)) for path in paths)
    for _, outcome in outcomes(looks, pool, work=look_at, ahead=LOOK_AHEAD):
        yield outcome


def outcomes(
    requests: Iterable[tuple[Key, Any]],
    pool: DecodePool,
    *,
    work: Callable[[Any], Any] | None = None,
    ahead: int = FRAMES_AHEAD,
) -> Iterator[tuple[Key, Any]]:
    """Have things done in the processes of a pool, some ahead of what is asked for.

    Args:
        requests: What is asked for, each with a key to know it by; taken as they are needed.
        pool: The processes.
        work: What is done with each; the pool's own work by default.
        ahead: Requests that are on their way for each process.

    Yields:
        The key, and what came of it or the ``VideoError``, in the order of the requests.

    >>> with DecodePool(1, work=os.path.basename) as pool:
    ...     list(outcomes([("a", "v/a.mp4"), ("b", "v/b.mp4")], pool))
    [('a', 'a.mp4'), ('b', 'b.mp4')]
    """
    waiting: deque[tuple[Key, Ticket]] = deque()
    try:
        for key, request in requests:
            waiting.append((key, pool.submit(request, work=work)))
            if len(waiting) >= ahead * max(1, pool.num_workers):
                yield _outcome(pool, *waiting.popleft())
        while waiting:
            yield _outcome(pool, *waiting.popleft())
    finally:
        for _, ticket in waiting:
            ticket.cancel()


def num_cores() -> int:
    """Return how many processor cores this process may use.

    >>> num_cores() > 0
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _outcome(pool: DecodePool, key: Key, ticket: Ticket) -> tuple[Key, Any]:
    try:
        return key, pool.result(ticket)
    except VideoError as error:
        return key, error

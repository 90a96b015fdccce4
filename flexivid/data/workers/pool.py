"""A pool of decode processes, each of which may crash, hang or be killed without harming anything but its file.

A file that crashes its process twice, takes too long or takes too much memory is reported as a ``VideoError``. If a
process is killed from outside, another one repeats its work. Processes are replaced after a number of requests, or when
their memory has grown, so that leaks in libraries do no harm. It is no sandbox: see ``message``.

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
from flexivid.data.workers.supervisor import DecoderDiedError as DecoderDiedError
from flexivid.data.workers.supervisor import Keeper
from flexivid.data.workers.worker import Hello, name_of

Ticket = Future
Key = TypeVar("Key")

LOOK_AHEAD = 64  # pending probe requests for each process
FRAMES_AHEAD = 4  # pending requests of frames, which take memory, for each process


class DecodePool:
    """A pool of decode processes; started by the first request, and ended by ``close`` or with the interpreter.

    There are ``num_workers``; 0 means one as well, so that no file can crash the run. ``work``, at the top level of a
    module, answers requests; by default ``reader.read_clip``. A request may take ``max_seconds`` and ``max_bytes``, and
    a process is replaced after ``max_requests``.

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
        """Send a request, to be answered by another function if ``work`` names one; returns a future at once.

        A request is a ``ClipRequest``, whose frames come back through shared memory; a ``Look``, for ``Facts``; or
        plain data, for plain data.
        """
        message = pack_request(self._work if work is None else name_of(work), request)
        shape = (len(request.indices), *request.size, 3) if isinstance(request, ClipRequest) else None
        path = str(getattr(request, "path", request))
        job = Job(message, path, shape=shape, result=RESULTS.get(request_kind(request), "value"))
        self._keeper.add(job)
        return job.ticket

    def result(self, ticket: Ticket) -> Any:
        """Wait for a result. Frames, (t, h, w, 3) uint8, are shared memory, reused once the array is deleted.

        ``VideoError`` if the file fails; ``DecoderDiedError`` if it takes too much time or memory, or crashes twice.
        """
        return ticket.result()

    def close(self) -> None:
        """End the processes; unfinished results raise a ``RuntimeError``."""
        self._stop()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def probe_many(
    paths: Iterable[str | os.PathLike[str]], pool: DecodePool, *, decoder: str = "auto"
) -> Iterator[Facts | VideoError]:
    """Probe files in the processes of a pool, some ahead of the consumer, and yield their facts or errors in order.

    >>> with DecodePool(1) as pool:
    ...     [found.reason for found in probe_many(["nowhere.mp4"], pool)]
    ['cannot be opened: No such file or directory']
    """
    looks = ((None, Look(os.fspath(path), decoder)) for path in paths)
    return (outcome for _, outcome in outcomes(looks, pool, work=look_at, ahead=LOOK_AHEAD))


def outcomes(
    requests: Iterable[tuple[Key, Any]],
    pool: DecodePool,
    *,
    work: Callable[[Any], Any] | None = None,
    ahead: int = FRAMES_AHEAD,
) -> Iterator[tuple[Key, Any]]:
    """Answer requests in the processes of a pool, by default by the pool's own work.

    Yields the key of each request, and the result or the ``VideoError``, in order. Requests are consumed lazily:
    ``ahead`` of them are pending for each process.

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
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _outcome(pool: DecodePool, key: Key, ticket: Ticket) -> tuple[Key, Any]:
    try:
        return key, pool.result(ticket)
    except VideoError as error:
        return key, error

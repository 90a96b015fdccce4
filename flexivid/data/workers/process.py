"""Handle of one decode process: start it, send requests, read replies, measure its memory, kill it.

Never blocks: requests that cannot be sent yet wait in an outbox. Decisions are up to ``supervisor``. The process is a
fresh Python that runs ``worker``: a fork would break with threads and CUDA, and ``multiprocessing`` would run the
user's script again.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from flexivid.data.workers.message import REQUEST, MessageError, Reply, pack, take_replies
from flexivid.data.workers.shared_memory import Block
from flexivid.data.workers.worker import Hello, resident_bytes

START = "import sys; sys.path = sys.argv[1:]; from flexivid.data.workers.worker import main; main()"
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # decoders thread themselves
CHUNK = 1 << 20
MAX_CHUNKS = 4  # read at once, so that a process that floods its socket cannot block the others


@dataclass(eq=False)
class Job:
    """A request that is not finished.

    >>> Job(b"", "a.mp4", shape=(8, 4, 4, 3)).num_bytes
    384
    """

    message: bytes  # from ``pack_request``
    path: str  # the file it is about
    shape: tuple[int, ...] | None = None  # (t, h, w, 3) of frames, which come through shared memory
    result: str = "value"  # which kind of ``Reply`` brings the result
    ticket: Future = field(default_factory=Future)  # where the result goes
    block: Block | None = None  # its room in shared memory while it is with a process
    num_crashes: int = 0  # processes that ended over it

    @property
    def num_bytes(self) -> int:
        """Room that its result needs in shared memory."""
        return 0 if self.shape is None else math.prod(self.shape)


class Process:
    """A running decode process and its jobs, in the order in which it does them; ``hello`` is the first message to it.

    >>> process = Process(Hello("genericpath:exists", os.getpid(), os.open(os.devnull, os.O_RDWR), 60.0, 1 << 30))
    >>> process.is_ready, process.resident_bytes() >= 0
    (False, True)
    >>> process.kill()
    'the decoder crashed (signal 9)'
    """

    def __init__(self, hello: Hello) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, *sys.path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                pass_fds=(hello.file,),
                env={**os.environ, **QUIET},
                start_new_session=True,  # Ctrl-C is for the parent
            )
        ours.setblocking(False)
        self.socket, self.jobs = ours, deque[Job]()
        self.is_ready, self.is_retiring, self.num_done = False, False, 0
        self.since = time.monotonic()  # when it began with what it is doing
        self._outbox, self._inbox = bytearray(), bytearray()
        self.fault = ""  # malformed reply, if it sent one
        self._put(pack(hello), Block(0, 0))

    def send(self, job: Job) -> None:
        if not self.jobs:
            self.since = time.monotonic()
        self.jobs.append(job)
        self._put(job.message, job.block or Block(0, 0))

    @property
    def has_unsent(self) -> bool:
        """Whether ``flush`` has something to do once the socket takes more."""
        return bool(self._outbox)

    def flush(self) -> None:
        """Send what the socket takes."""
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):  # its end shows in ``receive``
            while self._outbox:
                del self._outbox[: self.socket.send(self._outbox)]

    def receive(self) -> tuple[list[Reply], bool]:
        """Return the new replies, and whether the process has ended or must be killed because of its ``fault``."""
        replies: list[Reply] = []
        try:
            for _ in range(MAX_CHUNKS):
                chunk = self.socket.recv(CHUNK)
                if not chunk:
                    return replies, True
                self._inbox += chunk
                replies += take_replies(self._inbox)
        except BlockingIOError:
            pass
        except ConnectionResetError:
            return replies, True
        except MessageError as error:
            self.fault = str(error)
        return replies, bool(self.fault)

    def resident_bytes(self) -> int:
        """Return the private memory of the process in bytes; 0 where the system does not report it."""
        return resident_bytes(self.process.pid)

    def kill(self) -> str:
        """Kill it and return how it ended; replies that it had sent can still be received."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with what a file may have made it start
        self.process.kill()
        status = self.process.wait()
        if self.fault:
            return f"the decoder answers nonsense ({self.fault})"
        return f"the decoder crashed (signal {-status})" if status < 0 else f"the decoder exited (status {status})"

    def _put(self, message: bytes, block: Block) -> None:
        self._outbox += REQUEST.pack(len(message), *block) + message
        self.flush()

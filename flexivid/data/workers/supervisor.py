"""Supervise decode processes: start them, distribute requests, limit time and memory, replace those that have ended.

One thread does all of it, and no other thread touches a process. It always waits for all processes at once, so that
none can block it.
"""

import os
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress

import numpy as np

from flexivid.data.decoding.probe import VideoError
from flexivid.data.workers.message import Reply
from flexivid.data.workers.process import Job, Process
from flexivid.data.workers.shared_memory import SharedMemory
from flexivid.data.workers.worker import Hello

DEPTH = 2  # requests that a process has at a time, so that it never waits for the next
WATCH_SECONDS = 0.2
START_SECONDS = 120.0
MAX_FAILED_STARTS = 3


class DecoderDiedError(VideoError):
    """A file that hangs a decoder, exhausts its memory, or ends its process."""


class Keeper:
    """Runs jobs in a fixed number of processes, from a thread of its own.

    ``limits`` is the first message to each, but for the shared memory. One is replaced after ``max_requests``.
    """

    def __init__(self, num_processes: int, limits: Hello, *, max_requests: int) -> None:
        self._num_processes, self._limits, self._max_requests = num_processes, limits, max_requests
        self._waiting: deque[Job] = deque()
        self._processes: list[Process] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._end: Exception | None = None  # why no more jobs are accepted
        self._num_failed_starts, self._next_watch = 0, 0.0

    def add(self, job: Job) -> None:
        """Take a job, from any thread; returns at once."""
        if os.getpid() != self._limits.parent:
            raise RuntimeError("got a decode pool of another process; expected one of this; make it after the fork")
        with self._lock:
            if self._end is not None:
                raise self._end
            self._waiting.append(job)
            if self._thread is None:
                self._wake, self._woken = socket.socketpair()
                self._wake.setblocking(False)
                self._thread = threading.Thread(target=self._run, name="flexivid-decode-pool", daemon=True)
                self._thread.start()
        self._call()

    def stop(self) -> None:
        """End the processes and the thread; a copy of the keeper in a forked process leaves them alone."""
        if os.getpid() != self._limits.parent:
            return
        with self._lock:
            self._end = self._end or RuntimeError("got a closed decode pool; expected an open one; make a new one")
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._call()
            thread.join()

    def _call(self) -> None:
        with suppress(OSError):  # full: it wakes anyway; closed: it has ended
            self._wake.send(b"!")

    def _run(self) -> None:
        self._memory, self._selector = SharedMemory(), selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        try:
            while self._end is None:
                self._feed()
                self._wait()
                self._watch()
        except Exception as error:
            self._end = error
        finally:
            with self._lock:
                unfinished = [*self._waiting, *(job for process in self._processes for job in process.jobs)]
                self._end = self._end or RuntimeError("the decode pool was interrupted")
            for process in self._processes:
                process.kill()
                process.socket.close()
            for job in unfinished:
                if job.ticket.running() or job.ticket.set_running_or_notify_cancel():
                    job.ticket.set_exception(self._end)
            self._selector.close()
            self._wake.close()
            self._woken.close()
            self._memory.close()

    def _feed(self) -> None:
        """Replace retired and missing processes, and send them the waiting jobs."""
        for process in [p for p in self._processes if p.is_retiring and not p.jobs]:
            self._remove(process)
        while self._waiting and len(self._processes) < self._num_processes:
            process = Process(self._limits._replace(file=self._memory.file))
            self._processes.append(process)
            self._selector.register(process.socket, selectors.EVENT_READ, process)
        while self._waiting:
            able = [p for p in self._processes if p.is_ready and not p.is_retiring and len(p.jobs) < DEPTH]
            if not able:
                break
            job = self._waiting.popleft()
            if job.ticket.running() or job.ticket.set_running_or_notify_cancel():
                job.block = self._memory.take(job.num_bytes) if job.num_bytes else None
                process = min(able, key=lambda process: len(process.jobs))
                process.send(job)
                self._listen(process)

    def _listen(self, process: Process) -> None:
        writes = selectors.EVENT_WRITE if process.has_unsent else 0
        self._selector.modify(process.socket, selectors.EVENT_READ | writes, process)

    def _wait(self) -> None:
        """Handle messages until it is time to check the limits."""
        is_busy = any(process.jobs or not process.is_ready for process in self._processes)
        for key, events in self._selector.select(WATCH_SECONDS if is_busy else None):
            process: Process | None = key.data
            if process is None:
                self._woken.recv(1 << 16)
                continue
            if events & selectors.EVENT_WRITE:
                process.flush()
                self._listen(process)
            if events & selectors.EVENT_READ and self._take_replies(process):
                self._remove(process, retry=True)

    def _take_replies(self, process: Process) -> bool:
        """Finish the jobs that have replies; return whether the process has ended or must be killed."""
        if process.fault:
            return True
        replies, has_ended = process.receive()
        for reply in replies:
            if reply.kind == "ready" and not process.is_ready:
                process.is_ready, self._num_failed_starts, process.since = True, 0, time.monotonic()
                continue
            if not process.jobs or reply.kind not in (process.jobs[0].result, "failed", "memory"):
                process.fault = f"got {reply.kind}, which was not asked for"
                return True
            process.since = time.monotonic()
            self._settle(process.jobs.popleft(), reply)
            process.num_done += 1
            has_grown = reply.kind == "memory" or reply.resident_bytes > self._limits.max_bytes // 2
            process.is_retiring |= has_grown or process.num_done >= self._max_requests
        return has_ended

    def _settle(self, job: Job, reply: Reply) -> None:
        if reply.kind == "frames":
            assert job.shape is not None
            frames = self._memory.view(job.block, job.shape) if job.block else np.empty(job.shape, np.uint8)
            job.ticket.set_result(frames)  # and the block comes back with the array
            return
        self._free(job)
        if reply.kind in ("facts", "value"):
            job.ticket.set_result(reply.value)
        elif reply.kind == "failed":
            job.ticket.set_exception(VideoError(job.path, reply.value))
        else:
            job.ticket.set_exception(DecoderDiedError(job.path, self._too_much))

    def _watch(self) -> None:
        """Kill processes that take too much time or memory."""
        now = time.monotonic()
        if now < self._next_watch:
            return
        self._next_watch = now + WATCH_SECONDS
        for process in list(self._processes):
            seconds = now - process.since
            if not process.is_ready:
                if seconds > START_SECONDS:
                    self._remove(process)
            elif process.jobs and seconds > self._limits.max_seconds:
                self._remove(process, f"takes longer than {self._limits.max_seconds:g} seconds")
            elif process.jobs and process.resident_bytes() > self._limits.max_bytes:
                # leaks of earlier files may be the cause: try once more in a new process
                self._remove(process, self._too_much, retry=process.num_done > 0)

    @property
    def _too_much(self) -> str:
        return f"takes more than {self._limits.max_bytes / 2**30:g} GiB of memory"

    def _remove(self, process: Process, reason: str | None = None, *, retry: bool = False) -> None:
        """Kill a process. Its job fails unless ``retry`` allows another try, and always after a second crash.

        The ``reason`` why the file fails is by default how the process ended.
        """
        culprit = process.jobs[0] if process.jobs else None
        ending = process.kill()
        self._take_replies(process)  # sent before it ended
        self._processes.remove(process)
        self._selector.unregister(process.socket)
        process.socket.close()
        if not process.is_ready:
            self._num_failed_starts += 1
            if self._num_failed_starts >= MAX_FAILED_STARTS:
                raise RuntimeError(
                    f"got decode processes that end as they start ({ending}); expected them to import "
                    f"{self._limits.work}; see what they print, and correct that"
                )
        lost = list(process.jobs)
        for job in lost:
            self._free(job)
        if lost and lost[0] is culprit:
            culprit.num_crashes += 1
            if not retry or culprit.num_crashes > 1:
                culprit.ticket.set_exception(DecoderDiedError(culprit.path, reason or ending))
                del lost[0]
        self._waiting.extendleft(reversed(lost))

    def _free(self, job: Job) -> None:
        if job.block is not None:
            self._memory.give_back(job.block)
            job.block = None

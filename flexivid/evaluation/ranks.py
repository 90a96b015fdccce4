"""Shares of an evaluation on several devices: processes started here, or by torchrun, here and elsewhere.

Ranks hand their work over in files and never wait for one another's numbers, so none can time out; only at the very end
the first one waits for the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from itertools import count
from typing import NamedTuple

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from flexivid.evaluation.run import Request, prepare, work
from flexivid.runtime.device import pick_device

PATIENCE = timedelta(days=7)  # of torchrun's ranks: shares may differ by hours
POLL_SECONDS = 0.5
_MEETINGS = count()


class Ranks(NamedTuple):
    """Who this process is among those that share the work.

    Example:
        >>> Ranks(0, 1).first
        True
    """

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this one prints and writes the results."""
        return self.rank == 0


def from_environment() -> Ranks:
    """What torchrun says; one of one without it."""
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def own_device(name: str | None) -> torch.device:
    """The named device, or the accelerator that belongs to this rank of torchrun, or the CPU."""
    device = pick_device(name)
    if name is None and device.type == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def meet(ranks: Ranks) -> None:
    """Wait for all ranks of torchrun; returns at once when there is only this one."""
    if ranks.size == 1:
        return
    store, name = _store(), f"flexivid meeting {next(_MEETINGS)}"
    store.add(name, 1)
    while store.add(name, 0) < ranks.size:
        time.sleep(POLL_SECONDS)


@cache
def _store() -> distributed.Store:
    """Torchrun's table of words that all ranks see."""
    return next(distributed.rendezvous("env://", timeout=PATIENCE))[0]


def devices_of(number: int, name: str | None = None) -> list[torch.device]:
    """So many devices to start processes for: accelerators of one kind, or that many times the CPU.

    Raises:
        ValueError: If there are not so many.

    Example:
        >>> devices_of(2, "cpu")
        [device(type='cpu'), device(type='cpu')]
    """
    device = pick_device(name)
    if number < 1 or (number > 1 and ":" in (name or "")):
        raise ValueError(f"got {number} devices and device {name}; expected 1 or more of a kind; change --devices")
    if device.type == "cpu":
        return [device] * number
    there = torch.accelerator.device_count()
    if number > there:
        raise ValueError(f"got {number} devices; expected at most {there}, which this machine has; lower --devices")
    return [torch.device(device.type, index) for index in range(number)]


def work_in_processes(request: Request, devices: list[torch.device], *, on_poll: Callable[[], None]) -> None:
    """Share the work among new processes, one a device.

    Args:
        request: What to do.
        devices: From :func:`devices_of`.
        on_poll: Called now and then while they work.

    Raises:
        ValueError: If one of them fails; what is finished stays.
    """
    names = [str(device) for device in devices]
    context = start_processes(_share, (request, names), nprocs=len(devices), join=False, start_method="spawn")
    try:
        while not context.join(timeout=POLL_SECONDS):
            on_poll()
    except (ProcessRaisedException, ProcessExitedException) as error:
        raise ValueError(_cause(str(error))) from error
    finally:
        for process in context.processes:
            process.terminate()


def _share(rank: int, request: Request, devices: list[str]) -> None:
    device = torch.device(devices[rank])
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
    try:
        work(prepare(request, device), rank, len(devices))
    except KeyboardInterrupt:  # the first process speaks for all
        raise SystemExit(130) from None


def _cause(trace: str) -> str:
    """The last line of what went wrong in another process.

    Example:
        >>> _cause("ValueError: got NaN; expected numbers; ...")
        'got NaN; expected numbers; ...'
    """
    return trace.strip().splitlines()[-1].removeprefix("ValueError: ")

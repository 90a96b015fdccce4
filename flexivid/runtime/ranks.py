"""Who shares a piece of work: processes started here, one a device, or the ranks that torchrun started.

They share results through files and make no collective calls, so none of them can time out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from flexivid.runtime.device import pick_device

POLL_SECONDS = 0.5


class Ranks(NamedTuple):
    """Number of this process and of all that share the work."""

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this process prints and writes the results."""
        return self.rank == 0


def from_environment() -> Ranks:
    """This process's rank and their number, as torchrun sets them; (0, 1) without it."""
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def own_device(name: str | None) -> torch.device:
    """The named device, or the accelerator that belongs to this rank of torchrun, or the CPU."""
    device = pick_device(name)
    if name is None and device.type == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def devices_of(number: int, name: str | None = None) -> list[torch.device]:
    """Devices to start processes for: accelerators of one kind (``ValueError`` if there are fewer), or so many CPUs."""
    device = pick_device(name)
    if number > 1 and from_environment().size > 1:
        raise ValueError(f"got --devices {number} under torchrun; expected one a rank; leave --devices out")
    if number < 1 or (number > 1 and ":" in (name or "")):
        raise ValueError(f"got {number} devices and device {name}; expected 1 or more of a kind; change --devices")
    if device.type == "cpu":
        return [device] * number
    count = torch.accelerator.device_count()
    if number > count:
        raise ValueError(f"got {number} devices; expected at most {count}, which this machine has; lower --devices")
    return [torch.device(device.type, index) for index in range(number)]


def run_on(
    devices: list[torch.device],
    work: Callable[[Any, torch.device, Ranks], None],
    request: Any,
    *,
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Share work among new processes, one a device; ``ValueError`` if one of them fails.

    ``work``, a function at the top level of a module, does the share of one process, given ``request``, which can be
    pickled, its device and which of the processes it is. ``on_poll`` is called now and then while they work.
    """
    names = [str(device) for device in devices]
    context = start_processes(_share, (work, request, names), nprocs=len(devices), join=False, start_method="spawn")
    try:
        while not context.join(timeout=POLL_SECONDS):
            on_poll()
    except (ProcessRaisedException, ProcessExitedException) as error:
        cause = str(error).strip().splitlines()[-1]  # of the process's traceback
        raise ValueError(cause.removeprefix("ValueError: ")) from error
    finally:
        for process in context.processes:
            process.terminate()


def _share(rank: int, work: Callable[[Any, torch.device, Ranks], None], request: Any, devices: list[str]) -> None:
    device = torch.device(devices[rank])
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
    try:
        work(request, device, Ranks(rank, len(devices)))
    except KeyboardInterrupt:  # the parent process reports it
        raise SystemExit(130) from None

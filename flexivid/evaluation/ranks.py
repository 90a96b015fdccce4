"""One evaluation on several devices: by processes started here or by torchrun, or by the ranks of a training.

The former exchange finished blocks through files and never wait for each other's numbers, so none can time out; only
at the very end the first one waits for the others. The latter keep blocks in memory and gather them.
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
from torch import Tensor, distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from flexivid.evaluation.result import Evaluation
from flexivid.evaluation.run import Job, Request, finish, make_samples, prepare, real_features, warm_up_for, work
from flexivid.evaluation.samples import SampleBlock
from flexivid.runtime.device import pick_device
from flexivid.runtime.distributed import FailedRankError, from_first, on_all_ranks

PATIENCE = timedelta(days=7)  # of torchrun's ranks: shares may differ by hours
POLL_SECONDS = 0.5
_MEETINGS = count()


class Ranks(NamedTuple):
    """Number of this process and of all that share the work.

    Example:
        >>> Ranks(0, 1).first
        True
    """

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this process prints and writes the results."""
        return self.rank == 0


def from_environment() -> Ranks:
    """Ranks as torchrun states them; (0, 1) without it."""
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
    """Torchrun's key-value store, which all ranks see."""
    return next(distributed.rendezvous("env://", timeout=PATIENCE))[0]


def devices_of(number: int, name: str | None = None) -> list[torch.device]:
    """Devices to start processes for: accelerators of one kind, or the CPU ``number`` times.

    Raises:
        ValueError: If this machine has fewer.

    Example:
        >>> devices_of(2, "cpu")
        [device(type='cpu'), device(type='cpu')]
    """
    device = pick_device(name)
    if number < 1 or (number > 1 and ":" in (name or "")):
        raise ValueError(f"got {number} devices and device {name}; expected 1 or more of a kind; change --devices")
    if device.type == "cpu":
        return [device] * number
    count = torch.accelerator.device_count()
    if number > count:
        raise ValueError(f"got {number} devices; expected at most {count}, which this machine has; lower --devices")
    return [torch.device(device.type, index) for index in range(number)]


def work_in_processes(request: Request, devices: list[torch.device], *, on_poll: Callable[[], None]) -> None:
    """Share the work among new processes, one a device.

    Args:
        request: What to evaluate.
        devices: From :func:`devices_of`.
        on_poll: Called now and then while they work.

    Raises:
        ValueError: If one of them fails; finished blocks stay in their files.
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
    """The last line of another process's traceback.

    Example:
        >>> _cause("ValueError: got NaN; expected numbers; ...")
        'got NaN; expected numbers; ...'
    """
    return trace.strip().splitlines()[-1].removeprefix("ValueError: ")


def read_together(job: Job, ranks: Ranks) -> Tensor:
    """Features of the real clips, (m, d), each rank of a process group making its share.

    Raises:
        FailedRankError: On every rank, if anything fails on one.
    """

    def make() -> None:
        on_all_ranks(lambda: list(job.real.each(job.real.blocks(*ranks))))
        job.real.store.share()

    try:
        return real_features(job, make)
    except ValueError as error:  # of the features, which are the same on every rank
        raise FailedRankError(str(error)) from error


def evaluate_together(
    job: Job, ranks: Ranks, *, afford: Callable[[float], int] | None = None
) -> tuple[Evaluation, list[SampleBlock]]:
    """Evaluate with all ranks of a process group, whose blocks are in memory.

    Every part that can fail runs inside ``on_all_ranks``, and ranks exchange data only between the parts: none waits
    for one that has failed.

    Args:
        job: The evaluation; the same on every rank.
        ranks: Who this process is.
        afford: Called on every rank when it has made one block, with the seconds that this took without warming up;
            gives the number of videos to make, the same on every rank. ``None`` = all.

    Returns:
        Scores, the same on every rank; and the samples they are of, on the first rank.

    Raises:
        FailedRankError: On every rank, if anything fails on one.
    """
    real = read_together(job, ranks)
    blocks = job.blocks(*ranks)
    on_all_ranks(lambda: warm_up_for(job, blocks))
    started = time.perf_counter()
    on_all_ranks(lambda: make_samples(job, blocks[:1]))
    if afford is not None:
        job = job.first(afford(time.perf_counter() - started))
    on_all_ranks(lambda: make_samples(job, job.blocks(*ranks)))
    job.samples.share()
    samples: list[SampleBlock] = []

    def score() -> Evaluation:
        evaluation, blocks = finish(job, real)
        samples.extend(blocks)
        return evaluation

    return from_first(score), samples

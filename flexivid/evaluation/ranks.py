"""One evaluation on several devices: by processes started here or by torchrun, or by the ranks of a training.

The former exchange finished blocks through files and never wait for each other's numbers, so none can time out; only
at the very end the first one waits for the others. The latter keep blocks in memory and gather them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from itertools import count

import torch
from torch import Tensor, distributed

from flexivid.evaluation.result import Evaluation
from flexivid.evaluation.run import Job, Request, finish, make_samples, prepare, real_features, warm_up_for, work
from flexivid.evaluation.samples import SampleBlock
from flexivid.runtime.distributed import FailedRankError, from_first, on_all_ranks
from flexivid.runtime.ranks import Ranks

PATIENCE = timedelta(days=7)  # of torchrun's ranks: shares may differ by hours
POLL_SECONDS = 0.5
_MEETINGS = count()


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


def share(request: Request, device: torch.device, ranks: Ranks) -> None:
    """Do the share of one of several processes; if one fails, finished blocks stay in their files."""
    work(prepare(request, device), *ranks)


def read_together(job: Job, ranks: Ranks) -> Tensor:
    """Features of the real clips, (m, d), a share by each rank; ``FailedRankError`` on all if anything fails on one."""

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
    for one that has failed, and ``FailedRankError`` is raised on all.

    ``afford`` is called on every rank when it has made one block, with the seconds that this took without warming up;
    it gives the number of videos to make, the same on every rank. Returns scores, the same on every rank, and on the
    first rank the samples they are of.
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

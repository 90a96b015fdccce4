"""Work that all ranks share. If it fails on one rank it fails on all with the same error, so that none waits forever.

Uses torch.distributed, no training code. Without a process group there is one rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

from flexivid.runtime.finite import NotFiniteError

T = TypeVar("T")


class FailedRankError(Exception):
    """Work failed on some rank; raised on every rank with the same message."""


def gathered(value: T) -> list[T]:
    """Return the values of all ranks in the order of the ranks; any object that can be pickled."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[T] = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def on_all_ranks(work: Callable[[], T]) -> T:
    """Do this rank's share of the work, which must not wait for other ranks, and return its result.

    If it fails on any rank, every rank raises: ``NotFiniteError`` if that is the reason on any, else
    ``FailedRankError``.

    Example:
        >>> on_all_ranks(lambda: int("two"))
        Traceback (most recent call last):
        ...
        flexivid.runtime.distributed.FailedRankError: invalid literal for int() with base 10: 'two'
    """
    result, cause, failure = None, None, None
    try:
        result = work()
    except Exception as error:  # the other ranks must be told of any error
        cause, failure = error, (str(error) or repr(error), isinstance(error, NotFiniteError))
    failures = list(dict.fromkeys(filter(None, gathered(failure))))
    if failures:
        kind = NotFiniteError if any(not_finite for _, not_finite in failures) else FailedRankError
        raise kind("; ".join(reason for reason, _ in failures)) from cause
    return result  # type: ignore[return-value]


def from_first(work: Callable[[], T]) -> T:
    """Do some work on the first rank alone and give all ranks its result; failures are those of ``on_all_ranks``."""
    is_first = not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
    return gathered(on_all_ranks(lambda: work() if is_first else None))[0]  # type: ignore[return-value]


def leave_group() -> None:
    """Leave the process group, if there is one. Programs that run on several ranks call it last.

    Lightning does so for NCCL only; threads that gloo leaves running can abort the process while Python exits.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()

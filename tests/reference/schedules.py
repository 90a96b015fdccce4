"""Every weak-first schedule, listed; the best one by its definition. Slow and obvious."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def all_counts(num_modes: int, num_steps: int) -> Iterator[tuple[int, ...]]:
    """Every way to share the steps among the modes."""
    if num_modes == 1:
        yield (num_steps,)
        return
    for first in range(num_steps + 1):
        for rest in all_counts(num_modes - 1, num_steps - first):
            yield (first, *rest)


def best_counts(costs: Sequence[int], num_steps: int, budget: float) -> tuple[int, ...] | None:
    """Most native steps, then most of the next finer mode, and so on, within the budget.

    Args:
        costs: Of each mode, native first, falling.
        num_steps: Steps.
        budget: Fraction of the all-native cost.
    """
    full = num_steps * costs[0]
    fitting = [
        counts
        for counts in all_counts(len(costs), num_steps)
        if sum(n * cost for n, cost in zip(counts, costs, strict=True)) / full <= budget
    ]
    return max(fitting, default=None)

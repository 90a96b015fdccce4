"""Every choice of one option a step, listed; the Pareto-optimal ones by their definition. Slow and obvious."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product


def all_choices(
    errors: Sequence[Sequence[float]], costs: Sequence[int], max_switches: int | None
) -> list[tuple[int, float, tuple[int, ...]]]:
    """Cost, error and options of every choice with at most so many switches."""
    found = []
    for choice in product(range(len(costs)), repeat=len(errors)):
        switches = sum(a != b for a, b in pairwise(choice))
        if max_switches is None or switches <= max_switches:
            error = sum(row[option] for row, option in zip(errors, choice, strict=True))
            found.append((sum(costs[option] for option in choice), error, choice))
    return found


def pareto(points: Sequence[tuple[int, float, tuple[int, ...]]]) -> set[tuple[int, float]]:
    """Costs and errors that no other point beats."""
    pairs = {(cost, error) for cost, error, _ in points}
    return {(c, e) for c, e in pairs if not any((c2 <= c and e2 <= e) and (c2, e2) != (c, e) for c2, e2 in pairs)}

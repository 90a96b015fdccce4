"""Tables of measured errors that nobody measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from flexivid.budget.schedule import Schedule, Step
from flexivid.budget.table import ErrorTable, Scored

Build = Callable[..., ErrorTable]


def build(options: Sequence[Step], num_steps: int, *, seed: int = 0, **fields) -> ErrorTable:
    source = random.Random(seed)
    errors = [[0.0, *sorted(source.random() for _ in options[1:])] for _ in range(num_steps)]
    changes = [[source.random() for _ in options] if call >= 3 else [] for call in range(num_steps)]
    plans = [[option] * num_steps for option in options] + [source.choices(options, k=num_steps) for _ in range(20)]
    scored = tuple(Scored(str(Schedule(plan)), source.random(), 0.0, 1.0) for plan in plans)
    known = {
        "scored": scored,
        "model": "abc",
        "settings": {"num_inference_steps": num_steps},
        "protocol": {"num_videos": 5},
    }
    return ErrorTable(options=tuple(options), errors=errors, changes=changes, **{**known, **fields})


@pytest.fixture
def build_table() -> Build:
    """A function that makes a table: options, number of steps, seed."""
    return build

"""Tables of measured errors that nobody measured."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from flexivid.budget.schedule import REUSE, Schedule, Step
from flexivid.budget.scores import ScoredPlan, ScoreTable
from flexivid.budget.table import ErrorTable

Build = Callable[..., ErrorTable]
BuildScores = Callable[..., ScoreTable]


def build(options: Sequence[Step], num_steps: int, *, seed: int = 0, **fields) -> ErrorTable:
    source = random.Random(seed)
    errors = [[0.0, *sorted(source.random() for _ in options[1:])] for _ in range(num_steps)]
    for call, row in enumerate(errors):
        row[:] = [math.inf if option == REUSE and not call else e for e, option in zip(row, options, strict=True)]
    changes = [[source.random() for _ in options] if call >= 3 else [] for call in range(num_steps)]
    known = {"model": "abc", "settings": {"num_inference_steps": num_steps}, "protocol": {"num_videos": 5}}
    return ErrorTable(options=tuple(options), errors=errors, changes=changes, **{**known, **fields})


def build_scored(options: Sequence[Step], num_steps: int, *, seed: int = 0) -> ScoreTable:
    """Plans of one to ``num_steps`` calls, each option alone and mixed."""
    source = random.Random(seed)
    plans = [[option] * calls for option in options if option != REUSE for calls in range(1, num_steps + 1)]
    plans += [source.choices(options, k=source.randint(1, num_steps)) for _ in range(40)]
    texts = dict.fromkeys(str(Schedule(plan)) for plan in plans if plan[0] != REUSE)
    rows = tuple(ScoredPlan(text, {}, source.random(), 0.0, 1.0, 64) for text in texts)
    return ScoreTable("abc", {"num_inference_steps": num_steps}, rows, {"metric": "fvd"})


@pytest.fixture
def build_table() -> Build:
    """A function that makes a table: options, number of steps, seed."""
    return build


@pytest.fixture
def build_scores() -> BuildScores:
    """A function that makes scored plans: options, most steps, seed."""
    return build_scored

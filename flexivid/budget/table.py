"""What was measured of a model, as plain data beside its checkpoint: ``schedules.json``. No torch.

There is an error table for each setting of the sampler: how much error each option brings at each step, how strongly
samples changed there, and the protocol that says whether a table may be used. ``flexivid.calibration`` measures them.
The file holds score tables too (``budget.scores``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flexivid.budget.schedule import REUSE, Schedule, Step
from flexivid.budget.scores import ScoredPlan, ScoreTable
from flexivid.runtime.files import locked, save_json

FILE = "schedules.json"
FORMAT = 1


class ErrorTable(NamedTuple):
    """Measured errors of one model under one setting of its sampler."""

    model: str  # fingerprint of the weights
    settings: Mapping[str, Any]  # which a sampler must share: steps, solver, shift, guidance, size
    options: tuple[Step, ...]  # what a step may be; the native one first
    # errors[call][option]: root mean square distance of the final latent from the all-native one if this call alone has
    # the option; infinite where a call cannot: the first has no output before it to reuse
    errors: Sequence[Sequence[float]]
    changes: Sequence[Sequence[float]]  # changes[call][option]: mean third-order change; nothing in the first calls
    protocol: Mapping[str, Any]  # how it was measured: videos, seed, precision, version
    max_switches: int | None = None  # how often neighbouring steps of a searched schedule may differ; ``None`` = any
    distance: float = 0.0  # of the all-native samples from those of the table with the most steps; 0 for that one
    finest: int | None = None  # solver steps of that table; tables alike in it can be compared; ``None`` = never were
    # searched schedules that were really sampled: sum of the calls' errors, rising, and distance of the samples from
    # those with the most steps
    trials: Sequence[tuple[float, float]] = ()

    def expected(self, error: float) -> float:
        """Distance from the samples with the most steps to be expected of a schedule, by the sum of its calls' errors.

        Errors of single calls add up to more, or less, than what all together do: trials say how much. Between trials
        it is interpolated, beyond the last in proportion; without any, errors and the distance are added.

        Example:
            >>> table = ErrorTable("m", {}, (), [], [], {}, distance=1.0, trials=[(0, 1.0), (4, 3.0)])
            >>> table.expected(0), table.expected(2), table.expected(8), table._replace(trials=()).expected(2)
            (1.0, 2.0, 6.0, 3.0)
        """
        if not self.trials:
            return error + self.distance
        sums, distances = zip(*self.trials, strict=True)
        if error > sums[-1] > 0:
            return distances[-1] * error / sums[-1]
        return float(np.interp(error, sums, distances))

    def rows(self, options: Sequence[Step]) -> list[list[float]]:
        """Errors of some of the options, errors[call][option]; ``ValueError`` if one was not measured."""
        columns = self.columns(options)
        return [[row[column] for column in columns] for row in self.errors]

    def columns(self, options: Sequence[Step]) -> list[int]:
        """Columns of the table that belong to some options; ``ValueError`` if one was not measured."""
        missing = [str(step) for step in options if step not in self.options]
        if missing:
            raise ValueError(
                f"got a table of measured errors without {missing[0]}; expected all of"
                f" {', '.join(map(str, options))}; run python -m flexivid.search again"
            )
        return [self.options.index(step) for step in options]

    def check(self) -> ErrorTable:
        """Return itself; ``ValueError`` if a number is not finite or a row is not complete."""
        measured = [
            value
            for call, row in enumerate(self.errors)
            for value, option in zip(row, self.options, strict=False)
            if call or option != REUSE
        ]
        numbers = [*measured, *(value for row in (*self.changes, *self.trials) for value in row)]
        if not all(math.isfinite(value) for value in [*numbers, self.distance]):
            raise ValueError(
                f"got a measured error of model {self.model} that is not a finite number; expected samples without NaN;"
                " check the weights, or measure with --precision fp32"
            )
        if len(self.changes) != len(self.errors) or any(len(row) != len(self.options) for row in self.errors):
            raise ValueError(
                f"got a table with rows that do not fit its {len(self.options)} options; expected one error for each"
                " option at each call; run python -m flexivid.search again"
            )
        return self


Table = ErrorTable | ScoreTable


def find_table(tables: Sequence[Table], model: str, settings: Mapping[str, Any], kind: Any = ErrorTable) -> Any:
    """The first table of a kind of a model, by its fingerprint, under these settings of the sampler; else ``None``.

    ``ValueError`` if a table before it was measured with another model.
    """
    for table in tables:
        if table.model != model:
            raise ValueError(
                f"got {FILE} of model {table.model}; expected one of this model, {model}; run python -m flexivid.search"
                " again, or choose --planner staged"
            )
        if isinstance(table, kind) and dict(table.settings) == dict(settings):
            return table
    return None


def write_tables(path: str | Path, tables: Sequence[Table]) -> None:
    """Write tables beside those of other settings of the same model; each replaces one of its kind and settings.

    Those of other models go. Under a lock, so that no search loses another's tables.
    """
    path = _file(path)
    new = [_key(table) for table in tables]
    with locked(path):  # two searches may end at once
        old = [table for table in read_tables(path) if table.model in {table.model for table in tables}]
        rows = [table.check() for table in [*(table for table in old if _key(table) not in new), *tables]]
        content = {
            "format": FORMAT,
            "tables": [_to_plain(table) for table in rows if isinstance(table, ErrorTable)],
            "scores": [
                {**table._asdict(), "rows": [row._asdict() for row in table.rows]}
                for table in rows
                if isinstance(table, ScoreTable)
            ],
        }
        save_json(path, content, indent=None)


def _key(table: Table) -> tuple[str, str, dict[str, Any]]:
    return type(table).__name__, table.model, dict(table.settings)


def read_tables(path: str | Path) -> list[Table]:
    """Tables of a file or folder, none if there is no file; ``ValueError`` if the file is damaged."""
    path = _file(path)
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        tables = [_from_plain(row) for row in content["tables"]]
        scores = [
            ScoreTable(**{**row, "rows": tuple(ScoredPlan(**plan) for plan in row["rows"])})
            for row in content.get("scores", [])
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"got {path}, which cannot be read ({error!r}); expected what flexivid.search wrote; run it again"
        ) from error
    return [*(table.check() for table in tables), *(table.check() for table in scores)]


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path / FILE if path.is_dir() else path


def _to_plain(table: ErrorTable) -> dict[str, Any]:
    errors = [[None if math.isinf(value) else value for value in row] for row in table.errors]  # JSON has no infinity
    return {**table._asdict(), "options": [str(step) for step in table.options], "errors": errors}


def _from_plain(row: dict[str, Any]) -> ErrorTable:
    options = tuple(option_of(text) for text in row["options"])
    trials = tuple((error, distance) for error, distance in row.get("trials", ()))
    fields = {key: value for key, value in row.items() if key in ErrorTable._fields}  # old files have scores here
    errors = [[math.inf if value is None else value for value in errors] for errors in row["errors"]]
    return ErrorTable(**{**fields, "options": options, "errors": errors, "trials": trials})


def option_of(text: str) -> Step:
    """A step from its written form.

    Example:
        >>> str(option_of("1x2x2+2x4x4")), str(option_of("reuse"))
        ('1x2x2+2x4x4', 'reuse')
    """
    return REUSE if text == str(REUSE) else Schedule.parse(f"1x{text}")[0]

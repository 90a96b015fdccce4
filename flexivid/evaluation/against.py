"""Compare a result with an earlier ``evaluation.json``; refuse one of another protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flexivid.evaluation.result import Evaluation, plain, scores_of
from flexivid.metrics.bootstrap import Difference
from flexivid.metrics.protocol import Protocol, check_alike
from flexivid.metrics.scores import Scores, independent_difference

TWO_FOLDERS = "two folders"  # names the only scores of a comparison of two folders


class Earlier(NamedTuple):
    """An earlier result."""

    path: Path  # its file
    protocol: Protocol  # how it was measured
    scores: Mapping[str, Scores]  # by budget as it is written, or ``TWO_FOLDERS``

    def check(self, protocol: Protocol, names: Sequence[str]) -> None:
        """Refuse, before any work is done, an evaluation whose protocol or names of scores cannot be compared.

        ``ValueError`` if the protocols differ, or no scores have the same name.
        """
        count = min(protocol.num_reference, self.protocol.num_reference)  # clips that fail to decode lower it
        check_alike(self.protocol, protocol._replace(num_reference=count))
        if not set(names) & set(self.scores):
            raise ValueError(
                f"got results {', '.join(names)} and {self.path} with {', '.join(self.scores)}; expected a budget in"
                " common; evaluate one of them"
            )

    def differences(self, protocol: Protocol, scores: Mapping[str, Scores]) -> dict[str, Difference]:
        """By how much each new distance is above the earlier one of the same name, with its 95 % interval."""
        check_alike(self.protocol, protocol)
        names = [name for name in scores if name in self.scores]
        return {name: independent_difference(self.scores[name], scores[name]) for name in names}

    def table(self, differences: Mapping[str, Difference], metric: str) -> list[list[str]]:
        """Cells of a table, the head first."""
        rows = [["budget", f"{metric} earlier", "now", "difference", "now is"]]
        for name, difference in differences.items():
            value, (change, low, high) = self.scores[name].fvd, difference
            interval = f"{change:.3g} ({low:.3g} to {high:.3g})"
            rows.append([name, f"{value:.4g}", f"{value + change:.4g}", interval, difference.verdict])
        return rows

    def plain(self, differences: Mapping[str, Difference]) -> dict[str, Any]:
        """The differences for ``json.dumps``."""
        rows = {name: {**plain(each), "verdict": each.verdict} for name, each in differences.items()}
        return {"file": str(self.path), "differences": rows}


def by_budget(evaluation: Evaluation) -> dict[str, Scores]:
    """Scores of each budget."""
    return {f"{row.budget:g}": row.scores for row in evaluation.rows}


def read_earlier(path: str | Path) -> Earlier:
    """Read an ``evaluation.json``, or a ``step_000500.json`` of a training.

    ``FileNotFoundError`` if there is no such file; ``ValueError`` if it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"got --against {path}, which is no file; expected an evaluation.json; correct the path"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if "budgets" in values:
            evaluation = Evaluation.from_json(values)
            return Earlier(path, evaluation.protocol, by_budget(evaluation))
        return Earlier(path, Protocol(**values["protocol"]), {TWO_FOLDERS: scores_of(values["scores"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"got --against {path}, which holds no evaluation ({type(error).__name__}: {error}); expected an"
            " evaluation.json; name one that flexivid.evaluate wrote"
        ) from error

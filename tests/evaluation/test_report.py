"""The table at the end of a training fits a terminal, and brackets in a metric's name are no markup."""

from __future__ import annotations

import pytest

from flexivid.evaluation.report import narrow_table
from flexivid.evaluation.result import BudgetScores, Evaluation
from flexivid.metrics.bootstrap import Difference
from flexivid.metrics.fidelity import Fidelity
from flexivid.metrics.protocol import Protocol
from flexivid.metrics.scores import Scores
from flexivid.runtime.console import print_numbers

PROTOCOL = Protocol("fvd[motion]", "0f", "whole frame", 8, 32, 32, 1, 8.0, 128, 128, "9c")


def scored(fvd, low, high, floor):
    return Scores(fvd, low, high, 0.5, 0.51, 0.62, 1.0, 0.9, None, 128, 128, floor)


@pytest.fixture
def printed(capsys, monkeypatch):
    """A function that prints the narrow table of rows in a terminal of 80 columns, and gives its lines."""
    monkeypatch.setenv("COLUMNS", "80")

    def show(rows):
        title, caption, columns, cells = narrow_table(Evaluation(PROTOCOL.label, PROTOCOL, tuple(rows), 1500))
        print_numbers(columns, cells, title=title, caption=caption)
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 80
        assert "\N{HORIZONTAL ELLIPSIS}" not in text  # nothing is cut off
        return text.splitlines()

    return show


def test_everything_fits_into_eighty_columns(printed):
    scores = scored(0.00012346, 0.00011, 0.000139, 0.00003)
    lines = printed(
        BudgetScores(budget, "20x2x4x4", macs, 0.2531, scores, likeness)
        for budget, macs, likeness in ((1.0, 10**11, None), (0.25, 10**10, Fidelity(18.26, 0.9, 1.0)))
    )
    assert "fvd[motion]128_8f at step 1500, mean 0.0001235; real against real 3e-05" in lines[0]
    assert lines[-2].split() == ["0.25", "10", "0.253", "0.000123", "0.00011", "to", "0.000139", "0.90", "18.3", "dB"]


@pytest.mark.parametrize("unit", [1.0, 100.0])  # as fvd[motion] and as fvd are
def test_fewer_steps_stand_beside_each_budget(printed, unit):
    weak, fewer, full = (scored(*(unit * x for x in one)) for one in ((7, 6, 8, 2), (15.6, 14, 17, 2), (6, 5, 7, 2)))
    rival = BudgetScores(0.25, "5x2x4x4", 10**10, 0.25, fewer, None)
    difference = Difference(-8.6 * unit, -9.8 * unit, -7.4 * unit)
    likeness = Fidelity(18.26, 0.9, 1.0)
    lines = printed(
        [
            BudgetScores(1.0, "20x2x4x4", 10**11, 0.2531, full, None),
            BudgetScores(0.25, "4x4x8x8,4x2x4x4", 10**10, 0.2531, weak, likeness, rival, difference),
        ]
    )
    values = [f"{unit * x:g}" for x in (7, 6, 8, 15.6, -9.8, -7.4)]
    numbers = [values[0], values[1], "to", values[2], values[3], values[4], "to", values[5], "better"]
    rows = [line.split() for line in lines]
    assert ["0.25", "10", "0.253", *numbers] in rows
    assert ["1", "100", "0.253", f"{6 * unit:g}", f"{5 * unit:g}", "to", f"{7 * unit:g}"] in rows
    assert any("native steps alone" in line for line in lines)

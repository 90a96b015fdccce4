"""The table at the end of a training fits a terminal, and brackets in a metric's name are no markup."""

from __future__ import annotations

import io

from rich.console import Console

from flexivid.metrics.fidelity import Fidelity
from flexivid.metrics.protocol import Protocol
from flexivid.metrics.scores import Scores
from flexivid.pipeline.evaluation import BudgetScores, Evaluation
from flexivid.training.callbacks.table import curve_table


def test_everything_fits_into_eighty_columns():
    scores = Scores(0.00012346, 0.00011, 0.000139, 0.5, 0.51, 0.62, 1.0, 0.9, None, 128, 128)
    rows = tuple(
        BudgetScores(budget, "20x2x4x4", macs, 0.2531, scores, likeness)
        for budget, macs, likeness in ((1.0, 10**11, None), (0.25, 10**10, Fidelity(18.26, 0.9, 1.0)))
    )
    protocol = Protocol("fvd[motion]", "0f", "whole frame", 8, 32, 32, 1, 8.0, 128, 128, "9c")
    text = io.StringIO()
    Console(file=text, width=80).print(curve_table(Evaluation(protocol.label, protocol, rows, 1500)))
    lines = text.getvalue().splitlines()
    assert "fvd[motion]128_8f at step 1500, mean 0.0001235" in lines[0]
    assert lines[-2].split() == ["0.25", "10", "0.253", "0.0001235", "0.00011", "-", "0.000139", "0.90", "18.3", "dB"]
    assert max(map(len, lines)) <= 80

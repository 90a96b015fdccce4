"""The area under a curve, and a result that survives being written down."""

import json
import math

import pytest

from flexivid.evaluation.report import legend, narrow_table
from flexivid.evaluation.result import BudgetScores, Evaluation
from flexivid.metrics.bootstrap import Difference
from flexivid.metrics.fidelity import Fidelity
from flexivid.metrics.protocol import Protocol
from flexivid.metrics.scores import Scores

PROTOCOL = Protocol("fvd", "0f3a", "224x224", 16, 64, 64, 1, 8.0, 2048, 2048, "9c1e")


def row(budget, macs, fvd, **changes):
    scores = Scores(fvd, 0.9 * fvd, 1.1 * fvd, 0.1, 0.5, 0.5, 0.5, 0.5, None, 2048, 2048)._replace(**changes)
    return BudgetScores(budget, "4x1x2x2", macs, 0.5, scores, Fidelity(20.0, 0.9, math.nan))


def curve(*rows):
    return Evaluation(PROTOCOL.label, PROTOCOL, rows, 500)


def test_area_is_the_mean_along_log_compute():
    assert curve(row(1, 100, 40.0), row(0.1, 10, 60.0)).fvd_auc == pytest.approx(50)
    level = curve(*(row(budget, int(1000 * budget), 7.0) for budget in (1, 0.4, 0.1)))
    assert level.fvd_auc == pytest.approx(7)
    three = curve(row(1, 1000, 10.0), row(0.01, 10, 40.0), row(0.1, 100, 20.0))
    assert three.fvd_auc == pytest.approx((15 + 30) / 2)


def test_area_does_not_depend_on_the_unit_of_compute():
    rows = [(1, 8, 10.0), (0.5, 4, 13.0), (0.25, 1, 30.0)]
    small, large = (curve(*(row(budget, unit * macs, fvd) for budget, macs, fvd in rows)) for unit in (1, 1000))
    assert small.fvd_auc == pytest.approx(large.fvd_auc)


def test_area_of_one_budget_or_none():
    assert curve(row(0.5, 50, 12.0)).fvd_auc == 12
    assert math.isnan(curve().fvd_auc)


def test_written_down_and_read_again():
    evaluation = curve(row(1, 100, 40.0)._replace(fidelity=None), row(0.1, 10, 60.0, low=math.nan, fvd_infinity=55.0))
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    again = Evaluation.from_json(json.loads(text))
    assert again.protocol == PROTOCOL
    assert again.rows[0] == evaluation.rows[0]
    assert math.isnan(again.rows[1].scores.low)
    assert math.isnan(again.rows[1].fidelity.perceptual)
    assert again.rows[1].scores.fvd_infinity == 55
    assert json.dumps(again.to_json()) == text


def test_a_rival_is_written_down_with_its_difference():
    rival = row(0.1, 12, 80.0, fvd_infinity=70.0, floor=2.0)
    weak = row(0.1, 10, 60.0)._replace(rival=rival, difference=Difference(-20.0, math.nan, math.nan))
    plain = json.loads(json.dumps(curve(weak).to_json(), allow_nan=False))
    assert plain["budgets"][0]["difference"] == {"difference": -20.0, "low": None, "high": None}
    assert plain["budgets"][0]["rival"]["scores"]["floor"] == 2.0
    (again,) = Evaluation.from_json(plain).rows
    assert again == weak
    assert again.difference.verdict == "tied"


def test_what_was_written_before_there_were_rivals_and_floors_is_read():
    plain = curve(row(1, 100, 40.0), row(0.1, 10, 60.0)).to_json()
    for budget in plain["budgets"]:
        del budget["rival"], budget["difference"], budget["scores"]["floor"]
    rows = Evaluation.from_json(plain).rows
    assert [one.scores.fvd for one in rows] == [40.0, 60.0]
    assert all(math.isnan(one.scores.floor) and one.rival is None and one.difference is None for one in rows)


def test_it_says_how_many_captions_were_trained_on():
    evaluation = curve(row(1, 100, 40.0))._replace(captions="1 of 2 held-out captions are among those trained on")
    assert Evaluation.from_json(evaluation.to_json()).captions == evaluation.captions
    assert evaluation.captions in legend(evaluation)
    assert evaluation.captions in narrow_table(evaluation)[1]
    assert "captions" not in curve().to_json()

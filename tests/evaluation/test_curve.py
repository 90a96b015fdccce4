"""The picture of FVD against compute: one line a global step, intervals, a logarithmic axis."""

import math

import pytest
from PIL import Image

from flexivid.evaluation.curve import curve_figure, png
from flexivid.evaluation.result import BudgetScores, Evaluation
from flexivid.metrics.protocol import Protocol
from flexivid.metrics.scores import Scores

PROTOCOL = Protocol("fvd[motion]", "0f3a", "none", 8, 32, 32, 1, 8.0, 64, 64, "9c1e")


def evaluation(step, values, *, interval=(0.9, 1.1), metric="fvd[motion]64_8f"):
    rows = []
    for budget, fvd in values.items():
        scores = Scores(fvd, interval[0] * fvd, interval[1] * fvd, 0.1, 0.5, 0.5, 0.5, 0.5, None, 64, 64)
        rows.append(BudgetScores(budget, "4x1x2x2", int(budget * 8e9), 0.5, scores, None))
    return Evaluation(metric, PROTOCOL, tuple(rows), step)


def curves(axes):
    return [line for line in axes.lines if line.get_marker() == "o"]


def test_one_line_a_step_over_gmacs_on_a_logarithmic_axis():
    figure = curve_figure([evaluation(step, {1.0: 10.0 + step, 0.25: 30.0}) for step in (100, 200, 300)])
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [line.get_label() for line in curves(axes)] == ["step 100", "step 200", "step 300"]
    assert curves(axes)[0].get_xdata().tolist() == [2.0, 8.0]
    assert curves(axes)[0].get_ydata().tolist() == [30.0, 110.0]
    assert sorted(text.get_text() for text in axes.texts) == ["0.25", "1"]
    assert "fvd[motion]64_8f" in axes.get_ylabel()


def test_budgets_of_the_same_plan_share_a_name():
    same = evaluation(1, {1.0: 10.0, 0.25: 30.0})
    rows = (*same.rows, same.rows[0]._replace(budget=0.5))
    (axes,) = curve_figure([same._replace(rows=rows)]).axes
    assert sorted(text.get_text() for text in axes.texts) == ["0.25", "0.5, 1"]


def test_bars_span_the_interval_even_when_it_leaves_the_value_out():
    (axes,) = curve_figure([evaluation(1, {1.0: 10.0}, interval=(1.2, 1.6))]).axes
    (bars,) = axes.collections
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([12.0, 16.0])


def test_unknown_intervals_and_single_points_can_be_drawn():
    figure = curve_figure([evaluation(None, {1.0: 10.0}, interval=(math.nan, math.nan))])
    assert figure.axes[0].get_legend() is None
    assert png(figure).startswith(b"\x89PNG")


def test_native_steps_alone_are_a_second_line_of_the_last_step():
    weak, steps = evaluation(200, {1.0: 10.0, 0.5: 11.0, 0.25: 12.0}), evaluation(200, {0.5: 14.0, 0.25: 40.0})
    rows = (weak.rows[0], *(row._replace(rival=rival) for row, rival in zip(weak.rows[1:], steps.rows, strict=True)))
    (axes,) = curve_figure([evaluation(100, {1.0: 15.0, 0.5: 19.0}), weak._replace(rows=rows)]).axes
    (dashed,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed.get_xdata().tolist() == [2.0, 4.0, 8.0]
    assert dashed.get_ydata().tolist() == [40.0, 14.0, 10.0]  # full compute is native steps alone, too
    assert dashed.get_color() != curves(axes)[-1].get_color()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["step 100", "step 200", "native steps alone"]


def test_the_file_is_a_picture(tmp_path):
    file = tmp_path / "curve.png"
    file.write_bytes(png(curve_figure([evaluation(1, {1.0: 10.0, 0.5: 12.0})])))
    with Image.open(file) as picture:
        assert picture.size == (840, 540)


def test_different_metrics_are_not_drawn_together():
    mixed = [evaluation(1, {1.0: 10.0}), evaluation(2, {1.0: 10.0}, metric="fvd64_8f")]
    with pytest.raises(ValueError, match=r"got metrics .*; expected one; draw"):
        curve_figure(mixed)
    with pytest.raises(ValueError, match=r"got metrics \[\]; expected one"):
        curve_figure([])

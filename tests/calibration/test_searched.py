"""What a search tells and draws is what a planner would do."""

import pytest
from PIL import Image

from flexivid.budget.schedule import Schedule
from flexivid.budget.scores import ScoredPlan, ScoreTable
from flexivid.calibration.calibrate import calibrate, relate
from flexivid.calibration.plan_search import SEARCHED_BUDGETS, first_candidates
from flexivid.calibration.searched import draw_schedules, score_lines, searched_front, searched_lines
from flexivid.model.checkpoint import fingerprint
from flexivid.sampling.plan import plan_for, table_settings
from flexivid.sampling.settings import Sampling, full_macs

GUIDANCE = ({}, {"guidance_scale": 2.0}, {"guidance_scale": 2.0, "guide_mode": "2x4x4"})


def search(model, *num_steps, **sampling):
    every = [Sampling(precision="fp32", num_inference_steps=steps, **sampling).filled(model) for steps in num_steps]
    return every, relate([calibrate(model, settings, num_videos=2) for settings in every])


def test_lines_are_the_plans(model):
    every, tables = search(model, 6)
    lines = searched_lines(model, every, tables, [1.0, 0.5, 0.01])
    assert lines[0] == "budget 1: 6x1x2x2; 6 calls, expected error 0"
    assert lines[1].split(": ")[1].split(";")[0] == str(plan_for(model, every[0], 0.5, tables=tables).schedule)
    assert len(lines) == 2  # nothing costs as little as a hundredth


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_sampling_follows_the_lines_at_every_budget(build_model, guidance):
    model = build_model(modes=("1x2x2", "2x2x2"))
    every, tables = search(model, 6, 3, **guidance | ({"guide_mode": "2x2x2"} if "guide_mode" in guidance else {}))
    free = every[0]._replace(fixed_steps=False)
    for budget in (0.9, 0.6, 0.4, 0.2, 0.1):  # also where the cheapest mode throughout costs more
        (line,) = searched_lines(model, every, tables, [budget])
        plan = plan_for(model, free, budget, tables=tables)
        assert (plan.planner, line.split(": ")[1].split(";")[0]) == ("searched", str(plan.schedule))
        assert free.schedule_macs(model.config, plan.schedule) <= budget * full_macs(model, free)


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("text_tokens", [0, 40])
def test_sampling_follows_the_scores_at_every_budget(build_model, guidance, text_tokens):
    model = build_model(text_channels=8 if text_tokens else 0)
    settings = Sampling(num_inference_steps=8, **guidance).filled(model)
    settings = settings._replace(fixed_steps=False, text_tokens=text_tokens)
    plans = first_candidates(model, settings, SEARCHED_BUDGETS)
    rows = tuple(ScoredPlan(str(plan.schedule), {}, 9 - plan.budget, 0.0, 9.0, 64) for plan in plans)
    table = ScoreTable(fingerprint(model), table_settings(settings), rows, {"metric": "fvd[motion]"})
    full = full_macs(model, settings)
    lines = score_lines(model, settings, table)
    assert len(lines) == len(SEARCHED_BUDGETS)
    for line, budget in zip(lines, SEARCHED_BUDGETS, strict=True):
        plan = plan_for(model, settings, budget, tables=[table])
        share = settings.schedule_macs(model.config, plan.schedule) / full
        assert line.startswith(f"budget {budget:g}: {plan.schedule.short}; {share:.3g} of all,")
        assert 0.75 * budget < share <= budget  # candidates use the budgets up


def test_several_numbers_of_steps_make_one_front(model):
    every, tables = search(model, 3, 6)
    both, whole = searched_front(model, every, tables)
    alone = [searched_front(model, [one], [table])[0] for one, table in zip(every, tables, strict=True)]
    assert whole.num_steps == 6
    for point in both:
        least = min(other.error for front in alone for other in front if other.cost <= point.cost)
        assert point.error == least
    assert {len(point.choice) for point in both} == {3, 6}
    assert all(len(Schedule(whole.options[i] for i in point.choice)) in (3, 6) for point in both)


def test_picture(model, tmp_path):
    every, tables = search(model, 4)
    draw_schedules(model, every, tables, tmp_path / "schedules.png")
    with Image.open(tmp_path / "schedules.png") as image:
        assert min(image.size) > 300
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["schedules.png"]

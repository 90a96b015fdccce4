"""What a search tells and draws is what a planner would do."""

from PIL import Image

from flexivid.budget.schedule import Schedule
from flexivid.calibration.calibrate import calibrate, relate
from flexivid.calibration.searched import draw_schedules, searched_front, searched_lines
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Sampling


def search(model, *num_steps):
    every = [Sampling(precision="fp32", num_inference_steps=steps).filled(model) for steps in num_steps]
    return every, relate([calibrate(model, settings, num_videos=2) for settings in every])


def test_lines_are_the_plans(model):
    every, tables = search(model, 6)
    lines = searched_lines(model, every, tables, [1.0, 0.5, 0.01])
    assert lines[0] == "budget 1: 6x1x2x2; 6 calls, expected error 0"
    assert lines[1].split(": ")[1].split(";")[0] == str(plan_for(model, every[0], 0.5, tables=tables).schedule)
    assert len(lines) == 2  # nothing costs as little as a hundredth


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

"""What a user can cause is one line in three parts, with the nearest valid name where one was misspelt."""

from collections import namedtuple

import pytest

from flexivid.budget.schedule import Schedule
from flexivid.runtime.errors import explain, plain_errors
from flexivid.sampling.messages import plan_line, result_line
from flexivid.sampling.sample_folder import Interrupted

KEYS = ["data.root", "data.batch_size", "model.network.width", "trainer.max_steps", "budget", "num-videos"]
COMPLAINTS = {
    "unrecognized arguments: --data.rot x": "got --data.rot; .*; did you mean '--data.root'?",
    "unrecognized arguments: --num_video=3": "got --num_video=3; .*; did you mean '--num-videos'?",
    "unrecognized arguments: --zzzzzz": "got --zzzzzz; .*; remove it",
    "Subcommand 'fit' does not accept option 'model.network.widht'": "got model.network.widht; .*model.network.width'?",
    "Problem with given class_path 'flexivid.training.modes.Phase':\n    Option 'untill' is not accepted": (
        "got untill for flexivid.training.modes.Phase; expected one of until, probabilities; did you mean 'until'?"
    ),
    "module 'flexivid.training.callbacks' has no attribute 'Sped'": "got flexivid.training.callbacks.Sped; .*'Speed'?",
    "Parser key \"model.objective.target\":\n  Expected a typing.Literal['x0', 'noise']. Got value: foo": (
        "got model.objective.target=foo; expected one of 'x0', 'noise'; change model.objective.target"
    ),
    "Parser key \"budget\" element 1:\n  Expected a <class 'float'>. Got value: abc": (
        "got --budget=abc; expected float; change --budget"
    ),
    "the following arguments are required: fit.data.root": "got no fit.data.root; expected a value for it; give one",
    "Parser key \"config\": File does not exist: 'a.yaml'": "got file a.yaml, which does not exist; expected a",
    "something\n  new\nSubtypes: [a]": "got arguments that do not fit (something new); expected what --help lists",
}


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_complaints_become_one_line(complaint):
    line = explain(complaint, KEYS)
    first, *rest = COMPLAINTS[complaint].split(".*")
    assert line.startswith(first)
    assert all(part in line for part in rest)
    assert "\n" not in line
    assert line.count("; ") == 2


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("got a; expected b; do c"), 2, "error: got a; expected b; do c\n"),
        (FileNotFoundError("got a; expected b; do c"), 2, "error: got a; expected b; do c\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (Interrupted("interrupted: 1 of 2"), 130, "interrupted: 1 of 2\n"),
    ],
)
def test_errors_end_the_program_in_one_line(capsys, error, status, text):
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise error
    assert stop.value.code == status
    assert capsys.readouterr().err == text


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), plain_errors():
        1 / 0  # noqa: B018


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("3x2x4x4,1x1x2x2", ["budget 0.5: 3 steps of 2x4x4, 1 of 1x2x2", "without guidance"]),
        (
            "3x2x4x4+2x4x4,1x1x2x2+1x2x2",
            ["3 steps of 2x4x4, 1 of 1x2x2", "each guided by a second call without"],
        ),
        ("4x1x2x2+2x4x4", ["4 steps of 1x2x2, each guided by a second call in 2x4x4"]),
    ],
)
def test_plan_line_tells_modes_and_cost(plan, words):
    line = plan_line(0.5, Schedule.parse(plan), 2_000_000, 8)
    assert all(word in line for word in words)
    assert line.endswith("; 2.00 MMACs a video, 16.0 MMACs in all")


def test_result_line_compares_with_the_first():
    outcome = namedtuple("outcome", "measured_macs seconds files")
    line = result_line(0.25, outcome(2_000_000, 1.0, ["a", "b"]), outcome(8_000_000, 4.0, ["a", "b"]))
    assert line == "budget 0.25: measured 2.00 MMACs (25.0% of the first), 1.00 s (25.0%), 2 videos"

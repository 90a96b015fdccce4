"""Measured errors survive the file, belong to one model and one setting, and are numbers."""

from __future__ import annotations

import json

import pytest

from flexivid.budget.allowance import step_options
from flexivid.budget.table import FILE, find_table, read_tables, write_tables
from tests.budget.test_schedule import CONFIG

OPTIONS = step_options(CONFIG, guided=True, guide_mode="2x4x4")


def test_survives_the_file(build_table, tmp_path) -> None:
    tables = [
        build_table(OPTIONS, 6, max_switches=2),
        build_table(OPTIONS, 4, distance=0.25, finest=6, trials=((0.0, 0.25), (1.5, 0.5))),
    ]
    write_tables(tmp_path, tables)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    read = read_tables(tmp_path)
    assert read == read_tables(tmp_path / FILE) == tables


def test_files_without_trials_are_read(build_table, tmp_path) -> None:
    write_tables(tmp_path, [build_table(OPTIONS, 4, distance=0.25)])
    content = json.loads((tmp_path / FILE).read_text())
    del content["tables"][0]["trials"], content["tables"][0]["finest"]
    (tmp_path / FILE).write_text(json.dumps(content))
    (table,) = read_tables(tmp_path)
    assert (table.trials, table.finest, table.expected(1.0)) == ((), None, 1.25)


def test_trials_without_errors_are_no_division_by_zero(build_table) -> None:
    assert build_table(OPTIONS, 4, trials=((0.0, 0.5),)).expected(2.0) == 0.5


def test_no_file_is_no_table(tmp_path) -> None:
    assert read_tables(tmp_path) == []
    assert find_table([], "abc", {}) is None


def test_a_new_table_replaces_its_own_and_those_of_other_models(build_table, tmp_path) -> None:
    write_tables(tmp_path, [build_table(OPTIONS, 6), build_table(OPTIONS, 4)])
    write_tables(tmp_path, [build_table(OPTIONS, 6, seed=1)])
    assert {len(table.errors) for table in read_tables(tmp_path)} == {4, 6}
    assert build_table(OPTIONS, 6, seed=1) in read_tables(tmp_path)
    write_tables(tmp_path, [build_table(OPTIONS, 5, model="def")])
    assert [table.model for table in read_tables(tmp_path)] == ["def"]


def test_found_by_settings_refused_for_another_model(build_table) -> None:
    tables = [build_table(OPTIONS, steps) for steps in (4, 6)]
    assert find_table(tables, "abc", {"num_inference_steps": 6}) is tables[1]
    assert find_table(tables, "abc", {"num_inference_steps": 5}) is None
    with pytest.raises(ValueError, match=r"got schedules.json of model abc; expected one of this model, def; run"):
        find_table(tables, "def", {"num_inference_steps": 6})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["errors", "changes", "trials"])
def test_nan_is_refused_on_the_way_in_and_out(build_table, tmp_path, number: float, place: str) -> None:
    table = build_table(OPTIONS, 6)
    if place == "errors":
        table.errors[4][1] = number
    elif place == "trials":
        table = table._replace(trials=((0.0, 0.0), (1.0, number)))
    else:
        table.changes[4][1] = number
    with pytest.raises(ValueError, match="got a measured error of model abc that is not a finite number; expected"):
        write_tables(tmp_path, [table])
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "damage", ["{", '{"format": 1}', '{"format": 2, "tables": []}', '{"format": 1, "tables": [{}]}']
)
def test_damaged_file(tmp_path, damage: str) -> None:
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(ValueError, match=r"got .*schedules.json, which cannot be read .*; run it again"):
        read_tables(tmp_path)


def test_rows_that_do_not_fit(build_table, tmp_path) -> None:
    write_tables(tmp_path, [build_table(OPTIONS, 6)])
    content = json.loads((tmp_path / FILE).read_text())
    del content["tables"][0]["errors"][2][0]
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="got a table with rows that do not fit its 4 options"):
        read_tables(tmp_path)

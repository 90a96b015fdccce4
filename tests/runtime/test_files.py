"""Several processes that change one file lose nothing of one another's."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flexivid.runtime.files import atomic_write, locked

ROOT = Path(__file__).resolve().parents[2]
COUNT = """
import sys, json
from pathlib import Path
from flexivid.runtime.files import atomic_write, locked
path = Path(sys.argv[1])
for _ in range(100):
    with locked(path):
        count = json.loads(path.read_text()) if path.exists() else 0
        with atomic_write(path) as part:
            part.write_text(json.dumps(count + 1))
"""
TABLES = """
import sys
from flexivid.budget.schedule import Schedule
from flexivid.budget.scores import ScoredPlan, ScoreTable
from flexivid.budget.table import read_tables, write_tables
folder, name = sys.argv[1:]
for i in range(20):
    row = ScoredPlan("4x1x2x2", {}, 1.0, 0.5, 1.5, 8)
    write_tables(folder, [ScoreTable("model", {"steps": f"{name}{i}"}, (row,), {"metric": "fvd"}, None)])
"""


def run_twice(code, *arguments):
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, arguments), name], cwd=ROOT) for name in ("a", "b", "c")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]


def test_processes_count_together(tmp_path):
    run_twice(COUNT, tmp_path / "count.json")
    assert json.loads((tmp_path / "count.json").read_text()) == 300
    assert [file.name for file in tmp_path.iterdir()] == ["count.json"]


def test_searches_that_end_at_once_keep_all_tables(tmp_path):
    from flexivid.budget.table import FILE, read_tables

    run_twice(TABLES, tmp_path)
    assert {table.settings["steps"] for table in read_tables(tmp_path)} == {f"{n}{i}" for n in "abc" for i in range(20)}
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_threads_wait_for_one_another(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with locked(tmp_path / "a"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_let_go_by_an_error_and_by_the_end_of_its_process(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a"):
        1 / 0  # noqa: B018
    dies = "import os, sys\nfrom flexivid.runtime.files import locked\nwith locked(sys.argv[1]): os._exit(9)"
    subprocess.run([sys.executable, "-c", dies, tmp_path / "a"], cwd=ROOT, check=False)
    with locked(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(TypeError), atomic_write(path) as part:
        part.write_text("half") + "no number"
    with atomic_write(path) as one, atomic_write(str(path)) as other:  # of one process
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def write_folder(path, *, divisor):
    with atomic_write(path) as part:
        part.mkdir()
        (part / "1.mp4").touch()
        1 / divisor


def test_a_folder_appears_when_everything_is_in_it_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "films", divisor=0)
    assert list(tmp_path.iterdir()) == []
    write_folder(tmp_path / "films", divisor=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["films", "1.mp4"]

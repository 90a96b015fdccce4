"""Bars of work that ends well are full, others show how far it went; tables show words as they are."""

import re
import tarfile
import time
from pathlib import Path

import pytest

from flexivid.data.storage import archives
from flexivid.runtime import console
from flexivid.runtime.console import print_numbers, print_table, progress_bars, step_bars, track


@pytest.fixture
def shown(monkeypatch):
    """All bars that are made."""
    made = []

    class Kept(console.Progress):
        def __init__(self, *columns, **options):
            super().__init__(*columns, **options)
            made.append(self)

    monkeypatch.setattr(console, "Progress", Kept)
    return lambda: [(task.completed, task.total) for progress in made for task in progress.tasks]


def test_less_work_than_thought_is_done_all_the_same(shown):
    with progress_bars() as progress:
        progress.add_task("nothing", total=5)
        progress.advance(progress.add_task("some", total=2300), 1245)
        progress.advance(progress.add_task("unknown", total=None), 3)
    assert shown() == [(0, 0), (1245, 1245), (3, 3)]


def test_work_that_fails_stays_where_it_was(shown):
    def work():
        with progress_bars() as progress:
            progress.advance(progress.add_task("some", total=2300), 1245)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert shown() == [(1245, 2300)]


def test_steps_of_a_report(shown):
    with step_bars() as on_step:
        on_step("comparing", 1, 0)
        on_step("decoding", 3, 9)
        on_step("comparing", 1, 0)
    assert shown() == [(2, 2), (3, 3)]


def test_unpacking_a_tar(shown, tmp_path):
    (tmp_path / "1.mp4").write_bytes(b"one")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.mp4", "b.mp4"):
            archive.add(tmp_path / "1.mp4", name)
    assert archives.extract(tmp_path / "a.tar", tmp_path / "out")
    assert shown() == [(2, 2)]


def test_items_pass_through_a_bar(shown):
    assert list(track("abc", "letters")) == ["a", "b", "c"]
    assert list(track(iter("ab"), "some", total=5)) == ["a", "b"]
    assert shown() == [(3, 3), (2, 2)]


def test_bars_go_to_stderr(capsys):
    assert list(track(range(2), "counting", unit="files")) == [0, 1]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "counting" in captured.err
    assert "2/2 files" in captured.err


def test_logs_show_how_far_the_work_is(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.02)
    with step_bars("/s") as on_step:
        on_step("files", 5, 5)
        for _ in range(3):
            on_step("clips", 1, 9)
            time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert sum("files" in line for line in lines) == 1  # at the end
    assert [any(f" {count}/9 " in line for line in lines) for count in (1, 2, 3)] == [True, True, True]


def test_words_are_no_markup_and_no_commands(capsys):
    print_table(["[b]file"], [["[red]a.mp4"], ["b\x1b[2J.mp4"]])
    print_numbers(["[i]"], [["[bold]1"]], title="fvd[motion]", caption="[u]")
    text = capsys.readouterr().out
    for word in ("[red]a.mp4", "b\\x1b[2J.mp4", "[bold]1", "fvd[motion]", "[u]"):
        assert word in text


def test_only_this_module_draws():
    """Lightning's bar is a class of Lightning's; everything else that rich draws is drawn here."""
    package = Path(console.__file__).parents[1]
    users = [path for path in package.rglob("*.py") if re.search(r"^\s*(from|import) rich\b", path.read_text(), re.M)]
    assert [path.name for path in users] == ["console.py"]

"""Bars of work that ends well are full; others show how far it went."""

import tarfile

import pytest

from flexivid.data.inspection.console import step_bars
from flexivid.data.storage import archives
from flexivid.runtime import bars
from flexivid.runtime.bars import progress_bars


@pytest.fixture
def shown(monkeypatch):
    """All bars that are made."""
    made = []

    class Kept(bars.Progress):
        def __init__(self, *columns, **options):
            super().__init__(*columns, **options)
            made.append(self)

    monkeypatch.setattr(bars, "Progress", Kept)
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

"""Reports as tables on a terminal, and progress bars beside them on stderr."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn
from rich.table import Table
from rich.text import Text

from flexivid.data.inspection.report import Report
from flexivid.runtime.bars import progress_bars
from flexivid.runtime.printable import printable

SHOWN = 50  # rows of a table; a JSON file has all
WIDTH = 160  # columns where there is no terminal


@contextmanager
def step_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that is told what is done, how much more of it, and of how much (0: unknown).

    >>> with step_bars() as on_step:
    ...     on_step("reading", 1, 2)
    """
    with progress_bars(MofNCompleteColumn()) as progress:
        tasks: dict[str, Any] = {}

        def on_step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            progress.update(tasks[what], advance=done)

        yield on_step


def print_report(name: str, report: Report) -> None:
    """Print what is wrong, what there is, and last a line that sums up.

    >>> print_report("train", Report(num_videos=0, num_clips=0, num_frames=0, hours=0.0))
    train: 0 videos that can be decoded, 0 frames, 0 hours; 0 clips in an epoch; faults: none
    """
    print_table(["file", "fault", "reason"], [(fault.path, fault.kind, fault.reason) for fault in report.faults])
    print_table(["frame rate varies: take frames by fps for even motion"], [[path] for path in report.variable_rate])
    print_table(["file", "what it says about its display"], list(report.displays.items()))
    for title in ("classes", "sizes", "durations", "codecs", "decoders"):
        print_table([title, "videos"], [(key, str(count)) for key, count in getattr(report, title).items()])
    print_table(["not used"], [[note] for note in report.notes])
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.num_faults.items()) or "none"
    _console().print(
        f"{name}: {report.num_videos} videos that can be decoded, {report.num_frames} frames, {report.hours:g} hours;"
        f" {report.num_clips} clips in an epoch; faults: {kinds}",
        markup=False,
        highlight=False,
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; nothing without rows.

    >>> print_table(["file"], [])
    """
    if not rows:
        return
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows[:SHOWN]:
        table.add_row(*(Text(printable(word)) for word in row))  # a path may hold brackets
    _console().print(table)
    if len(rows) > SHOWN:
        _console().print(f"and {len(rows) - SHOWN} others; a JSON file has all", highlight=False)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)

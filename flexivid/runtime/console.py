"""What programs draw on a terminal: progress bars, on stderr, and tables, on stdout. Only this module uses rich.

Words of other people (names of files, classes, metrics) are shown as they are: no markup, no control characters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from flexivid.runtime.printable import printable

T = TypeVar("T")

OnStep = Callable[[str, int, int], None]  # (kind of work, how much more of it is done, its length or 0 = unknown)
LINE_SECONDS = 30.0  # between lines of progress where there is no terminal
MOST_ROWS = 50  # of a table of words; a JSON file has all
WIDTH = 160  # columns of a table of words where there is no terminal


class _Speed(ProgressColumn):
    """How much is done a second."""

    def render(self, task: Task) -> Text:
        """The speed of the last half minute, or of all the work once it is done."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s")


@contextmanager
def progress_bars(unit: str = "", *, hidden: bool = False) -> Iterator[Progress]:
    """Show bars until the work ends. Work that ends well fills its bar, even if its length was wrong or unknown.

    Where there is no terminal, as in the log of a cluster, a line for each bar is printed every ``LINE_SECONDS``.
    ``unit`` is what is counted, e.g. ``files``; ``%`` shows a share instead of counts, ``bytes`` sizes and a speed,
    ``/s`` counts and a speed.

    >>> with progress_bars("files") as progress:
    ...     task = progress.add_task("reading", total=None)
    ...     progress.advance(task, 3)
    >>> progress.tasks[0].total, progress.finished
    (3, True)
    """
    amount: list[ProgressColumn | str] = [MofNCompleteColumn()]
    if unit == "%":
        amount = [TaskProgressColumn()]
    elif unit == "bytes":
        amount = [DownloadColumn(), TransferSpeedColumn()]
    elif unit == "/s":
        amount.append(_Speed())
    elif unit:
        amount.append(unit)
    with Progress(
        "{task.description}",
        BarColumn(),
        *amount,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    ) as progress:
        with _lines(progress):
            yield progress
        for task in progress.tasks:
            progress.update(task.id, total=task.completed)


@contextmanager
def _lines(progress: Progress) -> Iterator[None]:
    """Print the bars of unfinished work now and then where there is no terminal: rich would only do it at the end."""
    is_done = Event()

    def write() -> None:
        while not is_done.wait(LINE_SECONDS):
            if unfinished := [task for task in progress.tasks if not task.finished]:
                progress.console.print(progress.make_tasks_table(unfinished))

    writer = Thread(target=write, daemon=True)
    if not progress.disable and not progress.console.is_terminal:
        writer.start()
    try:
        yield
    finally:
        is_done.set()


def track(
    items: Iterable[T], description: str, *, unit: str = "", total: int | None = None, hidden: bool = False
) -> Iterator[T]:
    """Yield items, with a bar that shows how many are done; ``total=None`` = their length, where they have one."""
    with progress_bars(unit, hidden=hidden) as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def step_bars(unit: str = "", *, hidden: bool = False) -> Iterator[OnStep]:
    """Show a bar for each kind of work, made when the work first reports; yield the function that it reports to."""
    with progress_bars(unit, hidden=hidden) as progress:
        tasks: dict[str, Any] = {}

        def on_step(kind: str, done: int, total: int) -> None:
            if kind not in tasks:
                tasks[kind] = progress.add_task(kind, total=total or None)
            progress.update(tasks[kind], advance=done)

        yield on_step


@contextmanager
def polled_bars(
    poll: Callable[[], dict[str, tuple[float, float]]], *, hidden: bool = False
) -> Iterator[Callable[[], None]]:
    """Show the progress of work that is done elsewhere, a bar for each kind: ``poll`` gives (done, total) by kind.

    Yield a function that polls again and updates the bars.
    """
    with progress_bars("%", hidden=hidden) as progress:
        tasks = {kind: progress.add_task(kind, total=total) for kind, (_, total) in poll().items()}

        def show() -> None:
            for kind, (done, _) in poll().items():
                progress.update(tasks[kind], completed=done)

        show()
        yield show
        show()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of words, long ones folded; nothing without rows."""
    if not rows:
        return
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows[:MOST_ROWS]:
        table.add_row(*(Text(printable(word)) for word in row))
    console.print(table)
    if len(rows) > MOST_ROWS:
        console.print(f"and {len(rows) - MOST_ROWS} others; a JSON file has all", highlight=False)


def print_numbers(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str, caption: str = "") -> None:
    """Print a table of numbers, flush right; nothing is folded."""
    table = Table(title=Text(title), caption=Text(caption) if caption else None, box=SIMPLE_HEAD, collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)

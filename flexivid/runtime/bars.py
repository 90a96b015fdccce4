"""Progress bars on stderr, as all programs show them."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TimeRemainingColumn


@contextmanager
def progress_bars(*columns: ProgressColumn | str, hidden: bool = False) -> Iterator[Progress]:
    """Show bars until the work ends; those of work that ends well are full, were it less than thought, or unknown.

    Args:
        columns: What stands behind a bar, before the time that is left.
        hidden: Show nothing.

    >>> with progress_bars("files") as progress:
    ...     task = progress.add_task("reading", total=None)
    ...     progress.advance(task, 3)
    >>> progress.tasks[0].total, progress.finished
    (3, True)
    """
    shown = ("{task.description}", BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True), disable=hidden) as progress:
        yield progress
        for task in progress.tasks:
            progress.update(task.id, total=task.completed)

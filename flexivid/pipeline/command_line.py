"""The command line that the programs share: errors in one line, dashes and underscores alike. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from jsonargparse import ArgumentParser

from flexivid.pipeline.messages import refuse


class ProgramParser(ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2."""
        refuse(self, message, ex)


def program_parser(program: str, description: str, examples: str) -> ProgramParser:
    """A parser without options yet.

    Args:
        program: What is typed after ``python -m flexivid.``.
        description: One line.
        examples: Shown as they are at the end of the help.

    Example:
        >>> program_parser("sample", "Sample videos.", "").prog
        'python -m flexivid.sample'
    """
    return ProgramParser(
        prog=f"python -m flexivid.{program}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def words_of(argv: Sequence[str] | None) -> list[str]:
    """The given words, or those of the process, with underscores in the names of options.

    Example:
        >>> words_of(["--num-videos=4", "--output-dir", "my-videos"])
        ['--num_videos=4', '--output_dir', 'my-videos']
    """
    return [_underscored(word) for word in (sys.argv[1:] if argv is None else argv)]


def _underscored(word: str) -> str:
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word

"""What the command lines of all programs share: errors in one line, dashes or underscores. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from flexivid.runtime.errors import refuse
from flexivid.runtime.paths import resolve

PATHS = {  # options of any program that name files or folders
    *("checkpoint", "pipeline", "adapter", "model", "weights", "reference", "generated", "path", "config", "prompts"),
    *("output", "output_dir", "json", "fix_manifest", "against"),
}


class ProgramParser(ArgumentParser):
    """A parser that reports what is wrong with the arguments in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2."""
        refuse(self, message, ex)


def program_parser(program: str, description: str, examples: str) -> ProgramParser:
    """Make a parser without options.

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
    """Return the given arguments, or those of the process, with underscores in the names of options.

    Example:
        >>> words_of(["--num-videos=4", "--output-dir", "my-videos"])
        ['--num_videos=4', '--output_dir', 'my-videos']
    """
    return [_underscored(word) for word in (sys.argv[1:] if argv is None else argv)]


def resolved(options: Namespace) -> Namespace:
    """Return the options with their paths resolved by the rules of ``flexivid.runtime.paths``.

    Raises:
        ValueError: If a path is empty, or names a variable that is not set.

    Example:
        >>> resolved(Namespace(output_dir="./2024::trip//", prompt=["a  //  b"])).output_dir
        './2024::trip'
    """
    for name in sorted(PATHS.intersection(options.keys())):
        value = options[name]
        if isinstance(value, list):
            options[name] = [resolve(path) for path in value]
        elif isinstance(value, str):
            options[name] = resolve(value)
    return options


def _underscored(word: str) -> str:
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def add_layout(add: Callable[..., Any]) -> None:
    """Add the option for how folders of videos are read."""
    add("--layout", help="folders of videos are splits, classes, or flat: none of both (default: as trained, or auto)")


def add_files(add: Callable[..., Any]) -> None:
    """Add the options for which files of a diffusers model are read, named as the fields of ``ModelFiles``."""
    add("--variant", help="diffusers: files of the weights, e.g. fp16 (default: those without a variant)")
    add("--revision", help="diffusers: branch, tag or commit on the hub (default: its main branch)")
    add("--local_files_only", action="store_true", help="diffusers: read what is on this machine only")
    add("--use_safetensors", action="store_true", help="diffusers: read weights from safetensors only")

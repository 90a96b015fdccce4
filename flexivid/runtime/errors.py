"""What a user got wrong, as one line: got, expected, do. Imports no torch."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from flexivid.runtime.printable import printable
from flexivid.runtime.quiet import quiet_libraries


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of such a message.

    Example:
        >>> nearest("widht", ["width", "depth"]), nearest("x", ["width"])
        ("did you mean 'width'?", 'remove it')
    """
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it"


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can cause into one line on stderr and exit status 2; Ctrl-C into 130. Libraries are quiet."""
    try:
        with quiet_libraries():
            yield
    except (ValueError, TypeError, OSError) as error:
        lines = map(printable, str(error).split("\n"))  # names of files may hold what a terminal obeys
        sys.stderr.write("error: " + "\n".join(lines) + "\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{str(error) or 'interrupted'}\n")
        raise SystemExit(130) from error


def refuse(parser: Any, message: str, error: Exception | None = None) -> NoReturn:
    """End a program whose arguments jsonargparse refuses: one line on stderr, exit status 2."""
    parser = getattr(error, "subcommand_parser", None) or parser
    sys.stderr.write(f"error: {explain(message, [action.dest for action in parser._actions])}\n")
    raise SystemExit(2)


def explain(message: str, keys: Iterable[str]) -> str:
    """What jsonargparse complains of, as one line in three parts; a misspelt key comes with the nearest valid one.

    Args:
        message: The complaint.
        keys: All valid keys.

    Example:
        >>> explain("Subcommand 'fit' does not accept option 'data.rot'", ["data.root", "data.size"])
        "got data.rot; expected a key that --help lists; did you mean 'data.root'?"
    """
    for pattern, sentence in _SENTENCES:
        found = re.search(pattern, message)
        if found:
            return sentence(list(keys), *found.groups())
    plain = " ".join(re.split(r"Given value|Subtypes:", message)[0].split())
    return f"got arguments that do not fit ({plain}); expected what --help lists; correct them"


def _unknown_flag(keys: list[str], word: str) -> str:
    flags = ["--" + key for key in keys]
    return f"got {word}; expected an option that --help lists; {nearest(word.partition('=')[0], flags)}"


def _unknown_key(keys: list[str], word: str) -> str:
    return f"got {word}; expected a key that --help lists; {nearest(word, keys)}"


def _unknown_setting(keys: list[str], class_path: str, word: str) -> str:
    module, _, name = class_path.rpartition(".")
    known = list(inspect.signature(getattr(import_module(module), name)).parameters)
    return f"got {word} for {class_path}; expected one of {', '.join(known)}; {nearest(word, known)}"


def _unknown_class(keys: list[str], module: str, word: str) -> str:
    return f"got {module}.{word}; expected a class of {module}; {nearest(word, dir(import_module(module)))}"


def _wrong_value(keys: list[str], key: str, kind: str, value: str) -> str:
    kind = re.sub(r"<class '(.+?)'>", r"\1", re.sub(r"typing\.Literal\[(.+)\]", r"one of \1", kind))
    return f"got {key}={value}; expected {kind}; change {key}"


def _no_value(keys: list[str], key: str) -> str:
    return f"got no {key}; expected a value for it; give one, or a recipe with --config"


def _no_file(keys: list[str], file: str) -> str:
    return f"got file {file}, which does not exist; expected a recipe; check the path"


_SENTENCES = (
    (r"unrecognized arguments: (-\S+)", _unknown_flag),
    (r"does not accept option '([^']+)'", _unknown_key),
    (r"given class_path '([^']+)':\s+Option '([^']+)' is not accepted", _unknown_setting),
    (r"module '([^']+)' has no attribute '([^']+)'", _unknown_class),
    (r"Parser key \"([^\"]+)\"[^:]*:\s+Expected an? (.+?)\. Got value: (.*)", _wrong_value),
    (r"arguments are required: (\S+)", _no_value),
    (r"File does not exist: '([^']+)'", _no_file),
)

"""Errors that users can cause, as one line in three parts: got, expected, do. Imports no torch."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pickle import UnpicklingError
from typing import Any, NoReturn

from flexivid.runtime.printable import printable
from flexivid.runtime.start import quiet_libraries


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return the last part of a message about an unknown word: the valid word most like it.

    Example:
        >>> nearest("widht", ["width", "depth"]), nearest("x", ["width"])
        ("did you mean 'width'?", 'remove it')
    """
    matches = get_close_matches(word, list(valid), n=1)
    return f"did you mean {matches[0]!r}?" if matches else "remove it"


def check_keys(keys: Iterable[str], valid: list[str], *, what: str) -> None:
    """Refuse an unknown key (``ValueError``); ``what`` is a noun for keys in the message.

    Example:
        >>> check_keys({"widht": 64}, ["width", "depth"], what="model setting")
        Traceback (most recent call last):
        ...
        ValueError: got model setting 'widht'; expected one of width, depth; did you mean 'width'?
    """
    for key in keys:
        if key not in valid:
            raise ValueError(f"got {what} {key!r}; expected one of {', '.join(valid)}; {nearest(key, valid)}")


def check_settings(owner: str, *checks: tuple[str, object, bool, str]) -> None:
    """Refuse the first setting that is wrong (``ValueError``); ``owner`` is the section or class that it belongs to.

    A check is the name of a setting, its value, whether that is right, and what is expected.

    Example:
        >>> check_settings("FitMinutes", ("minutes", 0, False, "more than 0"))
        Traceback (most recent call last):
        ...
        ValueError: got minutes=0; expected more than 0; change FitMinutes.minutes
    """
    for name, value, is_right, expected in checks:
        if not is_right:
            raise ValueError(f"got {name}={value!r}; expected {expected}; change {owner}.{name}")


def reason_of(error: Exception) -> str:
    r"""Say in a few words why ``torch.load(..., weights_only=True)`` refused a file.

    Torch's own message advises to load the file as code, which nobody should do.

    Example:
        >>> reason_of(ValueError("Weights only load failed. Set it to False.\\n\\nTrying to load GLOBAL os.mkdir."))
        'it holds os.mkdir, which is no data'
    """
    refused = re.search(r"GLOBAL (\S+?)[.]?(\s|$)", str(error))
    if refused:
        return f"it holds {refused[1]}, which is no data"
    if isinstance(error, UnpicklingError):
        return "it holds something else than data"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn errors that users can cause into one line on stderr and exit status 2; Ctrl-C into 130. Quiet libraries."""
    try:
        with quiet_libraries():
            yield
    except (ValueError, TypeError, OSError) as error:
        lines = map(printable, str(error).split("\n"))  # names of files may hold control characters
        sys.stderr.write("error: " + "\n".join(lines) + "\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{str(error) or 'interrupted'}\n")
        raise SystemExit(130) from error


def refuse(parser: Any, message: str, error: Exception | None = None) -> NoReturn:
    """End a program whose arguments jsonargparse refuses: one line on stderr, exit status 2."""
    parser = getattr(error, "subcommand_parser", None) or parser
    keys = [max(action.option_strings or [action.dest], key=len).lstrip("-") for action in parser._actions]
    sys.stderr.write(f"error: {explain(message, keys)}\n")
    raise SystemExit(2)


def explain(message: str, keys: Iterable[str]) -> str:
    """Rewrite a complaint of jsonargparse as one line in three parts; a misspelt key comes with the nearest valid one.

    ``keys`` are all valid ones, as options are shown: "num-videos", "data.root".

    Example:
        >>> explain("Subcommand 'fit' does not accept option 'data.rot'", ["data.root", "data.size"])
        "got data.rot; expected a key that --help lists; did you mean 'data.root'?"
    """
    for pattern, sentence in _SENTENCES:
        match = re.search(pattern, message)
        if match:
            return sentence(list(keys), *match.groups())
    plain = " ".join(re.split(r"Given value|Subtypes:", message)[0].split())
    return f"got arguments that do not fit ({plain}); expected what --help lists; correct them"


def _unknown_flag(keys: list[str], word: str) -> str:
    flags = ["--" + key for key in keys]
    return f"got {word}; expected an option that --help lists; {nearest(word.partition('=')[0], flags)}"


def _unknown_key(keys: list[str], word: str) -> str:
    return f"got {word}; expected a key that --help lists; {nearest(word, keys)}"


def _unknown_setting(keys: list[str], class_path: str, word: str) -> str:
    module, _, name = class_path.rpartition(".")
    valid = list(inspect.signature(getattr(import_module(module), name)).parameters)
    return f"got {word} for {class_path}; expected one of {', '.join(valid)}; {nearest(word, valid)}"


def _unknown_class(keys: list[str], module: str, word: str) -> str:
    return f"got {module}.{word}; expected a class of {module}; {nearest(word, dir(import_module(module)))}"


def _wrong_value(keys: list[str], key: str, kind: str, value: str) -> str:
    kind = re.sub(r"<class '(.+?)'>", r"\1", re.sub(r"typing\.Literal\[(.+)\]", r"one of \1", kind))
    flag = key.replace("_", "-")
    name = f"--{flag}" if flag in keys and "." not in key else key
    return f"got {name}={value}; expected {kind}; change {name}"


def _no_value(keys: list[str], key: str) -> str:
    advice = ", or a configuration with --config" if "config" in keys else ""
    return f"got no {key}; expected a value for it; give one{advice}"


def _no_file(keys: list[str], file: str) -> str:
    return f"got file {file}, which does not exist; expected a configuration; check the path"


_SENTENCES = (
    (r"unrecognized arguments: (-\S+)", _unknown_flag),
    (r"does not accept option '([^']+)'", _unknown_key),
    (r"given class_path '([^']+)':\s+Option '([^']+)' is not accepted", _unknown_setting),
    (r"module '([^']+)' has no attribute '([^']+)'", _unknown_class),
    (r"Parser key \"([^\"]+)\"[^:]*:\s+Expected an? (.+?)\. Got value: (.*)", _wrong_value),
    (r"arguments are required: (\S+)", _no_value),
    (r"File does not exist: '([^']+)'", _no_file),
)

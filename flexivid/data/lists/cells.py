"""Read a cell of a list in any format (JSON, Parquet, CSV): as text, captions, the number of a class, or nothing.

Several captions of a video are packed into one string, here and in the index (see ``pack``). Standard library only.
"""

import ast
import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from flexivid.data.lists.text import decode, trimmed

MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "#n/a", "null", "none", "nat"})  # in any letter case
LONGEST = max(map(len, MISSING))
MAX_CLASSES = 1_000_000  # larger numbers are no classes but dates or ids
SEPARATOR = "\0"  # which no text holds
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)", re.IGNORECASE | re.ASCII)
_LIST = re.compile(r"""\[\s*(?:\]|["'].*\])""", re.DOTALL)


def is_missing(text: str) -> bool:
    """Return whether a text is a program's word for a missing value.

    >>> is_missing(" NaN"), is_missing("<NA>"), is_missing("nan desert")
    (True, True, False)
    """
    word = trimmed(text)
    return len(word) <= LONGEST and word.casefold() in MISSING


def text_of(value: Any) -> str | None:
    """Return the text of a cell, unchanged; None if it is empty or missing.

    ``ValueError`` if it holds no text; the message continues "got <cell>, which holds".

    >>> text_of("waves "), text_of(2.0), text_of(float("nan")), text_of("null"), text_of(True)
    ('waves ', '2.0', None, None, 'true')
    >>> text_of({"en": "a dog"})
    Traceback (most recent call last):
    ValueError: {'en': 'a dog'}; expected text, a number or nothing
    """
    if not isinstance(value, str):
        value = _worded(value)
    if not value.isascii():
        _refuse_halves(value)
    if SEPARATOR in value:
        raise ValueError(f"a NUL character ({brief(value)}); expected text")
    return None if is_missing(value) else value


def word_of(value: Any) -> str | None:
    """Return the text of a cell (see ``text_of``) without white space around it; None if it is empty or missing.

    >>> word_of(" waves "), word_of("None")
    ('waves', None)
    """
    text = text_of(value)
    return None if text is None else trimmed(text)


def captions_of(value: Any) -> str | None:
    r"""Return the captions in a cell, packed (see ``pack``): a text, a list of texts, or such a list written as text.

    ``ValueError`` if it holds anything else; see ``text_of``.

    >>> captions_of("a dog"), captions_of(["a dog", None, "a cat"]), captions_of("['a dog', 'a cat']")
    ('a dog', 'a dog\x00a cat', 'a dog\x00a cat')
    >>> captions_of([]), captions_of(7)
    (None, '7')
    """
    if isinstance(value, str) and _LIST.fullmatch(trimmed(value)):
        value = _parsed(trimmed(value))
    if not isinstance(value, list | tuple):
        return word_of(value)
    return pack(word for word in map(word_of, value) if word is not None) or None


def pack(captions: Iterable[str]) -> str:
    r"""Put the captions of a video into one string.

    >>> pack(["a dog", "a cat"])
    'a dog\x00a cat'
    """
    return SEPARATOR.join(captions)


def unpack(caption: str) -> tuple[str, ...]:
    r"""Return the captions of a video, at least one, which may be empty.

    >>> unpack("a dog\x00a cat"), unpack("")
    (('a dog', 'a cat'), ('',))
    """
    return tuple(caption.split(SEPARATOR))


def written(captions: Iterable[str]) -> str:
    """Return the cell that ``captions_of`` reads back as these captions.

    >>> written(["a dog"]), written(["a dog", "a cat"])
    ('a dog', '["a dog", "a cat"]')
    """
    words = list(captions)
    return words[0] if len(words) == 1 and not _LIST.fullmatch(words[0]) else json.dumps(words, ensure_ascii=False)


def is_number(text: str) -> bool:
    """Return whether a text is a number, as programs write them.

    >>> [is_number(text) for text in ("10", "-1", "2.0", "1e+05", "inf", "v2.0", "1_000")]
    [True, True, True, True, True, False, False]
    """
    return _NUMBER.fullmatch(text) is not None


def class_number(text: str, where: str) -> int:
    """Return the number of a class, which tables of numbers write as ``2.0``; -1 means none.

    ``ValueError`` if it is no whole number from -1 to a million; the message says ``where`` it stands.

    >>> class_number("2.0", "a.csv"), class_number("-1", "a.csv")
    (2, -1)
    >>> class_number("0.5", "a.csv")
    Traceback (most recent call last):
    ValueError: got class '0.5' in a.csv; expected a whole number from 0 below 1000000, or -1 for none; correct it
    """
    number = class_number_or_none(text)
    if number is None:
        raise ValueError(
            f"got class {brief(text)} in {where}; expected a whole number from 0 below {MAX_CLASSES}, or -1 for none; "
            f"correct it"
        )
    return number


def class_number_or_none(text: str) -> int | None:
    """Return the number of a class, -1 for none, if a text is one.

    >>> [class_number_or_none(text) for text in ("007", "2.0", "0.5", "20240131", "wind")]
    [7, 2, None, None, None]
    """
    value = float(text) if is_number(text) else math.nan
    return int(value) if value.is_integer() and -1 <= value < MAX_CLASSES else None


def brief(value: Any) -> str:
    """Return a value as error messages show it, on one line.

    >>> brief("x" * 80)[-6:]
    'xxx...'
    """
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _worded(value: Any) -> str:
    """Convert a value that is no text into text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return str(value)
    if not isinstance(value, bytes):
        raise ValueError(f"{brief(value)}; expected text, a number or nothing")
    try:
        return decode(value, "bytes")
    except ValueError as error:
        raise ValueError(f"bytes that are not UTF-8 ({brief(value)}); expected text") from error


def _parsed(text: str) -> list[Any]:
    """Read a list that is written as text, by JSON or by Python's ``str``."""
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
        if repr(value) != text:  # numpy writes no commas: Python would join the texts into one
            value = None
    if not isinstance(value, list):
        raise ValueError(f"a list that cannot be read ({brief(text)}); expected texts in JSON's brackets and quotes")
    return value


def _refuse_halves(text: str) -> None:
    """Refuse halves of characters, which JSON can write and nothing can store."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character ({brief(text)}); expected text that UTF-8 can hold") from error

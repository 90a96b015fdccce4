"""Makes names of files, classes and captions safe to print: other people chose them. Standard library only."""

import re

# control characters, line ends, marks that reverse the direction of text, bytes that are no text
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text in one line, with invisible characters as escapes.

    >>> print(printable("a\x1b[2J\n.mp4"))
    a\x1b[2J\n.mp4
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)

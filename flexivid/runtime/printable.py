"""Names of files, classes and captions as they may be shown: other people chose them. Standard library only."""

import re

# control characters (a terminal obeys them), line ends, marks that turn text around, bytes that are no text
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text in one line, with what cannot be seen in it spelt out.

    >>> print(printable("a\x1b[2J\n.mp4"))
    a\x1b[2J\n.mp4
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)

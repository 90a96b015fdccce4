"""Decode text that users wrote: captions, lists, prompts, configurations. All of it is decoded here.

A byte order mark sets the encoding; without one it is strict UTF-8. No character is replaced or dropped. The encoding
is never guessed: a caption is too short for that (charset-normalizer decodes 18 of 39 captions in eight encodings
wrongly, docs/LOG.md). Standard library only.
"""

import codecs
import io
import os
from collections.abc import Iterator
from typing import IO

from flexivid.data.storage.byte_range import ByteRange, read_range

MARKS = (  # of several that fit, the first: the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
CANDIDATES = ("gb18030", "big5", "shift_jis", "euc_kr", "cp1251", "cp1252")  # suggested in error messages
BLOCK = 1 << 20  # bytes decoded at a time
NEARBY = 12  # characters that a refusal shows


def decode(data: bytes, source: str) -> str:
    r"""Return the text that bytes hold, without a byte order mark; ``source`` names them in the error.

    ``ValueError`` if the bytes are neither UTF-8 nor marked, or if they hold a NUL character.

    >>> decode("\ufeffa dog".encode("utf-16-le"), "a.txt"), decode(b"\xef\xbb\xbfa dog", "a.txt")
    ('a dog', 'a dog')
    >>> try:
    ...     decode(b"caf\xe9", "a.txt")
    ... except ValueError as error:
    ...     print(ascii(str(error).split("; ")[0]), ascii(str(error)[-23:]))
    'got a.txt, whose byte 3 (0xe9, line 1) is not UTF-8' "1 'caf\u0439', cp1252 'caf\xe9'"
    """
    text = "".join(_pieces(io.BytesIO(data), source))
    if "\0" in text:
        line = _num_ends(text[: text.index("\0")]) + 1
        raise ValueError(
            f"got {source}, which holds a NUL character in line {line}; expected text as UTF-8, or UTF-16 with a byte "
            f"order mark; save it as UTF-8"
        )
    return text


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file or url; see ``decode``.

    ``ValueError`` if it cannot be decoded; other errors are those of the file system.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> _ = path.write_text("a dog", encoding="utf-16")
    >>> read_text(path)
    'a dog'
    """
    name = os.fspath(path)
    return decode(read_range(ByteRange(name, 0, -1)), name)


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    r"""Return the lines of a file that hold more than white space, trimmed.

    Lines end with ``\n``, ``\r\n`` or ``\r``; the separators of Unicode, which texts from the web hold, end none.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp(), "prompts.txt")
    >>> _ = path.write_bytes(b"\xef\xbb\xbfa dog\r\n\r\n a cat \n")
    >>> read_lines(path)
    ['a dog', 'a cat']
    """
    lines = (trimmed(line) for line in io.StringIO(read_text(path), newline=None))
    return [line for line in lines if line]


def text_lines(file: IO[bytes], source: str) -> Iterator[str]:
    r"""Decode a file line by line, as ``decode`` does; lines keep their ends, and may hold NUL.

    >>> list(text_lines(io.BytesIO(b"\xef\xbb\xbfa\rb\r\nc"), "l.csv"))
    ['a\r', 'b\r\n', 'c']
    """
    rest = ""
    for piece in _pieces(file, source):
        lines = io.StringIO(rest + piece, newline="").readlines()
        rest = lines.pop() if lines else ""  # a line, or a pair of line ends, may go on in the next piece
        yield from lines
    if rest:
        yield rest


def trimmed(text: str) -> str:
    r"""Return a text without white space and byte order marks at its ends.

    >>> trimmed("\ufeff a dog\n")
    'a dog'
    """
    text = text.strip()
    return text if text.isascii() else text.strip("\ufeff").strip()


def _pieces(file: IO[bytes], source: str) -> Iterator[str]:
    """Decode block by block."""
    data = file.read(BLOCK)
    mark, encoding = next((pair for pair in MARKS if data.startswith(pair[0])), (b"", "utf-8"))
    decoder = codecs.getincrementaldecoder(encoding)()
    end = len(mark)  # position in the file of the bytes that are not decoded yet
    num_lines, is_first, data = 1, True, data[len(mark) :]
    while True:
        begin, end = end, end + len(data)
        following = file.read(BLOCK)
        try:
            piece = decoder.decode(data, final=not following)
        except UnicodeDecodeError as error:
            pending = len(error.object) - len(data)  # the decoder keeps the begin of a character
            line = num_lines + _num_ends(error.object[: error.start].decode(encoding))
            raise _refusal(error, source, begin - pending + error.start, line, bool(mark)) from error
        num_lines += _num_ends(piece)
        yield piece.lstrip("\ufeff") if is_first else piece  # programs that mark a marked file mark it twice
        if not following:
            return
        is_first, data = False, following


def _num_ends(text: str) -> int:
    return text.count("\n") or text.count("\r")


def _refusal(error: UnicodeDecodeError, source: str, byte: int, line: int, is_marked: bool) -> ValueError:
    where = f"{source}, whose byte {byte} (0x{error.object[error.start]:02x}, line {line})"
    if is_marked:
        return ValueError(
            f"got {where} is not {error.encoding}, which its byte order mark promises; expected that encoding to the "
            f"end of the file; write it anew"
        )
    return ValueError(
        f"got {where} is not UTF-8; expected UTF-8, or UTF-16 or UTF-32 with a byte order mark; "
        f"save it as UTF-8 (iconv -f ENCODING -t UTF-8){_readings(error.object, error.start)}"
    )


def _readings(data: bytes, start: int) -> str:
    """Show the text around a byte in other encodings, so that the user can recognise the right one."""
    begin = data.rfind(b"\n", 0, start) + 1
    end = data.find(b"\n", start)
    part = data[max(begin, start - NEARBY) : len(data) if end < 0 else end].strip()
    shown = []
    for encoding in CANDIDATES:
        try:
            text = part.decode(encoding)
        except UnicodeDecodeError:
            continue
        shown += [f"{encoding} {text[: 2 * NEARBY]!r}"] * text.isprintable()
    return f", it reads as {', '.join(shown)}" if shown else ""

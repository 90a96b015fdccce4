"""Users' text is decoded by its mark or as UTF-8, to the letter, or refused at the byte that is wrong."""

import io
import random

import pytest

from flexivid.data.lists import text
from flexivid.data.lists.text import decode, read_lines, read_text, text_lines

WORDS = "a \u7ea2\u8272 caf\xe9 \U0001f600\r\nsecond\rthird\u2028same\nlast"
MARKS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
    "gb18030": b"\x84\x31\x95\x33",
}


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 1 << 20])
@pytest.mark.parametrize("encoding", MARKS)
def test_marked_text_and_utf8_are_read_to_the_letter(monkeypatch, encoding, block):
    data = MARKS[encoding] + WORDS.encode(encoding)
    monkeypatch.setattr(text, "BLOCK", max(block, 4))
    assert decode(data, "a.txt") == WORDS
    lines = ["a \u7ea2\u8272 caf\xe9 \U0001f600\r\n", "second\r", "third\u2028same\n", "last"]
    assert list(text_lines(io.BytesIO(data), "a.txt")) == lines


@pytest.mark.parametrize("block", [1, 4, 1 << 20])
def test_a_refusal_names_the_byte_and_the_line(monkeypatch, block):
    monkeypatch.setattr(text, "BLOCK", block)
    data = "first\n\u7ea2\n".encode() + "\u7ea2\u8272".encode("gbk")
    with pytest.raises(ValueError, match=r"got v/a.txt, whose byte 10 \(0xba, line 3\) is not UTF-8; .*; save it"):
        decode(data, "v/a.txt")


def test_a_refusal_shows_how_the_text_may_read():
    with pytest.raises(ValueError, match=r"gb18030 '\u7ea2\u8272'.*cp1252"):
        decode("\u7ea2\u8272".encode("gbk"), "a.txt")


@pytest.mark.parametrize("data", [b"\xff\xfea", b"\xff\xfe\x00\xd8", b"\xff\xfe\0\0\xff\xff\xff\xff"])
def test_a_mark_that_does_not_hold_is_refused(data):
    with pytest.raises(ValueError, match=r"is not utf-\d\d-le, which its byte order mark promises"):
        decode(data, "a.txt")


def test_text_with_nul_is_refused():
    with pytest.raises(ValueError, match=r"a.txt, which holds a NUL character in line 1.*UTF-16 with a byte order"):
        decode("a dog".encode("utf-16-le"), "a.txt")


def test_nothing_is_replaced():
    draw = random.Random(0)
    refused = 0
    for _ in range(2000):
        data = bytes(draw.choice([97, 98, 10, 0xC3, 0xA9, 0xE2, 0x82, 0xAC]) for _ in range(draw.randrange(6)))
        try:
            expected = data.decode()
        except UnicodeDecodeError as error:
            refused += 1
            with pytest.raises(ValueError, match=rf"byte {error.start} \(0x{data[error.start]:02x}"):
                decode(data, "a.txt")
        else:
            assert decode(data, "a.txt") == expected
    assert 200 < refused < 1800


def test_lines_of_prompts(tmp_path):
    (tmp_path / "p.txt").write_bytes("\ufeffa dog\u2028runs\r\r a cat \n".encode())
    assert read_lines(tmp_path / "p.txt") == ["a dog\u2028runs", "a cat"]
    (tmp_path / "p.txt").write_text("a dog\na cat", encoding="utf-16")
    assert read_lines(tmp_path / "p.txt") == ["a dog", "a cat"]
    assert read_text(tmp_path / "p.txt") == "a dog\na cat"
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none.txt")

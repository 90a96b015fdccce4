"""Names that other people chose do nothing to a terminal or a page."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from flexivid import dataset
from flexivid.data.decoding.probe import VideoError
from flexivid.data.inspection.preview import Clip, contact_sheet, page
from flexivid.evaluation.page import Films, Row
from flexivid.evaluation.page import page as evaluation_page
from flexivid.runtime.errors import plain_errors
from flexivid.runtime.printable import printable

NAME = "\x1b[2J\x1b]0;title\x07\r\b\x9b31m\u202egp4.mp4\n\udcff<img src=x onerror=alert(1)>\"'.mp4"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_what_can_be_seen_stays():
    seen = "Wellen am Strand, \xfc\xdf \u6ce2 \U0001f30a a-b_c (1).mp4"
    assert printable(seen) == seen
    assert printable("a\tb\x1b[2J\udcff\u202e") == r"a\tb\x1b[2J\udcff\u202e"


def test_errors_and_warnings_of_files():
    error = str(VideoError(NAME, "no\x1b[2Jstream"))
    assert not OBEYED.search(error)
    assert "\n" not in error


def test_errors_of_programs(capsys):
    with pytest.raises(SystemExit), plain_errors():
        raise ValueError(f"got {NAME}")
    assert not OBEYED.search(capsys.readouterr().err)


def attributes(text):
    """Names of the attributes of all elements of a page."""
    found = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, pairs: found.update(name for name, _ in pairs)
    parser.feed(text)
    return found


def test_pages():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    clip = Clip(frames, NAME, 0.0, 8.0, range(2), caption=NAME)
    films = Films([NAME], [Row(NAME, NAME, [frames])], 8.0)
    texts = [page([clip], title=NAME, settings={NAME: NAME})]
    texts.append(evaluation_page(NAME, table=[[NAME]], protocol={NAME: {NAME: NAME}}, films=films, note=NAME))
    for text in texts:
        text.encode()  # bytes of a name that are no text can be written
        assert not OBEYED.search(text)
        assert "<img src=x" not in text
        assert "onerror" not in attributes(text)
        assert html.escape("<img src=x") in text
    assert contact_sheet([clip]).width > 8


def test_the_console(make_video, tmp_path, capsys, monkeypatch):
    """All that ``check`` says of good and bad files with such names, in class folders of such names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path / "cache"))
    for number, folder in enumerate(("\x1b[31mred", "<b>\x1b[2J")):
        for i in range(3):
            make_video(tmp_path / "videos" / folder / f"\x1b[5m{i}.mp4", 20, first=6 * i + 20 * number)
        (tmp_path / "videos" / folder / "\x1b]0;evil\x07.mp4").write_bytes(b"junk")
    with pytest.raises(SystemExit):
        dataset.main(["check", "videos", "--num-workers", "1"])
    told = capsys.readouterr()
    assert r"\x1b]0;evil\x07.mp4" in told.out
    assert not OBEYED.search(told.out)
    with pytest.raises(SystemExit):
        dataset.main(["check", "videos/\x1b[31mred/\x1b]0;evil\x07.mp4"])
    assert not OBEYED.search(capsys.readouterr().err)

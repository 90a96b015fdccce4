"""A page with everything in it."""

import base64
import io
import re

import numpy as np
from PIL import Image

from flexivid.evaluation.page import Films, Row, page

CLIP = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


def test_everything_is_in_the_page():
    rows = [Row("budget 1", "8x1x2x2", [CLIP, CLIP[::-1]]), Row("budget 0.5", "4x2x4x4,4x1x2x2", [CLIP, CLIP])]
    text = page(
        "fvd & more", table=[["budget", "fvd"], ["1", "3.5"]], protocol={"seed": 0}, films=Films("ab", rows, 8.0)
    )
    assert "fvd &amp; more" in text
    assert "http" not in text
    assert "<td>3.5</td>" in text
    sources = re.findall(r'<img src="data:image/webp;base64,([^"]+)"', text)
    assert len(sources) == 4
    with Image.open(io.BytesIO(base64.b64decode(sources[1]))) as picture:
        assert picture.n_frames == 4
        assert (np.asarray(picture.convert("RGB")) == CLIP[-1]).all()  # lossless


def test_words_of_users_are_no_markup():
    rows = [Row("<script>", "<b>", [CLIP])]
    text = page("<i>", table=[["<u>"]], protocol={"<a>": "<p>"}, films=Films(["<em>"], rows, 8.0), note="<s>")
    assert not re.search(r"<(script|i|u|a|em|s)>", text)


def test_the_curve_is_there_if_there_is_one():
    films = Films([], [], 8.0)
    assert "image/png" not in page("t", table=[["a"]], protocol={}, films=films)
    assert "image/png;base64,AAEC" in page("t", table=[["a"]], protocol={}, films=films, curve=bytes([0, 1, 2]))

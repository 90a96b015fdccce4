"""The clips shown are those trained on, pixel by pixel, and the page needs nothing but itself."""

import io

import numpy as np
import pytest
from PIL import Image

from flexivid.data.clips.loader import ClipLoader
from flexivid.data.decoding.reader import ClipRequest
from flexivid.data.inspection.preview import Clip, contact_sheet, look, page
from flexivid.data.workers.pool import DecodePool
from flexivid.media.html import animation


class Dataset:
    """Three clips, of which the first fails to decode."""

    def __len__(self):
        return 3

    def plan(self, address):
        return ClipRequest(f"{address[0]}.mp4", b"", np.arange(2), (8, 8))

    def cached(self, address):
        return np.full((2, 8, 8, 3), address[0], np.uint8) if address[0] else None

    def label(self, clip):
        return clip

    def caption(self, clip, epoch=0):
        return ""


def test_a_clip_that_fails_is_replaced_by_the_next_and_says_so():
    with DecodePool(0) as pool:
        (clip,) = look(ClipLoader(Dataset(), [], pool=pool), [(0, 0)], class_names=("a", "b", "c"))
    assert clip.path == "1.mp4"
    assert clip.class_name == "b"
    assert clip.frames.max() == 1
    assert "in place of" in clip.title


@pytest.mark.parametrize("size", [(8, 8), (64, 80)])
def test_the_sheet_repeats_pixels_and_changes_none(size):
    frames = np.random.default_rng(0).integers(0, 255, (3, *size, 3), dtype=np.uint8)
    sheet = np.asarray(contact_sheet([Clip(frames, "a.mp4", 0.0, 8.0, range(3))]))
    factor = max(1, 64 // min(size))
    top, left = 24, 0
    shown = sheet[top : top + size[0] * factor : factor, left : left + size[1] * factor : factor]
    assert (shown == frames[0]).all()


def test_the_page_embeds_exact_pixels_and_escapes_words():
    frames = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
    text = page([Clip(frames, "<b>.mp4", 0.0, 8.0, range(4), caption="a & b")], title="t", settings={})
    assert "&lt;b&gt;.mp4" in text
    assert "a &amp; b" in text
    assert 'src="data:' in text
    assert "//" not in text.split("base64,")[0]
    shown = Image.open(io.BytesIO(animation(frames, 8.0)))
    for i in range(4):
        shown.seek(i)
        assert (np.asarray(shown.convert("RGB")) == frames[i]).all()

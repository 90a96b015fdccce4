"""Containers that say what part of a picture is shown: read where they say it, and no damage in them does harm."""

import numpy as np
import pytest

from flexivid.data.decoding.aperture import Aperture, aperture_of
from flexivid.data.decoding.container import video_stream
from flexivid.data.decoding.reader import open_video
from flexivid.data.storage.errors import VideoError

from . import crafted

WHOLE = (96, 128)


def aperture(content, stored=WHOLE):
    with video_stream(content) as (_, stream):
        return aperture_of(content, stream, stored)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    path = crafted.write(tmp_path_factory.mktemp("aperture") / "a.mp4", WHOLE)
    return crafted.with_boxes(path.read_bytes(), crafted.clap(100, 80, right=8, down=-8))


@pytest.fixture(scope="module")
def mkv(tmp_path_factory):
    path = crafted.write(tmp_path_factory.mktemp("aperture") / "a.mkv", WHOLE)
    return crafted.with_elements(path.read_bytes(), crafted.number(crafted.TOP, 4) + crafted.number(crafted.RIGHT, 6))


def test_what_is_cut(mp4, mkv):
    assert aperture(mp4) == Aperture((4, 12, 18, 10), is_shape_of_whole=True)
    assert aperture(mkv) == Aperture((4, 0, 0, 6))


def test_what_the_codec_has_cut_already_is_not_cut_again(mp4, mkv):
    assert aperture(mp4, (80, 100)) == Aperture()
    assert aperture(mp4, (90, 120)) == Aperture()  # of another picture than the box is about


def test_no_damage_raises_anything_but_a_video_error(mp4, mkv):
    rng = np.random.default_rng(0)
    for whole, first, last in ((mp4, mp4.index(b"moov"), len(mp4)), (mkv, 0, 600)):
        for _ in range(150):
            content = bytearray(whole)
            for place in rng.integers(first, last, size=rng.integers(1, 8)):
                content[place] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(256)])
            try:
                with open_video(bytes(content)) as reader:
                    assert min(reader.size) > 0
            except VideoError:
                pass

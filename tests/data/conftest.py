"""Videos made for the tests, and real ones where they are at hand."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

SHARED = Path(os.environ.get("FLEXIVID_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))


@pytest.fixture
def shared_videos():
    """Real videos, odd and broken ones among them (see their README)."""
    if not (SHARED / "videos").is_dir():
        pytest.skip(f"no real videos at {SHARED}/videos; set FLEXIVID_SHARED")
    return SHARED / "videos"


@pytest.fixture
def make_video():
    """A function that writes a video whose frame i is grey of level ``first + step * i``, and returns its path."""

    def make(path, num_frames=16, *, size=(32, 32), fps=8, first=0, step=10, codec="libx264"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps, options={"crf": "4"} if codec == "libx264" else {})
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            for i in range(num_frames):
                picture = np.full((*size, 3), first + step * i, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
        return path

    return make

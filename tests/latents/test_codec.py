"""The pixel codec is the identity, and pixels survive the way to [-1, 1] and back."""

import pytest
import torch

from flexivid.latents.codec import PixelCodec, build_codec
from flexivid.media.pixels import to_bytes, to_unit


def test_pixel_codec_is_the_identity():
    video, codec = torch.randn(2, 3, 4, 6, 8), build_codec("pixel")
    assert isinstance(codec, PixelCodec)
    assert torch.equal(codec.encode(video), video)
    assert torch.equal(codec.decode(codec.encode(video)), video)
    assert codec.latent_size(4, 6, 8) == (4, 6, 8)
    assert codec.channels == video.shape[1]


def test_codec_holds_no_parameters():
    assert not isinstance(build_codec("pixel"), torch.nn.Module)


def test_every_byte_comes_back():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(levels)
    assert unit.dtype == torch.float32
    assert (unit.min().item(), unit.max().item()) == (-1.0, 1.0)
    assert torch.equal(to_bytes(unit), levels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_bytes_clip_in_any_precision(dtype):
    assert to_bytes(torch.tensor([-9.0, -1.0, 1.0, 9.0], dtype=dtype)).tolist() == [0, 0, 255, 255]


def test_unknown_codec_is_refused():
    with pytest.raises(ValueError, match=r"got codec wan, which does not exist; expected .pixel., a folder.*; check"):
        build_codec("wan")

"""TAEF2 with its real weights gives what the authors' network gives, from both layouts of its files."""

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexivid.latents.codec import build_codec
from flexivid.latents.taef2 import TAEF2

SHARED = Path(os.environ.get("FLEXIVID_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
FOLDER = SHARED / "weights" / "taef2"
needs_weights = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no {FOLDER}")


@needs_weights
def test_equals_the_authors_network():
    codec, reference = build_codec(str(FOLDER)), load_file(FOLDER / "reference.safetensors")
    video = (reference["image_uint8"].float() / 127.5 - 1)[:, :, None]
    latent = codec.encode(video)
    assert (latent[:, :, 0] - reference["latent"]).abs().max() < 1e-3
    pixels = codec.decode(reference["latent"][:, :, None])[:, :, 0]
    assert ((pixels + 1) / 2 - reference["decoded"]).abs().max() < 1e-3


@needs_weights
def test_frames_of_a_video_are_coded_one_by_one():
    codec, reference = build_codec(str(FOLDER)), load_file(FOLDER / "reference.safetensors")
    video = (reference["image_uint8"].float() / 127.5 - 1).transpose(0, 1)[None]
    assert (codec.encode(video)[0].transpose(0, 1) - reference["latent"]).abs().max() < 1e-3


def hub_name(name):
    part, position, rest = re.fullmatch(r"(\w+)\.(\d+)\.(.+)", name).groups()
    return f"{part}.layers.{int(position) - (part == 'decoder')}.{rest}"


def test_both_layouts_are_the_same_codec(tmp_path):
    weights = TAEF2().state_dict()
    for part in ("encoder", "decoder"):
        own = {name.removeprefix(f"{part}."): t.half() for name, t in weights.items() if name.startswith(part)}
        (tmp_path / "two").mkdir(exist_ok=True)
        save_file(own, tmp_path / "two" / f"{part}.safetensors")
    (tmp_path / "one").mkdir()
    save_file({hub_name(name): t.half() for name, t in weights.items()}, tmp_path / "one" / "taef2.safetensors")
    two, one = (build_codec(str(tmp_path / name)) for name in ("two", "one"))
    assert two.fingerprint == one.fingerprint
    video = torch.rand(1, 3, 2, 16, 24)
    assert torch.equal(two.encode(video), one.encode(video))

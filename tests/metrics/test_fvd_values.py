"""From uint8 clips to one number: the reference value of the published definition, with seeded weights in I3D."""

import io
import json
import lzma
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flexivid.metrics.extractors.extractor import build_extractor
from flexivid.metrics.fvd import FrechetVideoDistance

SHARED = Path(os.environ.get("FLEXIVID_SHARED", Path(__file__).resolve().parents[2].parent / "shared")) / "fvd"
CONVENTION = "eps=1e-3, torch half-pixel bilinear, logits", "A-A2", "float64 SVD (low-rank exact), N-1"


def seeded(name, shape):
    z, kind = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(size=shape), name.rsplit("/", 1)[-1]
    if kind == "w":
        return torch.from_numpy(z * np.sqrt(2 / np.prod(shape[:-1]))).permute(4, 3, 0, 1, 2).float().contiguous()
    return torch.from_numpy(np.exp(0.25 * z) if kind == "moving_variance" else 0.1 * z).flatten().float()


def clips(name):
    packed = (SHARED / f"set_{name}.delta.npy.xz").read_bytes()
    steps = np.load(io.BytesIO(lzma.decompress(packed)))  # from frame to frame
    return torch.from_numpy(np.cumsum(steps, axis=2, dtype=np.uint8))  # b c t h w


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:got .* videos; expected at least 400", "ignore:got .*weights")
def test_fvd_between_stored_sets(tmp_path):
    if not SHARED.is_dir():
        pytest.skip(f"no reference values at {SHARED}; set FLEXIVID_SHARED")
    tensors = json.loads((SHARED / "checkpoint_tensors.json").read_text())["checkpoints"]["rgb_scratch"]
    named = {facts["torch_name"]: seeded(name, facts["shape"]) for name, facts in tensors.items()}
    save_file(named, tmp_path / "seeded.safetensors")
    fvd = FrechetVideoDistance(build_extractor("i3d", weights=tmp_path / "seeded.safetensors"))
    for name, real in (("A", True), ("A2", False)):
        for batch in clips(name).split(8):
            fvd.update(batch, real=real)
    values = json.loads((SHARED / "values.json").read_text())["values"]
    assert fvd.compute().item() == pytest.approx(values[CONVENTION[0]][CONVENTION[1]][CONVENTION[2]], rel=1e-5)

"""The seeded weights of the I3D reference values, and the golden values, see ``tests/golden/make.py``."""

import json
import zlib
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from flexivid.metrics.extractors.i3d_checkpoint import tensor_table

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def seeded_array(source, shape):
    normal = np.random.RandomState(zlib.crc32(source.encode())).standard_normal(size=shape)
    last = source.split("/")[-1]
    if last == "w":
        return (normal * np.sqrt(2 / prod(shape[:-1]))).astype(np.float32)
    return (np.exp(0.25 * normal) if last == "moving_variance" else 0.1 * normal).astype(np.float32)


@pytest.fixture(scope="session")
def golden():
    """Arrays by name: logits, pooled features, resized frames."""
    return dict(np.load(GOLDEN / "fvd.npz"))


@pytest.fixture(scope="session")
def golden_numbers():
    """Frechet distances, and a digest of the seeded weights."""
    return json.loads((GOLDEN / "fvd.json").read_text())


@pytest.fixture(scope="session")
def seeded_arrays():
    """Seeded weights by their names in TensorFlow, laid out as there."""
    return {entry.source: seeded_array(entry.source, entry.shape) for entry in tensor_table()}


@pytest.fixture(scope="session")
def seeded_state(seeded_arrays):
    """The same as a state dict."""
    tensors = {entry.name: torch.from_numpy(seeded_arrays[entry.source]) for entry in tensor_table()}
    return {k: v.permute(4, 3, 0, 1, 2).contiguous() if v.ndim == 5 else v for k, v in tensors.items()}

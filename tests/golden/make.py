"""Write ``fvd.npz`` and ``fvd.json``: what independent programs compute, for the tests of FVD's parts.

    python tests/golden/make.py FOLDER_OF_REFERENCE_VALUES

Nothing here is computed by flexivid. The folder holds outputs of other programs, each made once:

* ``logits_16``, ``logits_9``, ``pool_16``: DeepMind's TensorFlow graph (TF-Hub ``deepmind/i3d-kinetics-400/1``) with
  seeded weights in place of the published ones. Tensor ``name`` of shape ``s`` is
  ``z = RandomState(crc32(name)).standard_normal(s)``, times ``sqrt(2 / prod(s[:-1]))`` for a kernel (``.../w``),
  ``exp(z / 4)`` for a variance, else ``z / 10``; ``weights`` is a digest of all of them. Input:
  ``rs = RandomState(20240501)``, then for t = 16, 9, 17 in this order
  ``rs.randint(0, 256, (2, t, 224, 224, 3)).astype(float32) / 127.5 - 1``.
* ``resize_*``: TensorFlow's ``resize_bilinear`` of ``resize_x`` (1, 8, 8, 3) to 28 x 28, by its version 1 (``tf1``) and
  with half-pixel centres (``half_pixel``).
* ``frechet``: distances in float64, covariance with N - 1, by numpy's singular values; scipy's ``sqrtm`` agrees to half
  of its digits. ``feats(seed, n, d, scale=1, shift=0)`` =
  ``RandomState(seed).standard_normal((n, d)) @ M * scale + shift`` in float32, with
  ``M = RandomState(7).standard_normal((d, d)) / sqrt(d)``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CONVENTION = "float64 SVD (low-rank exact), N-1"
ARRAYS = {"logits_16": "seeded_T16_logits", "logits_9": "seeded_T9_logits", "pool_16": "seeded_T16_pool"}
RESIZED = {"resize_x": "x", "resize_tf1": "tf1_legacy", "resize_half_pixel": "tf_half_pixel"}


def digest(tensors: dict[str, str]) -> str:
    """One sha256 of the sha256 of every tensor, in the order of their names."""
    return hashlib.sha256("".join(tensors[name] for name in sorted(tensors)).encode()).hexdigest()


def main(folder: Path) -> None:
    """Collect the values."""
    vectors = np.load(folder / "resize_vectors.npz")
    arrays = {name: np.load(folder / f"{file}.npy") for name, file in ARRAYS.items()}
    arrays |= {name: vectors[key] for name, key in RESIZED.items()}
    np.savez_compressed(HERE / "fvd.npz", **arrays)
    weights = json.loads((folder / "seeded_weights.json").read_text())["sha256_per_tensor_float32_LE_TF_layout"]
    cases = json.loads((folder / "values.json").read_text())["numeric_cases"]
    values = {"weights": digest(weights), "frechet": {name: case[CONVENTION] for name, case in cases.items()}}
    (HERE / "fvd.json").write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Read I3D weights from a file of any known layout, and identify them by checksum.

Layouts: DeepMind's own data file of a TensorFlow checkpoint, by numpy alone; a PyTorch state dict with the names of the
usual ports; safetensors with the names of either. ``i3d_tensors.json`` holds DeepMind's index of the tensors.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flexivid.metrics.extractors.crc32c import crc32c, masked
from flexivid.runtime.weights import read_data

CHECKPOINTS = ("rgb_scratch", "rgb_imagenet")  # the first is the one that FVD is defined with
DATA_FILE = "model.ckpt.data-00000-of-00001"
LAYOUTS = (
    f"DeepMind's {DATA_FILE}, a PyTorch state dict (.pt) with names like Mixed_3b.b0.conv3d.weight, or .safetensors"
)


class TensorEntry(NamedTuple):
    """One tensor of DeepMind's file."""

    source: str  # its name in that file
    name: str  # its name in the state dict of ``I3D``
    shape: tuple[int, ...]  # in that file; convolutions are (t, h, w, in, out)
    offset: int
    num_bytes: int
    crc32c: int  # its checksum, masked as TensorFlow does or not


@cache
def tensor_table(checkpoint: str = CHECKPOINTS[0]) -> tuple[TensorEntry, ...]:
    """All tensors of one of DeepMind's checkpoints, in the order of its file.

    >>> sum(entry.num_bytes for entry in tensor_table())
    50818176
    """
    rows = json.loads(Path(__file__).with_name("i3d_tensors.json").read_text())["rows"]
    column = 5 + CHECKPOINTS.index(checkpoint)
    return tuple(TensorEntry(row[0], row[1], tuple(row[2]), row[3], row[4], row[column]) for row in rows)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a state dict of ``I3D`` from a file, whose suffix tells the layout.

    A warning says so if its weights are not those of FVD; ``ValueError`` if it is damaged, or holds something else.
    """
    right, table = CHECKPOINTS[0], tensor_table()
    is_port = path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
    state = _read_port(path, table) if is_port else _read_data_file(path, table)
    name = identify(state, path)
    if name is None and not is_port:
        raise ValueError(
            f"got {path}, in which no tensor has its checksum; expected the checkpoint {right}; fetch the file again"
        )
    if name != right:
        warnings.warn(
            f"got {path} with {f'the weights {name}' if name else 'weights that are not known'}: published FVD is"
            f" computed with {right}, numbers with these cannot be compared with it",
            stacklevel=2,
        )
    return state


def identify(state: Mapping[str, Tensor], path: str | Path) -> str | None:
    """Name of the checkpoint whose checksums all tensors have; ``None`` if no tensor has that of any.

    ``ValueError`` if some have it and others do not: the file is damaged.
    """
    crcs = {entry.name: crc32c(_to_tensorflow(state[entry.name]).numpy()) for entry in tensor_table()}
    for checkpoint in CHECKPOINTS:
        table = tensor_table(checkpoint)
        wrong = [e.name for e in table if e.crc32c not in (crcs[e.name], masked(crcs[e.name]))]
        if not wrong:
            return checkpoint
        if len(wrong) < len(table):
            raise ValueError(
                f"got {path}, in which {len(wrong)} of {len(table)} tensors have a wrong checksum (first {wrong[0]});"
                f" expected the checkpoint {checkpoint}; fetch the file again"
            )
    return None


def _read_data_file(path: Path, table: Sequence[TensorEntry]) -> dict[str, Tensor]:
    """DeepMind's layout: raw float32 numbers, one tensor after the other."""
    expected = table[-1].offset + table[-1].num_bytes
    size = path.stat().st_size
    if size != expected:
        raise ValueError(
            f"got {path} of {size} bytes; expected {expected} of {DATA_FILE}, or {LAYOUTS}; fetch it again"
        )
    data = np.fromfile(path, np.uint8)
    return {
        entry.name: _to_torch(
            torch.from_numpy(data[entry.offset : entry.offset + entry.num_bytes].view("<f4").reshape(entry.shape))
        )
        for entry in table
    }


def _read_port(path: Path, table: Sequence[TensorEntry]) -> dict[str, Tensor]:
    """The tensors of the table by their names in ``I3D``, float32."""
    content = read_data(path, expected=f"{LAYOUTS}; fetch it again")
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    state = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    if table[0].source in state:
        state = {entry.name: _to_torch(state[entry.source]) for entry in table if entry.source in state}
    first = next((name for name in state if name.endswith(table[0].name)), "")
    prefix = first.removesuffix(table[0].name)  # of wrappers: "module.", "i3d."
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    shapes = {entry.name: _to_torch(torch.empty(entry.shape, device="meta")).shape for entry in table}
    wrong = [name for name, shape in shapes.items() if name not in state or state[name].shape != shape]
    gammas = [name for name, tensor in state.items() if name.endswith(".bn.weight") and not (tensor == 1).all()]
    if wrong or gammas:
        reason = f"{wrong[0]} is not there, or has another shape" if wrong else f"{gammas[0]} is not 1"
        raise ValueError(
            f"got {path}, which is no I3D with 400 classes as DeepMind published it ({reason}, and so for"
            f" {len(wrong or gammas)} tensors); expected {LAYOUTS}; choose another file"
        )
    return {name: state[name].float().contiguous() for name in shapes}


def _to_torch(tensor: Tensor) -> Tensor:
    """Weights of a convolution from (t, h, w, in, out) to (out, in, t, h, w)."""
    return tensor.permute(4, 3, 0, 1, 2).contiguous() if tensor.ndim == 5 else tensor


def _to_tensorflow(tensor: Tensor) -> Tensor:
    return tensor.permute(2, 3, 4, 1, 0).contiguous() if tensor.ndim == 5 else tensor

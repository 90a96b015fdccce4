"""Write the calls that a diffusers pipeline makes of its transformer: data-free distillation for any family.

Text encoder, solver and guidance are as shipped, so latents and times are distributed as in sampling. One row is one
sample of a call; ``training/distillation/recorded_data.py`` reads the folder. Arguments that are the same for all
samples are in ``constants.pt``. For rectified flows the text embeddings are enough (``record_texts``), since
distillation follows the sampling paths itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn

from flexivid.pretrained.families.family import named_call
from flexivid.runtime.paths import resolve_path

SHARED = ("image_rotary_emb", "padding_mask", "ofs")  # tensors without a batch axis, or with one of length 1
LEFT_OUT = ("return_dict", "attention_kwargs")
CONSTANTS = "constants.pt"


def record_calls(
    pipe: Any, folder: str | Path, prompts: Sequence[str], *, per_prompt: int = 2, seed: int = 0, **settings: Any
) -> Path:
    """Run a pipeline once for each prompt, write some calls of each run, drawn at random, and return the folder.

    Files appear when all runs are done. ``ValueError`` if the folder holds others, which training would mix with them.

    Args:
        pipe: Pipeline of diffusers with a transformer in its native mode.
        folder: Made if missing.
        prompts: One run each.
        per_prompt: Calls to write of a run, which must make as many; those of guidance count.
        seed: Of noise and of the choice of calls.
        settings: For the pipeline: ``num_inference_steps``, ``height``, ...
    """
    folder = _folder_for(prompts, folder)
    arrays: dict[str, np.ndarray] = {}
    with _complete_files(folder) as part:
        for number, prompt in enumerate(prompts):
            reservoir = _Reservoir(per_prompt, np.random.default_rng((seed, number)))
            source = torch.Generator().manual_seed(seed + number)
            with pipe.transformer.register_forward_pre_hook(reservoir.take, with_kwargs=True):
                pipe(prompt, generator=source, **{"output_type": "latent", **settings})
            if len(reservoir.calls) < per_prompt:
                raise ValueError(f"got {len(reservoir.calls)} calls in a run; expected {per_prompt}; lower per_prompt")
            if not arrays:
                arrays = _make_files(part, len(prompts), reservoir.calls)
                _refuse_others(folder, [CONSTANTS, *(f"{name}.npy" for name in arrays)])
            for name, array in arrays.items():
                rows = np.concatenate([_rows(call, name) for call in reservoir.calls])
                array[number * len(rows) : (number + 1) * len(rows)] = rows
    return folder


@contextmanager
def _complete_files(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder whose files are moved to ``folder`` at the end: of a run that fails they would be zeros."""
    with TemporaryDirectory(prefix=".", suffix=".part", dir=folder) as part:
        yield Path(part)
        for file in Path(part).iterdir():
            file.replace(folder / file.name)


def _refuse_others(folder: Path, names: Sequence[str]) -> None:
    """Refuse files of another recording, whose rows would be put beside those of this one."""
    others = {file.name for pattern in ("*.npy", CONSTANTS) for file in folder.glob(pattern)} - {*names}
    if others:
        raise ValueError(
            f"got {folder} with {min(others)}; expected no other file than {', '.join(names)}, for training would read"
            " it beside them; name a new folder, or remove the file"
        )


def _folder_for(prompts: Sequence[str], folder: str | Path) -> Path:
    if not prompts:
        raise ValueError("got no prompts; expected at least one; pass some")
    folder = resolve_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class NetworkReachedError(Exception):
    """Ends a run of a pipeline at the first call of its network."""


def record_texts(pipe: Any, folder: str | Path, prompts: Sequence[str], **settings: Any) -> Path:
    """Write the inputs of a pipeline's transformer beside latent and time, without calling it; return the folder.

    Arguments as in :func:`record_calls`. A prompt has one row, or more where the pipeline puts both branches of
    guidance into one call. All texts must have one length.
    """
    folder = _folder_for(prompts, folder)
    calls: list[dict[str, Any]] = []

    def take(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        call = named_call(module, args, kwargs)
        count = len(call["hidden_states"])
        tensors = {name: value for name, value in call.items() if isinstance(value, Tensor) and value.ndim}
        names = [name for name in tensors if name not in (*SHARED, "hidden_states", "timestep")]
        calls.append({name: _on_cpu(tensors[name]) for name in names if len(tensors[name]) == count})
        raise NetworkReachedError

    with pipe.transformer.register_forward_pre_hook(take, with_kwargs=True):
        for prompt in prompts:
            with suppress(NetworkReachedError):
                pipe(prompt, **{"output_type": "latent", **settings})
    shapes = [{name: tuple(value.shape[1:]) for name, value in call.items()} for call in calls]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"got texts of shapes {shapes}; expected one length; set max_sequence_length of the pipeline")
    _refuse_others(folder, [f"{name}.npy" for name in ("latent", *calls[0])])
    with _complete_files(folder) as part:
        for name in calls[0]:
            rows = torch.cat([call[name] for call in calls])
            np.save(part / f"{name}.npy", half_rows(rows, torch.float32).numpy())
    return folder


class _Reservoir:
    """Some calls of a stream, each with the same probability (reservoir sampling)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng, self.seen, self.calls = size, rng, 0, list[dict[str, Any]]()

    def take(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Pre-hook of a forward: store the call, or not."""
        self.seen += 1
        slot = len(self.calls) if len(self.calls) < self.size else int(self.rng.integers(self.seen))
        if slot < self.size:
            call = named_call(model, args, kwargs)
            call = {name: _on_cpu(v) for name, v in call.items() if v is not None and name not in LEFT_OUT}
            self.calls[slot : slot + 1] = [call]


def _on_cpu(value: Any) -> Any:
    return recursively_apply(lambda tensor: tensor.detach().to("cpu", copy=True), value)


def _make_files(folder: Path, num_runs: int, calls: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Map a file for the rows of each argument into memory, with space for all runs; write what all samples share."""
    first, rows = calls[0], len(calls) * len(calls[0]["hidden_states"])
    arrays: dict[str, np.ndarray] = {}
    for name in (name for name, value in first.items() if isinstance(value, Tensor) and name not in SHARED):
        row = _rows(first, name)
        shape = (num_runs * rows, *row.shape[1:])
        arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", row.dtype, shape)
    torch.save({name: value for name, value in first.items() if name not in arrays}, folder / CONSTANTS)
    return arrays


def _rows(call: dict[str, Any], name: str) -> np.ndarray:
    """One argument, (b, ...), floating point in half precision, times in full; a time of all samples is repeated."""
    value, count = call[name], len(call["hidden_states"])
    value = value.expand(count) if value.ndim == 0 else value
    value = value.expand(count, *value.shape[1:]) if len(value) == 1 else value
    if name == "timestep":  # of which bfloat16 and float16 would keep three digits
        return (value.float() if value.is_floating_point() else value).numpy()
    return half_rows(value, None).numpy()


def half_rows(value: Tensor, wider: torch.dtype | None) -> Tensor:
    """Cast numbers to float16 for the disk, since NumPy has no bfloat16; integers stay as they are.

    Numbers that float16 cannot hold become ``wider``, or are refused with a ``ValueError`` without one.

    Example:
        >>> half_rows(torch.tensor([1e6]).bfloat16(), torch.float32)
        tensor([999424.])
    """
    if not value.is_floating_point():
        return value
    half = value.to(torch.float16)
    if torch.equal(half.isfinite(), value.isfinite()):
        return half
    if wider is None:
        raise ValueError(
            f"got numbers up to {value.abs().max().item():g} in a call; expected what float16 holds (65504), in which"
            " calls are written; record with another model"
        )
    return value.to(wider)

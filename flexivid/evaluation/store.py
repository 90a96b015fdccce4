"""What an evaluation has finished, in files: an interrupted one goes on, and ranks hand their work over through it.

Features are kept, exact, 1.6 KB a sample for I3D; videos are not: an mp4 would change the distance, raw pixels would
take a thousand times the room. Only the frames of the first few samples are there, to be looked at. Everything that a
feature depends on is in the name of its folder, so nothing stale is ever read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flexivid.evaluation.samples import Made, Task
from flexivid.model.checkpoint import fingerprint
from flexivid.runtime.files import atomic_write
from flexivid.sampling.plan import Plan


class BlockFolder:
    """Blocks of one kind, each a safetensors file named by its first index; a file appears whole or not at all.

    Args:
        root: The folder that holds those of all kinds.
        facts: Everything that the blocks depend on, plain data.

    Example:
        >>> import tempfile
        >>> blocks = BlockFolder(tempfile.mkdtemp(), {"seed": 0})
        >>> blocks.write([4, 5], {"features": torch.ones(2, 3)})
        >>> blocks.read([4, 5])["features"].shape, blocks.read([4, 5, 6]), blocks.read([0, 1])
        (torch.Size([2, 3]), None, None)
    """

    def __init__(self, root: str | Path, facts: dict[str, Any]) -> None:
        text = json.dumps(facts, sort_keys=True, default=str)
        self.folder = Path(root) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._facts = text

    def has(self, indices: Sequence[int]) -> bool:
        """Whether there is a file for a block; it may be of another length."""
        return self._path(indices).is_file()

    def read(self, indices: Sequence[int]) -> dict[str, Tensor] | None:
        """The tensors of a block; ``None`` if it is not there, damaged, or of other indices."""
        try:
            found = load_file(self._path(indices))
        except (OSError, SafetensorError):
            return None
        return found if "indices" in found and found["indices"].tolist() == list(indices) else None

    def write(self, indices: Sequence[int], tensors: dict[str, Tensor]) -> None:
        """Keep a block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(indices)
        kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with atomic_write(path) as part:  # two ranks may make the same block
            save_file({**kept, "indices": torch.tensor(list(indices))}, part, metadata={"facts": self._facts})

    def _path(self, indices: Sequence[int]) -> Path:
        return self.folder / f"{indices[0]:06d}.safetensors"


class SampleStore:
    """The blocks of a task, those of each plan in a folder of its own: a budget can be added later.

    Args:
        root: The folder, usually ``evaluation/features`` of a run.
        task: What the blocks are of.
    """

    def __init__(self, root: str | Path, task: Task) -> None:
        facts = {
            "checkpoint": fingerprint(task.model),
            "recipe": task.model.recipe,
            "settings": task.settings._asdict(),
            "seed": task.seed,
            "extractor": task.extractor.fingerprint,
            "full": None if task.full is None else str(task.plans[task.full].schedule),
        }
        self._labels = task.labels
        self._plans = [BlockFolder(root, {**facts, "plan": _plan_facts(plan)}) for plan in task.plans]

    def has(self, plan: int, indices: Sequence[int]) -> bool:
        """Whether a block is likely to be there, without opening it."""
        return self._plans[plan].has(indices)

    def read(self, plan: int, indices: Sequence[int]) -> Made | None:
        """The block, if it is there and of the same labels."""
        found = self._plans[plan].read(indices)
        if found is None or not torch.equal(found["labels"], self._labels[list(indices)]):
            return None
        return Made(
            plan,
            found["indices"],
            found["features"],
            found["fidelity"],
            seconds=float(found["seconds"]),
            macs=int(found["macs"]),
            frames=found["frames"],
        )

    def write(self, made: Made) -> None:
        """Keep a block."""
        tensors = {
            "labels": self._labels[made.indices],
            "features": made.features,
            "fidelity": made.fidelity,
            "seconds": torch.tensor(made.seconds, dtype=torch.float64),
            "macs": torch.tensor(made.macs),
            "frames": made.frames,
        }
        self._plans[made.plan].write(made.indices.tolist(), tensors)


def _plan_facts(plan: Plan) -> list[Any]:
    if plan.adaptive is None:
        return [str(plan.schedule), *sorted(plan.sampling.items())]
    adaptive = plan.adaptive
    changes = [None if change is None else change.tolist() for change in adaptive.changes]
    return [str(adaptive), str(adaptive.allowance), adaptive.errors.tolist(), changes]

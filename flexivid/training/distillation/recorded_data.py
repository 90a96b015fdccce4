"""What distillation reads from disk: a folder of arrays, one row a sample, named as the network's arguments.

latent.npy + encoder_hidden_states.npy ...                   noise is added to latents in training
encoder_hidden_states.npy ...                                no data: the teacher's own samples of these texts
hidden_states.npy + timestep.npy + encoder_... + constants.pt    recorded calls (pipelines/record.py)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from flexivid.data.clips.sampler import StepBatchSampler
from flexivid.data.clips.trainer_state import FollowsRun, Run
from flexivid.pipelines.record import CONSTANTS
from flexivid.runtime.paths import is_hidden, resolve_path
from flexivid.runtime.start import seed_or_global
from flexivid.runtime.weights import read_data


def open_array(file: str | os.PathLike[str]) -> np.ndarray:
    """Map the array in a ``.npy`` file into memory; Python objects, which would be code, are a ``ValueError``."""
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        reason = str(error).split(" If you trust")[0]  # numpy goes on with how to run what is in the file
        raise ValueError(
            f"got {file}, which cannot be read ({reason}); expected an array of numbers; write it anew"
        ) from error


class Rows(Dataset):
    """Rows of the memory-mapped ``.npy`` files of a folder; shorter arrays are repeated, empty ones refused."""

    def __init__(self, folder: str | Path) -> None:
        folder = resolve_path(folder)
        files = sorted(file for file in folder.glob("*.npy") if not is_hidden(file.name))
        self.arrays = {file.stem: open_array(file) for file in files}
        self.counts = {name: len(array) for name, array in self.arrays.items()}
        if not self.counts or min(self.counts.values()) == 0:
            raise ValueError(
                f"got folder {folder} without rows in .npy files; expected arrays named as the transformer's arguments"
                " (encoder_hidden_states.npy, ...), with latent.npy where there are latents; write them first"
            )
        path = folder / CONSTANTS
        expected = "what flexivid.convert --prompts wrote; run it again"
        self.constants: dict[str, Any] = read_data(path, expected=expected) if path.is_file() else {}

    def __len__(self) -> int:
        return max(self.counts.values())

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.array(array[row % len(array)])) for name, array in self.arrays.items()}

    def collate(self, rows: list[dict[str, Tensor]]) -> dict[str, Any]:
        """Make a batch, with the constants that all rows share."""
        batch = default_collate(rows)
        return {**batch, "constants": self.constants} if self.constants else batch


class RowLoader(FollowsRun):
    """Batches of rows, from the run's current step on; ``batches`` gives (row, epoch) of every sample of a batch."""

    def __init__(self, rows: Rows, batches: StepBatchSampler, num_workers: int = 0) -> None:
        self.rows, self.batches, self.num_workers = rows, batches, num_workers

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        numbers = ([row for row, _ in batch] for batch in self.batches)
        # all of this runs at the first ``next``, since Lightning calls iter() without using it
        yield from DataLoader(
            self.rows, batch_sampler=numbers, num_workers=self.num_workers, collate_fn=self.rows.collate
        )


class CallArrays(LightningDataModule):
    """Batches for ``FlexiDistillation`` from a folder of arrays, in random order; each rank its share.

    The rows of a step depend on seed and step only, so that a resumed run continues exactly.

    Args:
        folder: See ``Rows``.
        batch_size: Rows of a batch on each rank.
        val_folder: Folder to validate on.
        num_workers: Processes that read the arrays.
        seed: Of the order; ``None`` = that of ``--seed_everything``.
    """

    def __init__(
        self,
        folder: str,
        batch_size: int = 8,
        val_folder: str | None = None,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.batch_size, self.val_folder, self.num_workers = folder, batch_size, val_folder, num_workers
        self.seed = seed_or_global(seed)

    def train_dataloader(self) -> RowLoader:
        """Return batches in random order, shuffled in every epoch; a batch may span two epochs."""
        rows = Rows(self.folder)
        size = min(self.batch_size, len(rows))
        batches = Run(self.trainer).batches([np.arange(len(rows))], lambda step: size, seed=self.seed, epoch_size=size)
        return RowLoader(rows, batches, self.num_workers)

    def val_dataloader(self) -> DataLoader | list:
        if self.val_folder is None:
            return []
        rows = Rows(self.val_folder)
        return DataLoader(rows, self.batch_size, num_workers=self.num_workers, collate_fn=rows.collate)


def read_arrays(folder: str | Path) -> dict[str, Tensor]:
    """Return all arrays of a folder, in memory."""
    return {name: torch.from_numpy(np.array(array)) for name, array in Rows(folder).arrays.items()}

"""Mutated files through the data module: an epoch ends, every clip is right, and memory is bounded."""

import resource
from pathlib import Path

import numpy as np
import pytest

from flexivid.data import VideoDataModule
from tests.data.test_fuzz_decode import MAX_BYTES, mutate, sources, truth

MAX_LEVELS = 4.0  # on average: decoders differ in how they turn YUV into RGB


def fuzz(folder: Path, count: int):
    """Train one epoch on ``count`` mutated files, and return how many were used and how many refused."""
    (folder / "made").mkdir()
    (folder / "mutated").mkdir()
    files, rng = list(sources(folder / "made")), np.random.default_rng(count)
    for number in range(count):
        source = files[number % len(files)]
        path = folder / "mutated" / f"{number:03}{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), rng))
    data = VideoDataModule(
        *(str(folder / "mutated"), 4, 32),
        **{"batch_size": 1, "cache_gib": 0, "max_bad_fraction": 1.0, "num_workers": 2, "max_seconds_per_file": 20},
    )
    data.setup()
    loader = data.train_dataloader()
    wrong, used = [], set()
    for batch, [address] in zip(loader, loader.batches, strict=True):
        request = data.splits.train.plan(address)
        if loader.num_substituted:  # then batches and addresses part ways: the rest only has to come
            continue
        used.add(request.path)
        expected, _ = truth(request.path)
        frames = batch["video"][0].permute(1, 2, 3, 0).numpy().astype(int)
        for frame, index in zip(frames, request.indices, strict=True):
            if index >= len(expected) or np.abs(frame - expected[index]).mean() >= MAX_LEVELS:
                wrong.append((request.path, int(index)))
    data.teardown()
    assert not wrong
    return len(used), data.skipped["bad"]


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:got .* files")
@pytest.mark.filterwarnings("ignore:got .* videos")
def test_an_epoch_of_mutated_files(tmp_path, count):
    used, bad = fuzz(tmp_path, count)
    assert used > count // 20
    assert bad > count // 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MAX_BYTES + (2 << 30)

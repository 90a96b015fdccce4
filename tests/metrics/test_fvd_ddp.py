"""One, two and three processes give one number, whatever the shares, and share one look into the reference cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys, warnings
from pathlib import Path
import torch
from torch import distributed, nn
from torch.multiprocessing import start_processes
from flexivid.metrics.fvd import FrechetVideoDistance
from flexivid.metrics.protocol import Protocol, reference_features

torch.set_num_threads(1)
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])

class Means(nn.Module):
    num_features = 24
    def forward(self, videos):
        return nn.functional.adaptive_avg_pool3d(videos, 2).flatten(1)

def clips(n, seed):
    return torch.rand(n, 3, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1

def distance(num_generated, keep_features, rank, world):
    fvd = FrechetVideoDistance(Means(), keep_features=keep_features)
    for videos, real in ((clips(31, 0), True), (clips(num_generated, 1) * 0.8, False)):
        for batch in videos[rank::world].split(4):
            fvd.update(batch, real)
    found = [fvd.compute().item()]
    scores = fvd.scores(resamples=5) if keep_features else ()
    return found + [number for number in scores if number is not None]

def unequal(rank):
    fvd = FrechetVideoDistance(Means())
    fvd.update(clips(5, 0)[:, :, : 3 + (rank > 0)], real=True)
    try:
        fvd.compute()
    except ValueError as error:
        return str(error)

def reference(name, rank, world):
    protocol, called = Protocol("fvd", "0", "none", 4, 8, 8, 1, 8.0, 2, 7, name), []
    def compute():
        called.append(rank)
        shares = [None] * world
        distributed.all_gather_object(shares, Means()(clips(7, 2)[rank::world]))
        return torch.stack([shares[i % world][i // world] for i in range(7)])
    sums = [reference_features(protocol, compute).double().sum().item() for _ in range(2)]
    return [*sums, len(called)]

def work(rank, world):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world)
    cases = [(n, keep) for n in (37, 30, 2) for keep in (True, False)]  # 2: not one video a rank
    told = {"distances": [distance(*case, rank, world) for case in cases]}
    told["reference"] = reference(f"made by {world}", rank, world)
    if world > 1:
        told["unequal"] = unequal(rank)
    (folder / f"{world}_{rank}.json").write_text(json.dumps(told))
    distributed.destroy_process_group()

for world in (1, 2, 3):
    start_processes(work, args=(world,), nprocs=world, start_method="fork")
"""
WITHOUT = {"NaN": -1.0}  # of an interval that there is not; NaN would not equal itself


@pytest.mark.slow
def test_any_number_of_processes_gives_one_number(tmp_path):
    script = tmp_path / "share.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLEXIVID_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = {path.stem: json.loads(path.read_text(), parse_constant=WITHOUT.get) for path in tmp_path.glob("*.json")}
    assert sorted(told) == ["1_0", "2_0", "2_1", "3_0", "3_1", "3_2"]
    alone = told["1_0"]
    for name, one in told.items():
        for found, truth in zip(one["distances"], alone["distances"], strict=True):
            assert found == pytest.approx(truth, rel=1e-9)
        by_features, by_sums = one["distances"][0::2], one["distances"][1::2]
        assert [row[0] for row in by_features] == pytest.approx([row[0] for row in by_sums], rel=1e-9)
        assert one["distances"] == told[f"{name[0]}_0"]["distances"]  # to the last bit on the ranks of one run
        first, second, num_calls = one["reference"]
        assert first == second == pytest.approx(alone["reference"][0], rel=1e-6)
        assert num_calls == 1
        if name[0] != "1":
            assert "got videos of 3 and 4 frames on different ranks" in one["unequal"]

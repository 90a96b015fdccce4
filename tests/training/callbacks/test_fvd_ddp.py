"""One, two and three processes give the same FVD and the same samples, and one that fails leaves none waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import json, sys, warnings
from pathlib import Path
import torch
from lightning.pytorch import Trainer, seed_everything
from flexivid import FlexiDiTConfig
from flexivid.data.module import VideoDataModule
from flexivid.evaluation import run
from flexivid.training.callbacks import FVDVsBudget, SampleVideos
from flexivid.runtime.distributed import leave_group
from flexivid.training.module import Clips, FlexiDiffusion

torch.set_num_threads(1)
seed_everything(0)
root, folder, devices = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
module = FlexiDiffusion(
    FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("2x4x4", "2x8x8")),
    Clips((4, 16, 16), num_classes=10, batch_size=2),
)
for parameter in module.parameters():
    torch.nn.init.normal_(parameter, std=0.2)
few = {"budgets": [1.0, 0.5], "num_videos": 7, "num_inference_steps": 2}
trainer = Trainer(
    accelerator="cpu", devices=devices, strategy="ddp", max_steps=2, max_epochs=-1, use_distributed_sampler=False,
    callbacks=[SampleVideos(**few), FVDVsBudget(**few, batch_size=2)], default_root_dir=folder, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0, limit_val_batches=1,
)
data = VideoDataModule(root, num_frames=4, size=16, batch_size=2)
trainer.validate(module, data)
if trainer.global_rank == devices - 1:
    def broken(task, blocks, **options):
        raise RuntimeError("out of memory")
    run.evaluate_features = broken
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    trainer.fit(module, data)
told = {"steps": trainer.global_step, "warnings": [str(one.message) for one in caught]}
(folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(told))
leave_group()
"""


@pytest.fixture(scope="module")
def runs(digits_folder, tmp_path_factory):
    """Folders of the same evaluation by one, two and three processes."""
    script = tmp_path_factory.mktemp("ddp") / "evaluate.py"
    script.write_text(textwrap.dedent(SCRIPT))
    alone = {"OMP_NUM_THREADS": "1", "PL_GLOBAL_SEED": ""}
    folders = {}
    for number in (1, 2, 3):
        folders[number] = script.parent / f"on_{number}"
        cache = {"FLEXIVID_CACHE": str(script.parent / f"cache_{number}")}  # no run finds features of another
        environment = {name: value for name, value in {**os.environ, **alone, **cache}.items() if value}
        command = [sys.executable, str(script), str(digits_folder), str(folders[number]), str(number)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return folders


def scores_of(folder):
    evaluation = json.loads((folder / "evaluations" / "step_000000.json").read_text())
    for row in evaluation["budgets"]:
        for one in (row, row["rival"] or {}):
            one.pop("seconds", None)
    return evaluation


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_processes(runs):
    alone = scores_of(runs[1])
    assert alone["metric"] == "fvd[motion]7_4f"
    assert all(row["scores"]["fvd"] > 0 for row in alone["budgets"])
    assert [row["rival"] is None for row in alone["budgets"]] == [True, False]
    assert scores_of(runs[2]) == scores_of(runs[3]) == alone  # seven videos: a multiple of neither


@pytest.mark.slow
def test_samples_do_not_depend_on_the_number_of_processes(runs):
    names = [f"step_000000.{suffix}" for suffix in ("mp4", "png")]
    alone = [(runs[1] / "samples" / name).read_bytes() for name in names]
    for number in (2, 3):
        assert [(runs[number] / "samples" / name).read_bytes() for name in names] == alone


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_process_that_fails_leaves_none_waiting(runs, number):
    told = [json.loads((runs[number] / f"rank{rank}.json").read_text()) for rank in range(number)]
    assert [one["steps"] for one in told] == [2] * number
    assert "no FVD at step 2: out of memory. Training goes on" in told[0]["warnings"]
    assert not (runs[number] / "evaluations" / "step_000002.json").exists()

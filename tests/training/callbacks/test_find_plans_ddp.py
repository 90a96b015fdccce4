"""One, two and three processes find the same step floor and the same plans."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from flexivid.budget.table import read_tables

SCRIPT = """
import sys
from pathlib import Path
import torch
from lightning.pytorch import Trainer, seed_everything
from flexivid import FlexiDiTConfig
from flexivid.data.module import VideoDataModule
from flexivid.calibration import plan_search
from flexivid.training.callbacks import ExportModel, FindPlans, find_plans
from flexivid.runtime.distributed import leave_group
from flexivid.training.module import Clips, FlexiDiffusion
from flexivid.training.optimizer import OptimizerSettings

torch.set_num_threads(1)
seed_everything(0)
find_plans.FEWEST_VIDEOS = plan_search.FEWEST_VIDEOS = 4
find_plans.ENOUGH_STEPS = 4
root, folder, devices = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
module = FlexiDiffusion(
    FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("2x4x4", "2x8x8")),
    Clips((4, 16, 16), num_classes=10, batch_size=2),
    optimizer=OptimizerSettings(learning_rate=0.0),  # the same weights, however many processes
)
for parameter in module.parameters():
    torch.nn.init.normal_(parameter, std=0.2)
trainer = Trainer(
    accelerator="cpu", devices=devices, strategy="ddp", max_steps=1, max_epochs=-1, use_distributed_sampler=False,
    callbacks=[ExportModel(), FindPlans(num_videos=7)], default_root_dir=folder, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0, limit_val_batches=0,
)
trainer.fit(module, VideoDataModule(root, num_frames=4, size=16, batch_size=2))
leave_group()
"""


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(digits_folder, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    found = []
    for number in (1, 2, 3):
        folder = tmp_path / f"on_{number}"
        own = {"OMP_NUM_THREADS": "1", "FLEXIVID_CACHE": str(tmp_path / f"cache_{number}")}
        environment = {name: value for name, value in {**os.environ, **own}.items() if name != "PL_GLOBAL_SEED"}
        command = [sys.executable, str(script), str(digits_folder), str(folder), str(number)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (table,) = read_tables(folder)
        steps = json.loads((folder / "config.json").read_text())["recipe"]["sampling"]["num_inference_steps"]
        found.append((table.step_floor, steps, table.rows))
    assert found[0] == found[1] == found[2]
    assert len(found[0][2]) > 3

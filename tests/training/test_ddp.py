"""Two processes train the mode of each step together, on clips of their own, and end with the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from flexivid.data import VideoDataModule

SCRIPT = """
import hashlib, json, sys
from pathlib import Path
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from flexivid import FlexiDiTConfig
from flexivid.data.module import VideoDataModule
from flexivid.training.callbacks import ExportModel, SampleVideos, Speed
from flexivid.runtime.distributed import leave_group
from flexivid.training.module import Clips, FlexiDiffusion
from flexivid.training.optimizer import OptimizerSettings

class Watch(Callback):
    def __init__(self):
        self.modes, self.batches = [], []
    def on_train_batch_start(self, trainer, module, batch, index):
        self.modes.append(str(module.mode_at(trainer.global_step)))
        self.batches.append([len(batch["video"]), int(batch["video"].sum())])

torch.set_num_threads(1)
seed_everything(0)
folder = Path(sys.argv[2])
module = FlexiDiffusion(
    FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("2x4x4", "2x8x8")),
    Clips((4, 16, 16), num_classes=10, batch_size=2),
    optimizer=OptimizerSettings(name="muon", warmup_steps=1),
)
data = VideoDataModule(sys.argv[1], num_frames=4, size=16, batch_size=2, val_clips=1)  # fewer than ranks
watch, ema = Watch(), EMAWeightAveraging(use_buffers=False, decay=0.9)
samples = SampleVideos([1.0], num_videos=3, num_inference_steps=2)
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_steps=6, max_epochs=-1, use_distributed_sampler=False,
    callbacks=[ema, watch, Speed(2), samples, ExportModel()], default_root_dir=folder, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0, val_check_interval=3,
    check_val_every_n_epoch=None,
)
trainer.fit(module, data)
weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in module.network.parameters())).hexdigest()
told = {"modes": watch.modes, "batches": watch.batches, "weights": weights, "steps": trainer.global_step}
(folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(told))
leave_group()
"""


VALIDATE = """
import json, sys
from pathlib import Path
from lightning.pytorch import Trainer, seed_everything
from flexivid import FlexiDiTConfig
from flexivid.data.module import VideoDataModule
from flexivid.runtime.distributed import leave_group
from flexivid.training.module import Clips, FlexiDiffusion

seed_everything(0)
folder = Path(sys.argv[2])
module = FlexiDiffusion(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("2x4x4",)), Clips((4, 16, 16)))
data = VideoDataModule(
    sys.argv[1], num_frames=4, size=16, batch_size=2, cache_gib=0, max_bad_fraction=0.5, trust_index=True
)
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", use_distributed_sampler=False, default_root_dir=folder, logger=False,
    enable_progress_bar=False,
)
losses = trainer.validate(module, data)
(folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(losses))
leave_group()
"""


def run_two(script, root, folder):
    """Run a script in two processes on a collection, and return what each writes."""
    file = folder / "two.py"
    file.write_text(textwrap.dedent(script))
    alone = {"OMP_NUM_THREADS": "1", "PL_GLOBAL_SEED": ""}
    environment = {name: value for name, value in {**os.environ, **alone}.items() if value}
    command = [sys.executable, str(file), str(root), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def frames(folder, grey):
    folder.mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.full((16, 16, 3), grey + i, np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.slow
def test_a_rank_whose_held_out_clip_is_bad_does_not_stop_the_others(tmp_path):
    root = tmp_path / "videos"
    for number in range(6):
        frames(root / ("val" if number < 2 else "train") / str(number), 40 * number)
    VideoDataModule(str(root), num_frames=4, size=16, cache_gib=0).setup()
    bad = root / "val" / "1" / "2.png"  # good when it was looked at, and bad when it is read
    bad.write_bytes(bytes(bad.stat().st_size))
    first, second = run_two(VALIDATE, root, tmp_path)
    assert first == second
    assert list(first[0]) == ["val/loss_mode/2x4x4"]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, digits_folder):
    first, second = run_two(SCRIPT, digits_folder, tmp_path)
    assert first["steps"] == second["steps"] == 6
    assert first["modes"] == second["modes"]
    assert len(set(first["modes"])) == 2
    sizes = [[size for size, _ in rank["batches"]] for rank in (first, second)]
    assert sizes[0] == sizes[1] == [{"2x4x4": 2, "2x8x8": 8}[mode] for mode in first["modes"]]
    assert all(a != b for (_, a), (_, b) in zip(first["batches"], second["batches"], strict=True))
    assert first["weights"] == second["weights"]
    assert (tmp_path / "model.safetensors").exists()

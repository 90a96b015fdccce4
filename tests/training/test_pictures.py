"""Steps of pictures among those of videos: finite losses, costs of one frame, and a resumed run is the same."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import Callback

from flexivid.budget.cost import macs
from flexivid.patching.shapes import num_tokens
from flexivid.training.modes import ModeChoice
from flexivid.training.objective import GivenFrames

STEPS = 10


class Watch(Callback):
    """Loss, frames, clips and cost of each step."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        frames, count = batch["video"].shape[2], len(batch["video"])
        self.rows.append((outputs["loss"].item(), frames, count, module.step_macs(trainer.global_step - 1)))


def test_a_run_over_both_and_its_resume(tmp_path, make_data, make_module, make_trainer):
    data = make_data()
    settings = {"picture_root": data.root, "picture_share": 0.5}
    torch.manual_seed(0)
    module, watch = make_module(given_frames=GivenFrames(first=0.5)), Watch()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    make_trainer(tmp_path / "whole", STEPS, watch).fit(module, make_data(**settings))
    config, native = module.network.config, module.modes[0]
    for step, (loss, *rest) in enumerate(watch.rows):
        size, mode = (1 if module.picture_steps.at(step) else 4, 16, 16), module.mode_at(step)
        count = 2 * num_tokens((4, 16, 16), native) // num_tokens(size, mode)
        assert math.isfinite(loss)
        assert rest == [size[0], count, count * 3 * macs(config, size, mode)]
    assert {frames for _, frames, _, _ in watch.rows} == {1, 4}

    part, first, second = make_module(given_frames=GivenFrames(first=0.5)), Watch(), Watch()
    part.load_state_dict(start)
    part.horizons = [(0, STEPS)]  # the run is planned for all steps and dies after four
    make_trainer(tmp_path / "part", 4, first).fit(part, make_data(**settings))
    resumed = make_module(given_frames=GivenFrames(first=0.5))
    file = tmp_path / "part" / "checkpoints" / "last.ckpt"
    make_trainer(tmp_path / "part", STEPS, second).fit(resumed, make_data(**settings), ckpt_path=file)
    assert first.rows + second.rows == watch.rows
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_held_out_pictures_have_a_loss_of_their_own(tmp_path, make_data, make_module, make_trainer):
    """That of videos is what it is without pictures; that of pictures what it is where they are the videos."""
    data, module = make_data(), make_module()
    losses = []
    for settings in ({}, {"picture_root": data.root}, {"num_frames": 1, "clips_per_video": 1}):
        trainer = make_trainer(tmp_path / "run", 1, limit_val_batches=1.0)
        trainer.validate(module, make_data(**settings))
        losses.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    alone, both, stills = losses
    names = [name.removeprefix("val/") for name in alone]
    assert {*both} == {*alone, *(f"val/picture_{name}" for name in names)}
    assert both.items() >= alone.items()
    assert {f"val/picture_{name}": stills[f"val/{name}"] for name in names}.items() <= both.items()
    assert all(both[f"val/picture_{name}"] != both[f"val/{name}"] for name in names)


def test_batches_of_pictures_have_as_many_tokens(make_module):
    native, weak = make_module().modes
    assert ModeChoice().batch_size(native, (1, 16, 16), native, 2, native_size=(4, 16, 16)) == 4
    assert ModeChoice().batch_size(weak, (1, 16, 16), native, 2, native_size=(4, 16, 16)) == 16

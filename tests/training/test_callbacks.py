"""Beside the steps: speed as a clock would tell it, a run that fits its minutes, a model that can be loaded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flexivid import load
from flexivid.training.callbacks import ExportModel, FitMinutes, FlexiProgressBar, Speed


class Clock(Callback):
    """A clock that stands still but for so many seconds before each batch and in each step."""

    def __init__(self, *, wait=0.0, work=1.0):
        self.now, self.wait, self.work = 100.0, wait, work

    def perf_counter(self):
        return self.now

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.now += self.work

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.now += self.wait


class Rates(Callback):
    """Keeps the learning rate of every step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[-1]["lr"])


@pytest.fixture
def set_clock(monkeypatch):
    """A function that makes the callbacks look at a clock."""

    def use(**seconds):
        clock = Clock(**seconds)
        monkeypatch.setattr("flexivid.training.callbacks.time", SimpleNamespace(perf_counter=clock.perf_counter))
        return clock

    return use


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_speed_is_what_the_clock_says(tmp_path, make_data, make_module, make_trainer, set_clock):
    module, clock = make_module(), set_clock(wait=3.0, work=1.0)
    make_trainer(tmp_path, 4, Speed(every_n_steps=2), clock).fit(module, make_data())
    logged = scalars(tmp_path)
    samples = sum(module.batch_size_at(step) for step in (2, 3))
    macs = sum(module.step_macs(step) for step in (2, 3))
    assert logged["perf/samples_per_second"][3] == pytest.approx(samples / 8)  # two steps of 3 + 1 seconds
    assert logged["perf/tflops"][3] == pytest.approx(2 * macs / 8 / 1e12)
    assert logged["perf/data_wait_fraction"][3] == pytest.approx(6 / 8)


def test_validation_is_no_training_time(tmp_path, make_data, make_module, make_trainer, set_clock):
    class SlowValidation(Callback):
        def on_validation_start(self, trainer, pl_module):
            clock.now += 1000.0

    clock, often = set_clock(), {"limit_val_batches": 1, "val_check_interval": 2, "check_val_every_n_epoch": None}
    make_trainer(tmp_path, 6, Speed(every_n_steps=2), clock, SlowValidation(), **often).fit(make_module(), make_data())
    assert min(scalars(tmp_path)["perf/samples_per_second"].values()) > 0.5


def test_a_run_fits_its_minutes(tmp_path, make_data, make_module, make_trainer, set_clock):
    module, clock, rates = make_module(), set_clock(), Rates()
    callbacks = {"callbacks": [clock, FitMinutes(2.0), rates], "enable_checkpointing": False, "logger": False}
    trainer = make_trainer(tmp_path, 1000, **callbacks)
    trainer.fit(module, make_data())
    assert trainer.global_step == module.total_steps == 120  # of a second each
    assert clock.now == 100.0 + 120.0
    peak = module.optimizer_settings.learning_rate
    assert max(rates.seen) > 0.9 * peak
    assert 0 <= rates.seen[-1] < 1e-3 * peak
    assert rates.seen[2:] == sorted(rates.seen[2:], reverse=True)  # after the warm-up it only falls
    assert module.plans == [(0, 1000), (40, 120)]  # looked at after 8 steps; 32 more stay as they were


def test_a_fast_run_is_left_alone(tmp_path, make_data, make_module, make_trainer, set_clock):
    module, clock = make_module(), set_clock(work=0.01)
    callbacks = {"callbacks": [clock, FitMinutes(0.005)], "enable_checkpointing": False, "logger": False}
    trainer = make_trainer(tmp_path, 20, **callbacks)
    trainer.fit(module, make_data())
    assert trainer.global_step == 20
    assert module.plans == [(0, 20)]


@pytest.mark.parametrize("minutes", [0, -1])
def test_minutes_must_be_positive(minutes):
    with pytest.raises(ValueError, match=f"got minutes={minutes}; expected more than 0; change FitMinutes.minutes"):
        FitMinutes(minutes)


def test_exported_model_is_the_average_of_the_checkpoint(tmp_path, make_data, make_module, make_trainer):
    make_trainer(tmp_path, 4, ExportModel()).fit(make_module(), make_data())
    exported, last = load(tmp_path).state_dict(), tmp_path / "checkpoints" / "last.ckpt"
    averaged, current = (load(last, ema=ema).state_dict() for ema in (True, False))
    assert all(torch.equal(exported[name], averaged[name]) for name in averaged)
    assert not all(torch.equal(exported[name], current[name]) for name in current)
    recipe = load(tmp_path).recipe
    assert (recipe["size"], recipe["fps"], recipe["global_step"]) == ([4, 16, 16], 16.0, 4)
    assert recipe["class_names"] == [str(digit) for digit in range(10)]


def test_without_averages_the_weights_themselves_are_exported(tmp_path, make_data, make_module, make_trainer):
    module = make_module()
    make_trainer(tmp_path, 2, callbacks=[ExportModel()]).fit(module, make_data())
    exported = load(tmp_path).state_dict()
    assert all(torch.equal(exported[name], tensor) for name, tensor in module.network.state_dict().items())


def test_progress_bar_names_the_mode(tmp_path, make_data, make_module, make_trainer):
    module = make_module()
    trainer = make_trainer(tmp_path, 3, callbacks=[EMAWeightAveraging(use_buffers=False, decay=0.9)])
    trainer.fit(module, make_data())
    shown = FlexiProgressBar().get_metrics(trainer, module)
    assert shown["mode"].strip() == str(module.mode_at(2))
    assert next(iter(shown)) == "mode"
    assert "v_num" not in shown

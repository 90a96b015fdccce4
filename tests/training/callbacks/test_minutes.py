"""A run that fits its minutes, learning rate and phases with it."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback

from flexivid.training.callbacks import FitMinutes


class Rates(Callback):
    """Keeps the learning rate of every step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[-1]["lr"])


def test_a_run_fits_its_minutes(tmp_path, make_data, make_module, make_trainer, set_clock, caplog):
    module, clock, rates = make_module(), set_clock(), Rates()
    callbacks = {"callbacks": [clock, FitMinutes(2.0), rates], "enable_checkpointing": False, "logger": False}
    trainer = make_trainer(tmp_path, 1000, **callbacks)
    with caplog.at_level("INFO"):
        trainer.fit(module, make_data())
    assert "120 steps fit into 2 minutes; a smaller network learns more in so few: conf/model" in caplog.text
    assert trainer.global_step == module.total_steps == 120  # of a second each
    assert clock.now == 100.0 + 120.0
    peak = module.optimizer_settings.learning_rate
    assert max(rates.seen) > 0.9 * peak
    assert 0 <= rates.seen[-1] < 1e-3 * peak
    assert rates.seen[2:] == sorted(rates.seen[2:], reverse=True)  # after the warm-up it only falls
    assert module.horizons == [(0, 1000), (40, 120)]  # looked at after 8 steps; 32 more stay as they were


def test_a_run_that_was_slow_at_first_gets_steps_back(tmp_path, make_data, make_module, make_trainer, set_clock):
    class Faster(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            clock.work = 1.0 if trainer.global_step < 8 else 0.25

    module, clock = make_module(), set_clock()
    callbacks = {"callbacks": [clock, Faster(), FitMinutes(2.0)], "enable_checkpointing": False, "logger": False}
    trainer = make_trainer(tmp_path, 1000, **callbacks)
    trainer.fit(module, make_data())
    totals = [total for _, total in module.horizons]
    assert totals[1] < 150 < 400 < totals[-1] == trainer.global_step
    assert clock.now - 100 == pytest.approx(120, abs=4)


def test_a_fast_run_is_left_alone(tmp_path, make_data, make_module, make_trainer, set_clock):
    module, clock = make_module(), set_clock(work=0.01)
    callbacks = {"callbacks": [clock, FitMinutes(0.005)], "enable_checkpointing": False, "logger": False}
    trainer = make_trainer(tmp_path, 20, **callbacks)
    trainer.fit(module, make_data())
    assert trainer.global_step == 20
    assert module.horizons == [(0, 20)]


def test_batches_that_make_a_step_together_are_no_steps(tmp_path, make_data, make_module, make_trainer, set_clock):
    """Long ones pass two points of the run while the number of steps stands still."""
    module, clock = make_module(), set_clock(work=15.0)
    callbacks = {"callbacks": [clock, FitMinutes(40.0)], "enable_checkpointing": False, "logger": False}
    trainer = make_trainer(tmp_path, 1000, accumulate_grad_batches=4, **callbacks)
    trainer.fit(module, make_data())
    assert module.horizons == [(0, 1000), (40, 72)]  # of a minute each: 40 fit, but 64 more are the fewest
    assert trainer.global_step == 72


@pytest.mark.parametrize("minutes", [0, -1])
def test_minutes_must_be_positive(minutes):
    with pytest.raises(ValueError, match=f"got minutes={minutes}; expected more than 0; change FitMinutes.minutes"):
        FitMinutes(minutes)

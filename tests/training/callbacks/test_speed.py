"""Speed as a clock would tell it."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback

from flexivid.training.callbacks import Speed


@pytest.mark.parametrize("accumulate", [1, 2])
def test_speed_is_what_the_clock_says(tmp_path, make_data, make_module, make_trainer, set_clock, scalars, accumulate):
    module, clock = make_module(), set_clock(wait=3.0, work=1.0)
    options = {"accumulate_grad_batches": accumulate}
    make_trainer(tmp_path, 4, Speed(every_n_steps=2 * accumulate), clock, **options).fit(module, make_data())
    logged = scalars(tmp_path)
    samples = sum(module.batch_size_at(step) for step in (2, 3))
    macs = sum(module.step_macs(step) for step in (2, 3))
    assert logged["perf/samples_per_second"][3] == pytest.approx(samples / 8)  # two steps, each batch of 3 + 1 seconds
    assert logged["perf/tflops"][3] == pytest.approx(2 * macs / 8 / 1e12)
    assert logged["perf/data_wait_fraction"][3] == pytest.approx(6 / 8)


def test_validation_is_no_training_time(tmp_path, make_data, make_module, make_trainer, set_clock, scalars):
    class SlowValidation(Callback):
        def on_validation_start(self, trainer, pl_module):
            clock.now += 1000.0

    clock, often = set_clock(), {"limit_val_batches": 1, "val_check_interval": 2, "check_val_every_n_epoch": None}
    make_trainer(tmp_path, 6, Speed(every_n_steps=2), clock, SlowValidation(), **often).fit(make_module(), make_data())
    assert min(scalars(tmp_path)["perf/samples_per_second"].values()) > 0.5

"""The bar names the mode."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging

from flexivid.training.callbacks import FitMinutes, FlexiProgressBar


def test_progress_bar_names_the_mode(tmp_path, make_data, make_module, make_trainer):
    module = make_module()
    trainer = make_trainer(tmp_path, 3, callbacks=[EMAWeightAveraging(use_buffers=False, decay=0.9)])
    trainer.fit(module, make_data())
    shown = FlexiProgressBar().get_metrics(trainer, module)
    assert shown["mode"].strip() == str(module.mode_at(2))
    assert next(iter(shown)) == "mode"
    assert "v_num" not in shown


class Watched(FlexiProgressBar):
    """Keeps (done, of how many) after every batch, and at the end."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.seen.append((self.train_progress_bar.completed, self.train_progress_bar.total))
        self.words = self.train_progress_bar.description

    def on_train_end(self, trainer, pl_module):
        super().on_train_end(trainer, pl_module)
        self.seen.append((self.train_progress_bar.completed, self.train_progress_bar.total))


def fit(tmp_path, make_data, make_module, make_trainer, steps, *callbacks, **changes):
    bar = Watched()
    settings = {"enable_checkpointing": False, "logger": False, "enable_progress_bar": True, **changes}
    trainer = make_trainer(tmp_path, steps, callbacks=[bar, *callbacks], **settings)
    trainer.fit(make_module(), make_data())
    return trainer, bar


def test_a_run_that_fits_its_minutes_ends_full(tmp_path, make_data, make_module, make_trainer, set_clock):
    trainer, bar = fit(tmp_path, make_data, make_module, make_trainer, 1000, set_clock(), FitMinutes(2.0))
    assert trainer.global_step == 120
    assert bar.seen[0] == (1, 1000)
    assert bar.seen[20] == (21, 120)  # as soon as it is known
    assert bar.seen[-1] == (120, 120)
    assert bar.words.endswith("Epoch 0")


class StopAt(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step == 5


def test_a_run_that_is_stopped_ends_full(tmp_path, make_data, make_module, make_trainer):
    assert fit(tmp_path, make_data, make_module, make_trainer, 30, StopAt())[1].seen[-2:] == [(5, 30), (5, 5)]


def test_batches_that_make_a_step_together_count(tmp_path, make_data, make_module, make_trainer):
    trainer, bar = fit(tmp_path, make_data, make_module, make_trainer, 4, accumulate_grad_batches=3)
    assert trainer.global_step == 4
    assert {total for _, total in bar.seen} == {12}
    assert bar.seen[-1] == (12, 12)


class Dies(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 3:
            raise RuntimeError("the power is off")


def test_a_resumed_run_names_its_epoch_and_ends_full(tmp_path, make_data, make_module, make_trainer):
    with pytest.raises(RuntimeError, match="the power is off"):
        make_trainer(tmp_path, 5, Dies()).fit(make_module(), make_data())
    bar = Watched()
    saves = {"enable_checkpointing": False, "logger": False, "enable_progress_bar": True}
    trainer = make_trainer(tmp_path, 5, callbacks=[bar], **saves)
    trainer.fit(make_module(), make_data(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert bar.words.endswith("Epoch 0")
    assert bar.seen[-1] == (5, 5)

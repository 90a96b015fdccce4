"""The bar names the mode."""

from __future__ import annotations

from lightning.pytorch.callbacks import EMAWeightAveraging

from flexivid.training.callbacks import FlexiProgressBar


def test_progress_bar_names_the_mode(tmp_path, make_data, make_module, make_trainer):
    module = make_module()
    trainer = make_trainer(tmp_path, 3, callbacks=[EMAWeightAveraging(use_buffers=False, decay=0.9)])
    trainer.fit(module, make_data())
    shown = FlexiProgressBar().get_metrics(trainer, module)
    assert shown["mode"].strip() == str(module.mode_at(2))
    assert next(iter(shown)) == "mode"
    assert "v_num" not in shown

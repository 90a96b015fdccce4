"""A model that can be loaded, with averaged weights."""

from __future__ import annotations

import torch

from flexivid import load
from flexivid.training.callbacks import ExportModel


def test_exported_model_is_the_average_of_the_checkpoint(tmp_path, make_data, make_module, make_trainer):
    make_trainer(tmp_path, 4, ExportModel()).fit(make_module(), make_data())
    exported, last = load(tmp_path).state_dict(), tmp_path / "checkpoints" / "last.ckpt"
    averaged, current = (load(last, ema=ema).state_dict() for ema in (True, False))
    assert all(torch.equal(exported[name], averaged[name]) for name in averaged)
    assert not all(torch.equal(exported[name], current[name]) for name in current)
    recipe = load(tmp_path).recipe
    assert (recipe.size, recipe.fps, recipe.global_step) == ((4, 16, 16), 16.0, 4)
    assert recipe.class_names == tuple("0123456789")


def test_without_averages_the_weights_themselves_are_exported(tmp_path, make_data, make_module, make_trainer):
    module = make_module()
    make_trainer(tmp_path, 2, callbacks=[ExportModel()]).fit(module, make_data())
    exported = load(tmp_path).state_dict()
    assert all(torch.equal(exported[name], tensor) for name, tensor in module.network.state_dict().items())

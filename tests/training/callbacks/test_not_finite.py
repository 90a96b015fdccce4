"""What leaves a run is finite: exports, samples, curves and searches refuse a network that is not, with an error."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Callback

from flexivid import load
from flexivid.runtime.finite import NotFiniteError
from flexivid.training.callbacks import ExportModel, FindPlans, FVDVsBudget, SampleVideos

CALLBACKS = {
    "export": (ExportModel, {}, "in weight network"),
    "samples": (SampleVideos, {"budgets": [1.0], "num_videos": 2, "num_inference_steps": 2}, "in sample 0; expected"),
    "curve": (FVDVsBudget, {"budgets": [1.0], "num_videos": 2, "num_inference_steps": 2}, "in sample 0 at budget 1;"),
    "search": (FindPlans, {"num_videos": 2}, "in sample 0; expected"),
}


class Spoil(Callback):
    """Leaves a network that gives NaN when training ends, as no run does by itself."""

    def on_train_end(self, trainer, pl_module):
        torch.nn.init.constant_(next(pl_module.network.parameters()), math.nan)


@pytest.mark.parametrize("kind", CALLBACKS)
def test_a_network_that_is_not_finite_is_an_error(tmp_path, make_data, make_module, make_trainer, kind):
    callback, settings, message = CALLBACKS[kind]
    trainer = make_trainer(tmp_path, 1, Spoil(), callback(**settings))
    with pytest.raises(NotFiniteError, match="got values that are not finite") as error:
        trainer.fit(make_module(), make_data())
    assert message.replace("network", "") in str(error.value)
    made = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not made & {"model.safetensors", "config.json", "schedules.json", "step_000001.mp4", "step_000001.json"}
    load(tmp_path / "checkpoints" / "last.ckpt")  # was written before, and is good


def test_a_checkpoint_that_is_not_finite_is_not_loaded(tmp_path, make_data, make_module, make_trainer):
    make_trainer(tmp_path, 1).fit(make_module(), make_data())
    file = tmp_path / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    name = next(key for key in content["current_model_state"] if key.endswith("weight"))
    content["current_model_state"][name].view(-1)[3] = math.inf
    torch.save(content, file)
    load(file)  # the averages are good
    with pytest.raises(
        NotFiniteError, match=f"got values that are not finite in weight {name[8:]} of .*last.ckpt; exp"
    ):
        load(file, ema=False)
    with pytest.raises(NotFiniteError, match=f"in weight {name} of the checkpoint; expected"):
        make_trainer(tmp_path, 2).fit(make_module(), make_data(), ckpt_path=file)

"""Calls come back from disk as the pipeline made them, and give the network's own answers."""

import pytest
import torch

from flexivid.pipeline.recorded_calls import record_calls
from flexivid.training.arrays import CallArrays, Rows
from tests.pretrained.pipelines import PIPELINES

SETTINGS = {"num_inference_steps": 3, "guidance_scale": 4.0}


def arguments_of(family):
    return {name: value for name, value in PIPELINES[family][1].items() if name != "prompt"} | SETTINGS


@pytest.mark.parametrize("family", ["wan", pytest.param("ltx", marks=pytest.mark.slow)])
def test_calls_come_back(tmp_path, family) -> None:
    pipe = PIPELINES[family][0]()
    pipe.set_progress_bar_config(disable=True)
    heard = []
    hook = pipe.transformer.register_forward_hook(
        lambda model, args, kwargs, out: heard.append((kwargs, out[0])), with_kwargs=True
    )
    record_calls(pipe, tmp_path, ["a cat", "a cat walks"], per_prompt=2, **arguments_of(family))
    hook.remove()
    assert not pipe.transformer._forward_pre_hooks
    rows = Rows(tmp_path)
    batch_size = len(heard[0][0]["hidden_states"])
    assert len(rows) == 2 * 2 * batch_size
    batch = next(iter(CallArrays(str(tmp_path), batch_size=len(rows)).train_dataloader()))
    constants = batch.pop("constants", {})
    batch = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    with torch.no_grad():
        outputs = pipe.transformer(**batch, **constants, return_dict=False)[0]
    answers = torch.cat([answer for _, answer in heard])
    for answer in outputs:  # half precision on disk
        assert (answers - answer).flatten(1).abs().amax(1).min() < 0.02


def test_without_prompts_or_calls(tmp_path) -> None:
    pipe = PIPELINES["wan"][0]()
    with pytest.raises(ValueError, match="got no prompts"):
        record_calls(pipe, tmp_path, [])
    with pytest.raises(ValueError, match="got 6 calls in a run; expected 99"):
        record_calls(pipe, tmp_path, ["a"], per_prompt=99, **arguments_of("wan"))

"""Weak modes inside the real pipelines of diffusers, from disk, switched between steps."""

import inspect

import pytest
import torch
from diffusers import DiffusionPipeline

from flexivid.pretrained.adapter import load_adapter, save_adapter
from flexivid.pretrained.flexify import flexify, set_mode
from tests.pretrained.families import disturb
from tests.pretrained.pipelines import PIPELINES


def sample(pipe, arguments, *modes):
    """What three steps give, the mode of each set before it; without modes, the pipeline as it is."""
    step = iter(range(1, 4))

    def switch(*_):
        if modes:
            set_mode(pipe.transformer, modes[next(step) % 3])
        return {}

    def then_switch(*args, **kwargs):
        result = original(*args, **kwargs)
        switch()
        return result

    has_callback = "callback_on_step_end" in inspect.signature(type(pipe).__call__).parameters
    callback = {"callback_on_step_end": switch} if has_callback else {}
    original = pipe.scheduler.step
    if not has_callback:  # DiTPipeline
        pipe.scheduler.step = then_switch
    if modes:
        set_mode(pipe.transformer, modes[0])
    generator = torch.Generator().manual_seed(3)
    result = pipe(num_inference_steps=3, generator=generator, return_dict=False, **callback, **arguments)[0]
    pipe.scheduler.step = original
    return result


def loaded(folder):
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.slow
@pytest.mark.parametrize("family", PIPELINES)
def test_from_disk_in_every_mode(family, tmp_path) -> None:
    make, arguments, weak = PIPELINES[family]
    make().save_pretrained(tmp_path / "model")
    original = sample(loaded(tmp_path / "model"), arguments)

    pipe = loaded(tmp_path / "model")
    flexify(pipe.transformer, [weak], rank=2, skip=True)
    disturb(pipe.transformer)
    save_adapter(pipe.transformer, tmp_path / "adapter")
    assert torch.equal(sample(pipe, arguments, "native", "native", "native"), original)
    mixed = sample(pipe, arguments, weak, weak, "native")
    assert mixed.shape == original.shape
    assert mixed.isfinite().all()
    assert not torch.equal(mixed, original)

    fresh = loaded(tmp_path / "model")
    load_adapter(fresh.transformer, tmp_path / "adapter")
    assert torch.equal(sample(fresh, arguments, weak, weak, "native"), mixed)

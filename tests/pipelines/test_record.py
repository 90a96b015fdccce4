"""Calls come back from disk as the pipeline made them, and give the network's own answers."""

import pytest
import torch

from flexivid.pipelines.record import half_rows, record_calls, record_texts
from flexivid.training.distillation.recorded_data import CallArrays, Rows
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


@pytest.mark.slow
@pytest.mark.parametrize("family", ["hunyuan", "cosmos"])  # whose times come in the dtype of the latent
def test_calls_in_bfloat16_come_back(tmp_path, family) -> None:
    pipe = PIPELINES[family][0]().to(torch.bfloat16)
    record_calls(pipe, tmp_path, ["a cat"], per_prompt=2, **(arguments_of(family) | {"guidance_scale": 1.0}))
    rows = Rows(tmp_path)
    assert rows.arrays["timestep"].dtype == "float32"
    assert rows.arrays["hidden_states"].dtype == "float16"


def test_numbers_beyond_half_precision_are_kept_or_refused(tmp_path) -> None:
    wide = torch.tensor([[1e6, 1.0]]).bfloat16()
    assert torch.equal(half_rows(wide, torch.float32), wide.float())
    assert half_rows(wide / 1e6, torch.float32).dtype == torch.float16
    with pytest.raises(ValueError, match=r"got numbers up to 999424 in a call; expected what float16 holds"):
        half_rows(wide, None)


def test_without_prompts_or_calls(tmp_path) -> None:
    pipe = PIPELINES["wan"][0]()
    with pytest.raises(ValueError, match="got no prompts"):
        record_calls(pipe, tmp_path, [])
    with pytest.raises(ValueError, match="got 6 calls in a run; expected 99"):
        record_calls(pipe, tmp_path, ["a"], per_prompt=99, **arguments_of("wan"))


def test_texts_without_a_call_of_the_network(tmp_path, monkeypatch) -> None:
    pipe = PIPELINES["wan"][0]()
    pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr(type(pipe.transformer), "forward", lambda *args: pytest.fail("called"))
    record_texts(pipe, tmp_path, ["a cat", "a cat walks"], **arguments_of("wan"))
    assert [path.name for path in tmp_path.iterdir()] == ["encoder_hidden_states.npy"]
    texts = Rows(tmp_path).arrays["encoder_hidden_states"]
    expected = pipe.encode_prompt("a cat walks", max_sequence_length=texts.shape[1])[0]
    assert torch.equal(torch.from_numpy(texts[1]), expected[0].half())
    assert not pipe.transformer._forward_pre_hooks
    with pytest.raises(ValueError, match="got no prompts"):
        record_texts(pipe, tmp_path, [])


def test_a_recording_that_fails_leaves_nothing_and_none_is_mixed_with_another(tmp_path) -> None:
    """Rows that were never written are zeros, which training could not tell from calls."""
    pipe = PIPELINES["wan"][0]()
    pipe.set_progress_bar_config(disable=True)
    arguments = arguments_of("wan")
    record_calls(pipe, tmp_path, ["a cat"], per_prompt=1, **arguments)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="`prompt` has to be"):
        record_calls(pipe, tmp_path, ["a dog", 3], per_prompt=1, **arguments)
    with pytest.raises(ValueError, match=r"got .* with constants.pt; expected no other file than latent.npy, encoder_"):
        record_texts(pipe, tmp_path, ["a cat"], **arguments)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

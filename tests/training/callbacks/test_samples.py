"""Samples while training: from averaged weights, shown as moving pictures, and without a trace in the training."""

from __future__ import annotations

import io
import warnings

import av
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flexivid import FlexiDiTConfig, load
from flexivid.latents import codec
from flexivid.sampling.encoders import codec_of
from flexivid.training.callbacks import FVDVsBudget, SampleVideos, samples
from flexivid.training.modes import ModeChoice
from flexivid.training.module import Clips

VALIDATE = {"limit_val_batches": 1, "val_check_interval": 3, "check_val_every_n_epoch": None}


@pytest.fixture
def sample_videos():
    return SampleVideos(budgets=[1.0, 0.5], num_videos=3, num_inference_steps=2)


def test_tensorboard_shows_moving_pictures(tmp_path, make_data, make_module, make_trainer, sample_videos):
    module = make_module()
    for parameter in module.parameters():  # a new network gives zero, and a GIF joins frames that are the same
        torch.nn.init.normal_(parameter, std=0.2)
    make_trainer(tmp_path, 4, sample_videos, **VALIDATE).fit(module, make_data())
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert {"samples/budget_1", "samples/budget_0.5"} <= set(events.Tags()["images"])
    for tag in ("samples/budget_1", "samples/budget_0.5"):
        shown = events.Images(tag)
        assert [event.step for event in shown] == [3, 4]  # at the validation, and at the end
        with Image.open(io.BytesIO(shown[-1].encoded_image_string)) as picture:
            assert (picture.format, picture.n_frames) == ("GIF", 4)
            assert picture.size == (shown[-1].width, shown[-1].height) == (3 * 64 + 2 * 2, 64)


def test_a_validation_after_the_run_is_shown_too(tmp_path, make_data, noisy_module, make_trainer, sample_videos):
    """The logger is closed by then."""
    trainer = make_trainer(tmp_path, 2, sample_videos, limit_val_batches=1)
    trainer.fit(noisy_module, make_data())
    trainer.validate(noisy_module, make_data())
    events = [EventAccumulator(str(file), size_guidance={"images": 0}).Reload() for file in tmp_path.glob("events.*")]
    images = [event.Images("samples/budget_1") for event in events if "samples/budget_1" in event.Tags()["images"]]
    assert sorted(map(len, images)) == [1, 2]  # the run shows two, and the validation one in a file of its own


def test_files_of_every_round(tmp_path, make_data, make_module, make_trainer, sample_videos):
    make_trainer(tmp_path, 4, sample_videos, **VALIDATE).fit(make_module(), make_data())
    names = {file.name for file in (tmp_path / "samples").iterdir()}
    assert names == {f"step_00000{step}.{suffix}" for step in (3, 4) for suffix in ("mp4", "png")}
    with av.open(str(tmp_path / "samples" / "step_000004.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_the_codec_is_loaded_once_a_run(tmp_path, make_data, make_module, make_trainer, codec_folder, monkeypatch):
    loads, load = [], codec.load_autoencoder
    monkeypatch.setattr(
        codec, "load_autoencoder", lambda *args, **how: loads.append(how["weights"]) or load(*args, **how)
    )
    callbacks = [
        SampleVideos(budgets=[1.0], num_videos=2, num_inference_steps=1),
        FVDVsBudget(budgets=[1.0], num_videos=4, num_inference_steps=1, batch_size=2),
    ]
    module = make_module(
        network=FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4")),
        mode_choice=ModeChoice(),
        clips=Clips(size=(5, 16, 16), num_classes=10, batch_size=2),
        codec=codec_folder,
    )
    make_trainer(tmp_path, 2, *callbacks, **VALIDATE).fit(module, make_data(num_frames=5))
    assert list((tmp_path / "evaluations").iterdir())
    assert loads.count(True) == 1
    assert codec_of(module.network) is module.encoders.codec("cpu")


def test_averaged_weights_are_sampled(tmp_path, make_data, make_module, make_trainer, sample_videos, monkeypatch):
    real, sampled = samples.generate_batches, []

    def watch(model, *args, **kwargs):
        sampled.append((model.training, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        return real(model, *args, **kwargs)

    monkeypatch.setattr(samples, "generate_batches", watch)
    module = make_module()
    make_trainer(tmp_path, 3, sample_videos).fit(module, make_data())
    averaged, current = (load(tmp_path / "checkpoints" / "last.ckpt", ema=ema).state_dict() for ema in (True, False))
    for training, weights in sampled:
        assert not training
        assert all(torch.equal(weights[name], averaged[name]) for name in averaged)
    assert not all(torch.equal(averaged[name], current[name]) for name in averaged)
    assert len(sampled) == 2


def test_training_does_not_notice(tmp_path, make_data, make_module, make_trainer, sample_videos):
    torch.manual_seed(0)
    start = make_module().state_dict()
    for name, callbacks in (("with", [sample_videos]), ("without", [])):
        module = make_module()
        module.load_state_dict(start)
        make_trainer(tmp_path / name, 5, *callbacks, **VALIDATE).fit(module, make_data())
    watched, alone = (load(tmp_path / name / "checkpoints" / "last.ckpt", ema=False) for name in ("with", "without"))
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))


def test_samples_before_the_average_are_refused(tmp_path, make_data, make_module, make_trainer, sample_videos):
    wrong = [sample_videos, EMAWeightAveraging(use_buffers=False, decay=0.9)]
    trainer = make_trainer(tmp_path, 2, callbacks=wrong)
    with pytest.raises(ValueError, match=r"got SampleVideos before EMAWeightAveraging; expected it after, .*; change"):
        trainer.fit(make_module(), make_data())


def test_budget_that_cannot_be_met_is_left_out(tmp_path, make_data, make_module, make_trainer):
    trainer = make_trainer(tmp_path, 1, SampleVideos(budgets=[1.0, 0.01], num_videos=1, num_inference_steps=2))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        trainer.fit(make_module(), make_data())
    assert any("budget 0.01 is left out: got budget 0.01; expected at least" in str(w.message) for w in heard)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["images"] == ["samples/budget_1"]

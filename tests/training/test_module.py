"""A training run is a function of its seed: killed and resumed, it equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flexivid.data.encode_request import EncodeRequest
from flexivid.data.encoding import encode_collection
from flexivid.data.sources.layout import Collection
from flexivid.latents.settings import CodecSettings
from flexivid.media.pixels import to_unit
from flexivid.model.checkpoint import load
from flexivid.model.conditioning import Condition
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.formats import KEY
from flexivid.runtime.ranks import Ranks
from flexivid.training.callbacks import ExportModel
from flexivid.training.modes import ModeChoice, generator_of
from flexivid.training.module import Clips
from flexivid.training.objective import Objective
from tests.latents.spectra import measure_spectrum


class Watch(Callback):
    """Keeps what each step has seen."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        mode = pl_module.mode_at(trainer.global_step - 1)
        self.seen.append((trainer.global_step, str(mode), len(batch["video"]), int(batch["video"].sum())))


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_resumed_equals_uninterrupted(tmp_path, make_data, make_module, make_trainer):
    torch.manual_seed(0)
    whole, watch = make_module(), Watch()
    start = {name: value.clone() for name, value in whole.state_dict().items()}
    trainer = make_trainer(tmp_path / "whole", 8, watch)
    trainer.fit(whole, make_data())

    part, first = make_module(), Watch()
    part.load_state_dict(start)
    part.horizons = [(0, 8)]  # the run is planned for eight steps and dies after three
    make_trainer(tmp_path / "part", 3, first).fit(part, make_data())
    torch.manual_seed(99)
    resumed, second = make_module(), Watch()
    go_on = make_trainer(tmp_path / "part", 8, second)
    go_on.fit(resumed, make_data(), ckpt_path=tmp_path / "part" / "checkpoints" / "last.ckpt")

    assert first.seen + second.seen == watch.seen
    assert len({mode for _, mode, _, _ in watch.seen}) == 2
    expected, got = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "part")
    )
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(expected[key][name], got[key][name]) for name in expected[key])
    assert not all(torch.equal(expected["state_dict"][n], start[n]) for n in start)
    assert expected[KEY]["plans"] == got[KEY]["plans"] == [[0, 8]]
    assert expected[KEY]["spectrum_meter"] == got[KEY]["spectrum_meter"]
    assert expected[KEY]["recipe"]["spectrum"] == got[KEY]["recipe"]["spectrum"]


def test_the_spectrum_is_that_of_the_first_clips(tmp_path, make_data, make_module, make_trainer, monkeypatch):
    """Checkpoint and exported model have it; the run is otherwise the same as one that measures nothing."""
    seen = []

    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(to_unit(batch["video"]))

    losses = []
    for limit in (10, 0):  # clips; 0 measures nothing
        monkeypatch.setattr("flexivid.training.module.SPECTRUM_CLIPS", limit)
        torch.manual_seed(0)
        module = make_module()
        trainer = make_trainer(tmp_path / str(limit), 6, Keep(), ExportModel())
        trainer.fit(module, make_data())
        losses.append(trainer.callback_metrics["train/loss"])
    assert torch.equal(*losses)
    counts = [sum(len(clips) for clips in seen[:n]) for n in range(7)]
    used = next(n for n, count in enumerate(counts) if count >= 10)
    assert used < 6
    expected = measure_spectrum(seen[:used])
    assert load(tmp_path / "10" / "checkpoints" / "last.ckpt").recipe.spectrum == expected
    assert load(tmp_path / "10").recipe.spectrum == expected
    assert expected.size == (4, 16, 16)
    assert module.recipe().spectrum is None
    assert load(tmp_path / "0").recipe.spectrum is None


def test_sums_of_a_spectrum_are_taken_over_where_there_are_any_of_this_size(make_module):
    saved, checkpoint = make_module(), {"global_step": 3}
    saved.spectrum_meter.add(torch.randn(2, 3, *saved.latent_size))
    saved.on_save_checkpoint(checkpoint)
    same, old = make_module(), make_module()
    larger = make_module(clips=Clips((4, 32, 32), num_classes=10, batch_size=2))
    for module in (same, larger):
        module.on_load_checkpoint(checkpoint)
    del checkpoint[KEY]["spectrum_meter"]
    old.on_load_checkpoint(checkpoint)
    assert [module.spectrum_meter.clips for module in (same, larger, old)] == [2, 0, 0]
    assert same.spectrum_meter.spectrum() == saved.spectrum_meter.spectrum()


def test_batches_follow_the_mode(tmp_path, make_data, make_module, make_trainer):
    module, watch = make_module(), Watch()
    make_trainer(tmp_path, 6, watch).fit(module, make_data())
    assert all(size == {"2x4x4": 2, "2x8x8": 8}[mode] for _, mode, size, _ in watch.seen)
    assert {size for _, _, size, _ in watch.seen} == {2, 8}


def test_logs_what_users_look_for(tmp_path, make_data, make_module, make_trainer):
    module = make_module()
    make_trainer(tmp_path, 4, limit_val_batches=1.0, val_check_interval=4, check_val_every_n_epoch=None).fit(
        module, make_data()
    )
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    trained = {f"train/loss_mode/{module.mode_at(step)}" for step in range(4)}
    assert {"train/loss", "train/lr", "train/grad_norm"} | trained <= tags
    assert {"val/loss_mode/2x4x4", "val/loss_mode/2x8x8"} <= tags


def test_trains_without_classes(tmp_path, make_data, make_module, make_trainer, digits_folder):
    data = make_data(root=str(digits_folder / "train" / "3"), val_clips=0)
    module = make_module(clips=Clips(size=(4, 16, 16), num_classes=0, batch_size=2))
    trainer = make_trainer(tmp_path, 2)
    trainer.fit(module, data)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert module.recipe().class_names == ()


@pytest.mark.parametrize("target", ["x0", "velocity", "noise"])
@pytest.mark.parametrize("path", ["flow", "cosine", "linear"])
def test_every_objective_gives_a_finite_loss_and_gradient(path, target, make_module):
    module = make_module(objective=Objective(path=path, target=target))
    x0 = torch.rand(4, 3, 4, 16, 16) * 2 - 1
    losses = module._losses(x0, Condition(torch.arange(4)), module.modes[1], (0, 0), drop=True)
    losses.mean().backward()
    assert losses.shape == (4,)
    assert torch.isfinite(losses).all()
    assert module.network.out.weight.grad.abs().sum() > 0


def test_randomness_differs_between_steps_and_ranks():
    draws = [torch.rand(4, generator=generator_of((0, step, rank, 0))) for step in range(3) for rank in range(3)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 9
    assert torch.equal(draws[4], torch.rand(4, generator=generator_of((0, 1, 1, 0))))


def test_a_shortened_run_keeps_its_past(make_module):
    module = make_module()
    module.horizons = [(0, 1000)]
    past = [module.mode_at(step) for step in range(100)]
    module.replan(150, from_step=100)
    assert [module.mode_at(step) for step in range(100)] == past
    assert module.progress_at(99) == pytest.approx(0.099)
    assert module.progress_at(150) == 1.0


def test_trains_on_latents(tmp_path, make_data, make_module, make_trainer):
    """Losses on encoded clips are those on the videos that they were made of, bit for bit."""
    settings = {"windows": "first", "cache_gib": 0}
    source, clips = Collection(make_data().root), make_data(**settings).settings
    request = EncodeRequest(source, str(tmp_path / "latents"), clips, CodecSettings("pixel"))
    encode_collection(request, torch.device("cpu"), Ranks(0, 1))
    losses = []
    for number, root in enumerate((source.root, request.output)):
        torch.manual_seed(0)
        trainer = make_trainer(tmp_path / str(number), 3, limit_val_batches=1)
        trainer.fit(make_module(), make_data(**settings, root=root))
        losses.append(float(trainer.callback_metrics["train/loss"]))
    assert losses[0] == losses[1]
    note = tmp_path / "latents" / "encoded.json"
    note.write_text(note.read_text().replace('"codec_fingerprint": "pixel"', '"codec_fingerprint": "vae 1"'))
    with pytest.raises(ValueError, match=r"got codec pixel of fingerprint pixel; expected vae 1, .*data\.root"):
        make_trainer(tmp_path / "other", 1).fit(make_module(), make_data(root=request.output))


def test_a_mode_trains_at_its_own_times(make_module, monkeypatch):
    """The network is told times of the mode's range, and of the objective's distribution in other modes."""
    native, weak = make_module().modes[:2]
    choice = ModeChoice(time_ranges={str(weak): (0.7, 1.0)}, time_shifts={str(native): 50.0})
    module, seen = make_module(mode_choice=choice), {}
    module.network.register_forward_pre_hook(lambda _, args: seen.update({args[3]: args[1]}))
    x0, labels = torch.zeros(64, 3, *module.latent_size), torch.zeros(64, dtype=torch.long)
    for mode in (native, weak):
        module._losses(x0, Condition(labels), mode, (0,), drop=False)
    assert 0.7 <= seen[weak].min() < seen[weak].max() <= 1
    assert seen[native].median() > 0.95


def test_a_run_from_before_the_choice_of_resize_goes_on_only_as_it_was(make_module):
    network = FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "1x8x8"), resize="bilinear")
    module, other = make_module(network=network, mode_choice=ModeChoice()), replace(network, resize="area")
    checkpoint = {"global_step": 1}
    module.on_save_checkpoint(checkpoint)
    assert "resize" not in checkpoint[KEY]["model"]
    module.on_load_checkpoint(checkpoint)
    with pytest.raises(
        ValueError, match="got a checkpoint with resize=bilinear for a network with resize=area; expected"
    ):
        make_module(network=other, mode_choice=ModeChoice()).on_load_checkpoint(checkpoint)

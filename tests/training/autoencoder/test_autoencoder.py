"""The autoencoder by the command line: it learns, shows itself, and leaves a folder that is a codec."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from flexivid.latents.causal_autoencoder import AutoencoderConfig
from flexivid.latents.codec import build_codec
from flexivid.media.write import write_video
from flexivid.train import command_line_of, main
from flexivid.training.autoencoder.module import AutoencoderTraining, PerceptualDistance, psnr

CONF = Path(__file__).resolve().parents[3] / "conf" / "autoencoder.yaml"
SMALL = ("--model.autoencoder.width", 24, "--model.autoencoder.depth", 1, "--model.autoencoder.channels", 8)


def waves(clip, frames=16, side=32):
    t, y, x = np.meshgrid(np.arange(frames), np.arange(side), np.arange(side), indexing="ij")
    picture = np.stack([np.sin(0.06 * (x + clip * t) + k) * np.cos(0.04 * y) for k in range(3)], axis=-1)
    return ((picture + 1) * 127.5).astype(np.uint8)


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(4):
        write_video(folder / f"{i}.mp4", waves(i), 8)
    return folder


def run(*words):
    main(["fit", "--config", str(CONF), *map(str, words)])


def test_it_learns_and_leaves_a_codec(videos, tmp_path, capsys):
    settings = ("--data.root", videos, "--data.size", 32, "--data.batch_size", 4, "--trainer.accelerator", "cpu")
    steps = (
        "--trainer.max_steps",
        30,
        "--trainer.val_check_interval",
        15,
        "--trainer.log_every_n_steps",
        1,
        "--trainer.precision",
        "32-true",
    )
    rate = ("--model.optimizer.warmup_steps", 1, "--model.optimizer.learning_rate", 2e-3)
    run(*settings, *steps, *rate, *SMALL, "--data.picture_root", videos, "--data.picture_share", 0.1)
    shown = capsys.readouterr().out
    assert "Epoch 0 " in shown
    assert "/-2" not in shown
    folder = tmp_path / "runs" / "autoencoder" / "version_0"
    codec = build_codec(str(folder / "autoencoder"))
    assert (codec.channels, codec.spatial, codec.temporal) == (8, 4, 4)
    assert {file.name for file in (folder / "reconstructions").iterdir()} >= {"step_000015.png", "step_000030.png"}
    scalars = logged(folder)
    assert np.mean(scalars["train/loss"][-5:]) < 0.7 * np.mean(scalars["train/loss"][:3])
    assert scalars["val/psnr"][-1] > 10
    assert scalars["val/picture_psnr"][-1] > 10
    assert "reconstructions" in scalars["images"]
    video = torch.stack([torch.from_numpy(waves(i))[:9] for i in range(4)]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    latent = codec.encode(video)
    assert 0.3 < latent.std() < 3  # the export normalises


def logged(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 1})
    events.Reload()
    scalars = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars | {"images": events.Tags()["images"]}


def test_clips_that_do_not_fit(videos, capsys):
    with pytest.raises(SystemExit):
        run("--data.root", videos, "--data.num_frames", 8, *SMALL)
    said = capsys.readouterr().err
    assert "got clips of 8 frames of 64x64; expected 4k + 1 frames, such as 9" in said


def test_dry_run_and_every_value(videos, capsys):
    with pytest.raises(SystemExit):
        run("--data.root", videos, "--dry-run")
    assert "3x9x64x64 becomes a latent of 16x3x16x16, 9.0 times fewer numbers" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("--print_config")
    arrived, recipe = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(CONF.read_text())
    for section in ("data", "model"):
        for key, value in recipe[section].items():
            inner = value if isinstance(value, dict) else {None: value}
            got = arrived[section][key]
            assert all((got if name is None else got[name]) == number for name, number in inner.items())


def test_which_command_line():
    words = ["fit", "--config", str(CONF)]
    assert command_line_of(words)[1] == "AutoencoderCLI"
    assert command_line_of(["fit", "--config", str(CONF.with_name("train_video.yaml"))])[1] == "FlexiCLI"


def test_psnr_is_that_of_pixels_between_0_and_1():
    video, other = torch.rand(3, 3, 2, 4, 4) * 2 - 1, torch.rand(3, 3, 2, 4, 4) * 2 - 1
    error = ((video - other) / 2).square().flatten(1).mean(1)
    assert torch.allclose(psnr(video, other), -10 * error.log10(), atol=1e-4)


def test_perceptual_distance_grows_with_blur_and_has_a_gradient():
    distance, video = PerceptualDistance(), torch.rand(1, 3, 5, 32, 32) * 2 - 1
    blurred = [torch.nn.functional.avg_pool3d(video, (1, k, k), 1, (0, k // 2, k // 2)) for k in (3, 7)]
    values = [distance(x, video).item() for x in (video, *blurred)]
    assert values[0] == 0 < values[1] < values[2]
    moving = blurred[0].clone().requires_grad_()
    distance(moving, video).backward()
    assert moving.grad.abs().sum() > 0
    assert distance(video[:, :, :1], video[:, :, :1]).item() == 0


def test_the_perceptual_network_is_not_a_part_of_the_module():
    module = AutoencoderTraining(AutoencoderConfig(width=8, depth=1))
    assert not [name for name, _ in module.named_parameters() if not name.startswith("network.")]


def test_the_guard_knows_the_loss_of_predicting_zero():
    module = AutoencoderTraining(AutoencoderConfig(width=8), clip_size=(5, 16, 16))
    module.log = lambda *_, **__: None
    module.training_step({"video": torch.full((1, 3, 5, 16, 16), 255, dtype=torch.uint8)}, 0)
    # errors of 1 everywhere, by the Huber loss over its delta, and the whole weight of the perceptual term
    assert module.zero_loss.item() == pytest.approx(1 - 0.1 / 2 + 0.05)

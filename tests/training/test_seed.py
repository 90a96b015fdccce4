"""One number, ``--seed_everything``, drives everything random in a training; a part with a seed of its own keeps it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from flexivid.data.module import VideoDataModule
from flexivid.runtime.start import seed_or_global
from flexivid.train import main
from flexivid.training import module as training
from flexivid.training.distillation.module import FlexiDistillation
from flexivid.training.distillation.recorded_data import CallArrays
from flexivid.training.distribution_matching import Matching
from flexivid.training.modes import ModeChoice
from flexivid.training.module import FlexiDiffusion

STREAMS = ("weights", "clips", "modes", "times", "matching_starts", "matching_noise")
STEPS = range(40)
SETTINGS: dict[str, Any] = {
    "data": {"num_frames": 4, "size": 16, "batch_size": 2},
    "model": {
        "network": {"width": 32, "depth": 1, "num_heads": 2, "modes": ["2x4x4", "2x8x8"]},
        "mode_choice": {"phases": [{"probabilities": {"native": 0.8, "weak": 0.2}}]},
        "objective": {"matching": {"weight": 1.0, "share": 0.9}},
        "sampling": {"num_inference_steps": 4},
    },
    "trainer": {
        **{"max_steps": 4, "max_epochs": -1, "accelerator": "cpu", "devices": 1, "logger": False},
        **{"enable_progress_bar": False, "enable_checkpointing": False, "limit_val_batches": 0},
        **{"num_sanity_val_steps": 0, "precision": "32-true", "use_distributed_sampler": False},
    },
}


@pytest.fixture
def train(digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, list[Any]]]:
    """A function that runs a training of four steps and returns what was drawn in each stream."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    Path("run.yaml").write_text(yaml.safe_dump(SETTINGS))
    drawn: dict[str, list[Any]] = {}
    step, discrepancy, denoising_loss = FlexiDiffusion.training_step, training.discrepancy, training.denoising_loss

    def training_step(self: FlexiDiffusion, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.global_step == 0:
            drawn["weights"] = [parameter.detach().sum().item() for parameter in self.network.parameters()]
            drawn["modes"] = [str(self.mode_at(number)) for number in STEPS]
            drawn["matching_starts"] = [self.matching.start(number, self.modes, 4) for number in STEPS]
        drawn["clips"].append(batch["video"].float().mean().item())
        return step(self, batch, batch_idx)

    def record_times(*arguments: Any, time: torch.Tensor, **settings: Any) -> torch.Tensor:
        drawn["times"].append(time.tolist())
        return denoising_loss(*arguments, time=time, **settings)

    def record_noise(call: Any, process: Any, matching: Any, x0: Any, noises: Any, *rest: Any) -> torch.Tensor:
        drawn["matching_noise"].append([noise.sum().item() for noise in noises])
        return discrepancy(call, process, matching, x0, noises, *rest)

    def run(*words: str) -> dict[str, list[Any]]:
        drawn.update({name: [] for name in STREAMS})
        main(["fit", "--config", "run.yaml", "--data.root", str(digits_folder), *words])
        return dict(drawn)

    monkeypatch.setattr(FlexiDiffusion, "training_step", training_step)
    monkeypatch.setattr(training, "denoising_loss", record_times)
    monkeypatch.setattr(training, "discrepancy", record_noise)
    return run


def test_seed_everything_drives_every_stream(train: Callable[..., dict[str, list[Any]]]) -> None:
    first, again, other = (train(f"--seed_everything={seed}") for seed in (1, 1, 2))
    assert all(first[name] for name in STREAMS)
    assert first == again
    assert [name for name in STREAMS if first[name] == other[name]] == []


def test_a_part_with_a_seed_of_its_own_keeps_it(train: Callable[..., dict[str, list[Any]]]) -> None:
    words = ["--data.seed=5", "--model.mode_choice.seed=5", "--model.objective.matching.seed=5"]
    first, other = (train(f"--seed_everything={seed}", *words) for seed in (1, 2))
    assert [name for name in STREAMS if first[name] != other[name]] == ["weights"]
    default = train("--seed_everything=1")
    assert [name for name in STREAMS if default[name] == first[name]] == ["weights"]


def test_parts_take_the_seed_when_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeds() -> list[int | None]:
        data = VideoDataModule("videos").settings.seed
        distillation = FlexiDistillation("wan", ["1x4x4"])
        return [data, CallArrays("folder").seed, distillation.seed, distillation.mode_choice.seed]

    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert seeds() == [7] * 4
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert seeds() == [0] * 4
    assert seed_or_global(3) == 3
    assert "PL_GLOBAL_SEED" not in os.environ


def test_without_a_seed_the_draws_are_those_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert ModeChoice().check([]).seed == Matching().check([], 1).seed == 0

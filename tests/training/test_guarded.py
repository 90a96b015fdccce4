"""A bad step changes nothing but counters; a diverging run goes back, then stops; checkpoints stay good."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader, Dataset

from flexivid import load
from flexivid.training.bad_steps import BadSteps, DivergedError
from flexivid.training.callbacks import ExportModel
from flexivid.training.last_good import fault_of
from flexivid.training.optimizer import OptimizerSettings

SIZE = (3, 4, 16, 16)


class Latents(Dataset):
    """A latent for each number, which some change."""

    def __init__(self, change: Callable[[int, torch.Tensor], torch.Tensor] = lambda number, latent: latent) -> None:
        self.change = change

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, number: int) -> dict[str, Any]:
        latent = torch.randn(SIZE, generator=torch.Generator().manual_seed(number)).clamp(-1, 1)
        return {"latent": self.change(number, latent), "label": number % 10}


def spoilt(numbers: set[int], value: float) -> Latents:
    """Latents of which some hold a value that is not finite."""

    def change(number: int, latent: torch.Tensor) -> torch.Tensor:
        if number in numbers:
            latent[0, 1, 2, 3] = value
        return latent

    return Latents(change)


def trainer_of(folder: Path, steps: int, *callbacks: Any, every: int = 1, **changes: Any) -> Trainer:
    saves = ModelCheckpoint(dirpath=folder / "checkpoints", save_last=True, save_top_k=0, every_n_train_steps=every)
    average = [] if any(isinstance(other, EMAWeightAveraging) for other in callbacks) else [EMA()]
    settings = {
        "max_steps": steps, "max_epochs": -1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "callbacks": [*average, *callbacks, saves], "gradient_clip_val": 1.0,
        "default_root_dir": folder,
    }  # fmt: skip
    return Trainer(**{**settings, **changes})


def EMA() -> EMAWeightAveraging:
    return EMAWeightAveraging(use_buffers=False, decay=0.9)


def batches(data: Dataset) -> DataLoader:
    return DataLoader(data, batch_size=2)


class Without(Callback):
    """Reference: an optimizer step is left out by other means."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == self.step:
            optimizer.zero_grad()
            pl_module.on_before_optimizer_step = lambda optimizer: pl_module._loss_pairs.clear()
        elif "on_before_optimizer_step" in vars(pl_module):
            del pl_module.on_before_optimizer_step


class AverageWithout(EMAWeightAveraging):
    def __init__(self, step: int) -> None:
        super().__init__(use_buffers=False, decay=0.9)
        self.step = step

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx != self.step and super().should_update(step_idx, epoch_idx)


class SpoiltGradient(Callback):
    """One number of one gradient, in one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.step:
            next(pl_module.network.parameters()).grad.view(-1)[0] = math.inf


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(a: Any, b: Any, at: str = "") -> None:
    assert type(a) is type(b), at
    if isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            assert_same(a[key], b[key], f"{at}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), at
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{at}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), at
    else:
        assert a == b, at


def both_ends(tmp_path, make_module, step: int, kind: str, name: str, accumulate: int, seed: int) -> None:
    """Train with a bad batch, and without its step; the ends must be the same."""
    per_step = 2 * accumulate
    number = step * per_step + seed % per_step  # a clip of the step
    data = {"nan": spoilt({number}, math.nan), "infinite": spoilt({number}, math.inf)}.get(kind, Latents())
    common: dict[str, Any] = {"accumulate_grad_batches": accumulate}
    ends = []
    for part, source, callbacks in (
        ("bad", data, [SpoiltGradient(step)] if kind == "gradient" else []),
        ("without", Latents(), [AverageWithout(step), Without(step)]),
    ):
        torch.manual_seed(seed)
        module = make_module(optimizer=OptimizerSettings(name=name, learning_rate=1e-2, warmup_steps=2))
        module.spectrum_meter.limit = 0
        trainer = trainer_of(tmp_path / part, 6, *callbacks, every=6, **common)
        trainer.fit(module, batches(source))
        ends.append((module, state_of(tmp_path / part)))
    (bad, with_bad), (_, without) = ends
    assert (bad.record.bad, bad.record.good) == (1, 5)
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert_same(with_bad[key], without[key], key)


CASES = [
    (0, "nan", "muon", 1), (5, "infinite", "adamw", 1), (2, "gradient", "muon", 1), (3, "nan", "adamw", 3),
    (1, "gradient", "adamw", 2),
]  # fmt: skip


@pytest.mark.parametrize(("step", "kind", "name", "accumulate"), CASES)
def test_a_bad_step_is_as_if_it_had_not_been(tmp_path, make_module, step, kind, name, accumulate):
    both_ends(tmp_path, make_module, step, kind, name, accumulate, seed=step)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_fifty_runs_with_one_bad_batch(tmp_path, make_module, seed):
    step, kind = (5 * seed) % 6, ("nan", "infinite", "gradient")[seed % 3]
    both_ends(tmp_path, make_module, step, kind, ("muon", "adamw")[seed % 2], 1 + seed // 2 % 3, seed)


def stopped(tmp_path, module, data: Dataset, steps: int, *callbacks: Any, **changes: Any) -> str:
    """The message of a run that must not end well; it exports nothing."""
    trainer = trainer_of(tmp_path, steps, *callbacks, ExportModel(), **changes)
    with pytest.raises(DivergedError) as error:
        trainer.fit(module, batches(data))
    assert not (tmp_path / "model.safetensors").exists()
    return str(error.value)


@pytest.mark.parametrize("warmup", [2, 100])
@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_rate_a_thousand_times_too_high_does_not_end_well(tmp_path, make_module, name, warmup, recwarn):
    """No number need be infinite for that: losses are far above those of predicting nothing, or end above them."""
    torch.manual_seed(0)
    optimizer = OptimizerSettings(name=name, learning_rate=2.0, muon_learning_rate=5.0, warmup_steps=warmup)
    message = stopped(tmp_path, make_module(optimizer=optimizer), Latents(), 40)
    assert re.match(r"got (1\d|2\d) bad steps (in a row|among)|got predictions that are worse", message)
    assert "; lower model.optimizer.learning_rate, or look at the clips of these steps; " in message
    told = [str(warning.message) for warning in recwarn]
    assert any("times that of predicting nothing (" in line for line in told)
    good = tmp_path / "checkpoints" / "last_good.ckpt"
    assert message.endswith(f"the last good checkpoint is {good}" if good.exists() else "there is no good checkpoint")
    if good.exists():
        assert fault_of(good) == ""
        assert torch.load(good, weights_only=True)["bad_steps"]["in_a_row"] == 0


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_rate_that_suits_ends_well(tmp_path, make_module, name):
    torch.manual_seed(0)
    module = make_module(optimizer=OptimizerSettings(name=name, learning_rate=2e-3, warmup_steps=2))
    trainer_of(tmp_path, 40, ExportModel()).fit(module, batches(Latents()))
    assert (module.record.bad, module.record.recent < 1) == (0, True)
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_latents_that_are_never_finite_stop_the_run(tmp_path, make_module, value):
    start = make_module()
    before = {key: tensor.clone() for key, tensor in start.state_dict().items()}
    message = stopped(tmp_path, start, spoilt(set(range(4096)), value), 40, every=5)
    assert "10 bad steps in a row" in message
    assert all(torch.equal(before[key], tensor) for key, tensor in start.state_dict().items())


def test_going_back_takes_the_weights_of_the_checkpoint(tmp_path, make_module, recwarn):
    """From step 6 on everything is bad, up to step 9; three in a row go back to step 4, and the run ends well."""
    bad = set(range(12, 18))
    module = make_module(optimizer=OptimizerSettings(warmup_steps=2, bad_steps=BadSteps(in_a_row=3)))
    seen: dict[int, dict[str, torch.Tensor]] = {}

    class Keep(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen[trainer.global_step] = {k: v.clone() for k, v in pl_module.state_dict().items()}

    trainer_of(tmp_path, 16, Keep(), every=4).fit(module, batches(spoilt(bad, math.nan)))
    assert (module.record.bad, module.record.good, module.record.rewinds) == (3, 13, 1)
    for name, tensor in seen[9].items():
        assert torch.equal(tensor, seen[4][name])  # those of the checkpoint of step 4
    assert not all(torch.equal(tensor, seen[8][name]) for name, tensor in seen[9].items())
    assert state_of(tmp_path)["global_step"] == 16


@pytest.mark.parametrize(
    ("bad", "ends_well"), [({6}, True), ({22}, True), ({18, 20, 22}, False), (set(range(24)), False)]
)
def test_how_a_short_run_ends(tmp_path, make_module, bad, ends_well):
    data = spoilt(bad, math.nan)
    if ends_well:
        trainer_of(tmp_path, 12, ExportModel()).fit(make_module(), batches(data))
        assert load(tmp_path).recipe.global_step == 12
    else:
        assert "bad steps in a row" in stopped(tmp_path, make_module(), data, 12)


def test_too_large_a_share_of_bad_steps_stops_the_run(tmp_path, make_module):
    module = make_module(optimizer=OptimizerSettings(warmup_steps=2, bad_steps=BadSteps(in_a_row=4)))
    message = stopped(tmp_path, module, spoilt(set(range(0, 4096, 6)), math.inf), 100)
    assert "got 5 bad steps among 13 until step 13" in message


def test_bad_steps_are_shown(tmp_path, make_module, recwarn):
    trainer = trainer_of(tmp_path, 8)
    trainer.fit(make_module(), batches(spoilt({4, 8}, math.nan)))
    assert trainer.callback_metrics["train/bad_steps"] == trainer.progress_bar_metrics["train/bad_steps"] == 2
    assert any(
        str(warning.message) == "step 2 is bad: loss not finite, gradient not finite; it was skipped (1 in a row, 1 in"
        " all); its batch holds values that are not finite in latent"
        for warning in recwarn
    )


def test_the_count_goes_on_after_a_resume(tmp_path, make_module):
    data = spoilt({4}, math.nan)
    trainer_of(tmp_path, 4).fit(make_module(), batches(data))
    module = make_module()
    trainer_of(tmp_path, 6).fit(module, batches(data), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert (module.record.bad, module.record.good + module.record.bad) == (1, 6)


def test_half_precision_keeps_its_scale_where_the_data_is_bad(tmp_path, make_module):
    """GradScaler halves its scale when gradients overflow; a clip that is not finite says nothing of the scale."""
    scales = []
    for bad in (set(), {6}):
        torch.manual_seed(0)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1000)
        module = make_module()
        trainer_of(tmp_path / str(len(bad)), 6, plugins=[MixedPrecision("16-mixed", "cpu", scaler)]).fit(
            module, batches(spoilt(bad, math.nan))
        )
        scales.append((scaler.get_scale(), module.record.bad))
    assert scales == [(8.0, 0), (8.0, 1)]


def test_a_scale_that_is_too_high_is_not_counted(tmp_path, make_module):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=1000)
    module = make_module()
    trainer_of(tmp_path, 30, plugins=[MixedPrecision("16-mixed", "cpu", scaler)]).fit(module, batches(Latents()))
    assert module.record.bad == 0
    assert scaler.get_scale() < 2.0**30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_a_row": 0}, "got in_a_row=0; expected 1 or more; change model.optimizer.bad_steps.in_a_row"),
        ({"rewinds": -1}, "got rewinds=-1; expected 0 or more"),
        ({"share": 0.0}, "got share=0.0; expected a fraction in"),
        ({"explosion": 1.0}, "got explosion=1.0; expected more than 1"),
    ],
)
def test_settings_out_of_range(make_module, changes, message):
    with pytest.raises(ValueError, match=message):
        make_module(optimizer=OptimizerSettings(bad_steps=BadSteps(**changes)))

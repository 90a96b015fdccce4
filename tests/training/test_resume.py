"""A run that goes on trains by the settings of now, or refuses them; none is passed over."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging

from flexivid import FlexiDiTConfig
from flexivid.model.formats import KEY
from flexivid.training.callbacks import FitMinutes
from flexivid.training.distribution_matching import Matching
from flexivid.training.modes import ModeChoice, Phase
from flexivid.training.objective import Objective
from flexivid.training.optimizer import OptimizerSettings, rate_factor

BEFORE = OptimizerSettings(name="muon", learning_rate=1e-3, muon_learning_rate=2e-3, warmup_steps=2)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Watch(Callback):
    """Settings of the optimizer, the mode and the batch of each step."""

    def __init__(self):
        self.groups, self.modes, self.videos = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.groups.append([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.modes.append(str(pl_module.mode_at(trainer.global_step)))
        self.videos.append(batch["video"].clone())


@pytest.fixture
def go_on(tmp_path, make_data, make_module, make_trainer):
    """Four steps, and on with changes; gives what the rest has seen, its trainer and module."""

    def go(module_changes=None, trainer_changes=None, *, steps=8, data=None, first=None, callbacks=()):
        folder = tmp_path / f"run_{len(list(tmp_path.glob('run_*')))}"
        begin = make_trainer(folder, 4, **(first or {}))
        begin.fit(make_module(optimizer=BEFORE), make_data())
        watch, module = Watch(), make_module(**{"optimizer": BEFORE, **(module_changes or {})})
        trainer = make_trainer(folder, steps, watch, *callbacks, **(trainer_changes or {}))
        trainer.fit(module, make_data(**(data or {})), ckpt_path=folder / "checkpoints" / "last.ckpt")
        return watch, trainer, module

    return go


def test_settings_of_the_optimizer_take_effect(go_on):
    now = replace(
        BEFORE, learning_rate=3e-4, muon_learning_rate=5e-4, betas=(0.7, 0.8), weight_decay=0.3, warmup_steps=6,
        final_fraction=0.5,
    )  # fmt: skip
    watch, _, module = go_on({"optimizer": now})
    for step, groups in enumerate(watch.groups, start=4):
        factor = rate_factor(step, module.progress_at(step), now)
        assert [group["lr"] for group in groups] == pytest.approx([rate * factor for rate in (5e-4, 3e-4, 3e-4)])
        assert [group["weight_decay"] for group in groups] == [0.3, 0.3, 0.0]
        assert [group.get("betas") for group in groups] == [None, (0.7, 0.8), (0.7, 0.8)]
    assert len(watch.groups) == 4


def test_modes_and_their_seed_take_effect(go_on):
    choice = ModeChoice(phases=[Phase(1.0, {"2x8x8": 1.0})], seed=5)
    watch, *_ = go_on({"mode_choice": choice})
    assert watch.modes == ["2x8x8"] * 4


@pytest.mark.parametrize(
    "data", [{"batch_size": 3}, {"seed": 9}, {"size": 24}, {"num_frames": 6}, {"flip": True, "seed": 1}]
)
def test_settings_of_the_data_take_effect(go_on, make_module, make_data, data):
    from flexivid.training.cli import clips_of

    clips = clips_of(make_data(**data))
    watch, _, module = go_on({"clips": clips}, data=data)
    plain, *_ = go_on()
    sizes = {"2x4x4": clips.batch_size, "2x8x8": 4 * clips.batch_size}
    assert [len(video) for video in watch.videos] == [sizes[mode] for mode in watch.modes]
    assert not all(
        one.shape == other.shape and torch.equal(one, other)
        for one, other in zip(watch.videos, plain.videos, strict=True)
    )
    assert module.recipe().size == tuple(clips.size)


def test_the_decay_of_the_average_takes_effect(go_on, make_trainer, tmp_path):
    """With a decay of 0 the average is the weights."""
    run = tmp_path / "run_0"
    saves = make_trainer(run, 1).checkpoint_callback
    callbacks = [EMAWeightAveraging(use_buffers=False, decay=0.0), saves]
    go_on(trainer_changes={"callbacks": callbacks})
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 8
    for name, tensor in state["current_model_state"].items():
        torch.testing.assert_close(state["state_dict"][name], tensor)


def test_without_averages_a_run_goes_on_from_the_weights_themselves(go_on, make_trainer, tmp_path):
    run = tmp_path / "run_0"
    saves = make_trainer(run, 1).checkpoint_callback
    seen = {}

    class Start(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.update({k: v.clone() for k, v in pl_module.state_dict().items()})
            self.before = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"]

    start = Start()
    go_on(trainer_changes={"callbacks": [start, saves]})
    assert all(torch.equal(seen[name], tensor) for name, tensor in start.before.items())


def test_another_precision_and_accumulation_take_effect(go_on):
    watch, trainer, _ = go_on(trainer_changes={"precision": "bf16-mixed", "accumulate_grad_batches": 2})
    assert (trainer.precision, trainer.global_step, len(watch.videos), len(watch.groups)) == ("bf16-mixed", 8, 8, 4)


def test_more_steps_take_effect_and_fewer_too(go_on):
    for steps in (12, 6):
        _, trainer, module = go_on(steps=steps)
        assert (trainer.global_step, module.total_steps, module.horizons[-1]) == (steps, steps, (4, steps))


class Shortened(Callback):
    """As ``FitMinutes`` does where the time is short."""

    def on_train_start(self, trainer, pl_module):
        pl_module.replan(6, from_step=2)
        trainer.fit_loop.epoch_loop.max_steps = 6


def test_without_its_minutes_a_shortened_run_gets_its_steps_back(tmp_path, make_data, make_module, make_trainer):
    """Or the learning rate would stay at the end of the shorter plan for the rest."""
    stop = make_trainer(tmp_path, 20, Shortened(), limit_train_batches=4, max_epochs=1)
    stop.fit(make_module(optimizer=BEFORE), make_data())
    watch, module = Watch(), make_module(optimizer=BEFORE)
    file = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(file, weights_only=True)[KEY]["plans"][-1] == [2, 6]
    trainer = make_trainer(tmp_path, 20, watch)
    trainer.fit(module, make_data(), ckpt_path=file)
    assert trainer.global_step == module.total_steps == 20
    rates = [groups[0]["lr"] for groups in watch.groups]
    assert min(rates) > 0
    assert rates == pytest.approx([2e-3 * rate_factor(step, step / 20, BEFORE) for step in range(4, 20)])


def test_its_minutes_are_those_of_now(go_on):
    minutes = FitMinutes(minutes=5)
    _, trainer, _ = go_on(callbacks=[minutes])
    assert (minutes.minutes, trainer.global_step) == (5, 8)


REFUSED = {
    "optimizer": ({"optimizer": replace(BEFORE, name="adamw")}, {}, {}, "got model.optimizer.name=adamw for a checkpo"),
    "target": ({"objective": Objective(target="velocity")}, {}, {}, "got a checkpoint with process {'path': 'flow', "),
    "path": ({"objective": Objective(path="cosine")}, {}, {}, "got a checkpoint with process {'path': 'flow', 'tar"),
    "width": (
        {"network": FlexiDiTConfig(width=64, depth=1, num_heads=2, modes=("2x4x4", "2x8x8"))}, {}, {},
        "got a checkpoint with width=32 for a network with width=64",
    ),
    "modes": (
        {"network": FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("2x4x4", "4x8x8")),
         "mode_choice": ModeChoice()}, {}, {},
        "got a checkpoint with modes=",
    ),
    "steps": ({}, {}, {"steps": 3}, "got trainer.max_steps=3 for a checkpoint with 4 behind it; expected at least"),
    "time": ({}, {"max_time": timedelta(microseconds=1)}, {"first": {"max_time": timedelta(hours=1)}},
             "got trainer.max_time, of which nothing is left after the"),
    "no end": ({}, {}, {"steps": -1}, "got neither trainer.max_steps nor trainer.max_epochs; expected one"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_take_effect_is_refused(go_on, kind):
    module_changes, trainer_changes, others, message = REFUSED[kind]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        go_on(module_changes, trainer_changes, **others)
    assert message in str(error.value)


def test_other_classes_are_refused(go_on, digits_folder, tmp_path):
    """As many, but of other names: labels would mean something else."""
    for part in ("train", "held_out"):
        for folder in (digits_folder / part).iterdir():
            (tmp_path / "other" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "other" / part / f"class_{folder.name}").symlink_to(folder)
    with pytest.raises(ValueError, match=r"got a checkpoint with class_names \['0', .*for a run with \['class_0', "):
        go_on(data={"root": str(tmp_path / "other")})


def test_what_changes_no_weight_may_change(go_on):
    network = FlexiDiTConfig(
        width=32, depth=1, num_heads=2, modes=("2x4x4", "2x8x8"), gradient_checkpointing=True
    )  # fmt: skip
    objective = Objective(time_mean=1.0, label_dropout=0.5, matching=Matching(weight=0.1))
    _, trainer, module = go_on({"network": network, "objective": objective})
    assert (trainer.global_step, module.network.config.gradient_checkpointing) == (8, True)
    assert "train/discrepancy" in trainer.logged_metrics or module.matching.weight == 0.1

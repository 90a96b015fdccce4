"""Settings of a resumed run, or of one that starts from weights: possible changes take effect, others are refused.

Lightning restores everything from a checkpoint, also the old learning rate and weight decay. The functions below
correct what it restores, and check what must not differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer, WeightAveraging

from flexivid.model.config import OLDER_VALUES
from flexivid.model.shipped import WEIGHTS
from flexivid.runtime.finite import require_finite_weights
from flexivid.runtime.paths import resolve_path
from flexivid.training.optimizer import OptimizerSettings

FINGERPRINTS = {"codec": "codec_fingerprint", "text_encoder": "text_fingerprint"}
CURRENT = "current_model_state"  # key of the last weights, where state_dict holds averages


def require_weights_alone(source: str) -> None:
    """Refuse a checkpoint, or a run that has nothing else, as ``model.init_from``."""
    path = resolve_path(source)
    is_run = (path / "checkpoints").is_dir() and not (path / WEIGHTS).is_file()
    if path.suffix == ".ckpt" or is_run:
        raise ValueError(
            f"got model.init_from={source}, a {'run with nothing but checkpoints' if is_run else 'checkpoint'};"
            f" expected weights alone, as a folder with {WEIGHTS}; name that of the run, once it has ended, or write"
            f" the averaged weights with flexivid.save(flexivid.load({str(path)!r}), FOLDER) and name FOLDER"
            " (--ckpt_path goes on with the run itself)"
        )


def steps_of(trainer: Trainer) -> int:
    """Return the number of optimizer steps that follows from a trainer's settings; refuse an unlimited one."""
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise ValueError(
            "got neither trainer.max_steps nor trainer.max_epochs; expected one of them, for the learning rate falls"
            " towards the last step; set max_steps, and FitMinutes if minutes count"
        )
    return int(steps)


def renew_optimizers(trainer: Trainer, fresh_groups: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Give the optimizers the present settings of their groups, and the learning rate that follows at this step."""
    for optimizer, fresh in zip(trainer.optimizers, fresh_groups, strict=False):
        for group, settings in zip(optimizer.param_groups, fresh, strict=True):
            group.update({key: value for key, value in settings.items() if key != "lr"})
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        groups = scheduler.optimizer.param_groups
        scheduler.base_lrs = [group["initial_lr"] for group in groups]
        for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = base * factor(scheduler.last_epoch)


def require_steps_left(checkpoint: Mapping[str, Any], trainer: Trainer | None) -> None:
    """Refuse a ``max_steps`` or ``max_epochs`` that the run has passed already."""
    if trainer is None or trainer.state.fn not in (None, "fit"):
        return
    for name, done in (("max_steps", checkpoint.get("global_step", 0)), ("max_epochs", checkpoint.get("epoch", 0))):
        limit = getattr(trainer, name)
        if limit is not None and 0 <= limit < done:
            raise ValueError(
                f"got trainer.{name}={limit} for a checkpoint with {done} behind it; expected at least as many; raise"
                " it"
            )


def require_time_left(trainer: Trainer) -> None:
    """Refuse a ``max_time`` that the run has used up already."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        remaining = callback.time_remaining() if isinstance(callback, Timer) else None
        if remaining is not None and remaining <= 0:
            raise ValueError(
                f"got trainer.max_time, of which nothing is left after the {callback.time_elapsed():.0f} seconds of the"
                " run so far; expected time for the rest; raise it (it counts from the run's first start)"
            )


def require_same_optimizer(checkpoint: Mapping[str, Any], settings: OptimizerSettings) -> None:
    """Refuse another optimizer than the checkpoint's, whose state it cannot use."""
    states = checkpoint.get("optimizer_states") or [{}]
    parts = len(states[0].get("parts", ()))
    before = {1: "adamw", 2: "muon"}.get(parts, settings.name)
    if before != settings.name:
        raise ValueError(
            f"got model.optimizer.name={settings.name} for a checkpoint of {before}; expected the same; change it, or"
            " start without --ckpt_path"
        )


def require_same_meaning(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse weights that were trained for another process, codec, text encoder or set of classes, by their recipes.

    Encoders are compared by their fingerprints where both recipes have them, so that they may be moved.
    """
    for key, remedy in (
        ("process", "model.objective.path and target"),
        ("codec", "codec"),
        ("text_encoder", "text_encoder"),
        ("class_names", "data.root"),
    ):
        before, now = saved.get(key), current.get(key)
        fingerprints = [recipe.get(FINGERPRINTS.get(key, "")) for recipe in (saved, current)]
        is_same = len(set(fingerprints)) == 1 if all(fingerprints) else before == now
        if before and now and not is_same:
            _refuse(f"{key} {before}", f"run with {now}", f"{remedy} or")


def require_same_network(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse weights of another network: configurations that differ in what shapes the weights."""
    saved, current = {**OLDER_VALUES, **saved}, {**OLDER_VALUES, **current}
    for key in sorted(current.keys() - {"attention_backend", "gradient_checkpointing"}):  # these change no weight
        if saved.get(key) != current[key]:
            remedy = "model.network to that in config.yaml of its run, the data or"
            _refuse(f"{key}={saved.get(key)}", f"network with {key}={current[key]}", remedy)


def require_same_adapter(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse adapter weights of another transformer or other modes. What an old checkpoint lacks is not compared."""
    for key in current.keys() & saved.keys():
        if saved[key] != current[key]:
            name = "transformer" if key == "native_sha256" else key
            _refuse(f"{key}={saved[key]}", f"run with {key}={current[key]}", f"model.{name} or")


def _refuse(before: str, now: str, remedy: str) -> NoReturn:
    raise ValueError(f"got a checkpoint with {before} for a {now}; expected the same; change {remedy} --ckpt_path")


def prepare_weights(checkpoint: dict[str, Any], trainer: Trainer | None) -> None:
    """Refuse weights that are not finite; load the last ones instead of averages if the run no longer averages."""
    for key in ("state_dict", CURRENT):
        require_finite_weights(checkpoint.get(key, {}), "the checkpoint")
    if trainer is None or trainer.state.fn != "fit" or CURRENT not in checkpoint:
        return
    if not any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        checkpoint["state_dict"] = checkpoint.pop(CURRENT)

"""LightningCLI for flexivid: tells the module the shape of the data; adds ``--dry-run`` and ``--ckpt_path last``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from flexivid.budget.cost import human
from flexivid.data.module import VideoDataModule
from flexivid.model.config import FlexiDiTConfig
from flexivid.model.memory import training_report
from flexivid.patching.shapes import PatchMode, Size3
from flexivid.pretrained.shared.start import shape_from
from flexivid.runtime.device import fast_dtype, pick_device
from flexivid.runtime.errors import refuse
from flexivid.runtime.paths import resolve
from flexivid.training.conditions import Encoders, step_macs
from flexivid.training.last_good import CUT_OFF, choose_good, fault_of, newest_first
from flexivid.training.modes import ModeChoice, Phase
from flexivid.training.module import Clips, FlexiDiffusion
from flexivid.training.objective import GivenFrames
from flexivid.training.resume import require_weights_alone

register_type(PatchMode, str, PatchMode)

SPEEDS = ((1.5e14, "H100 at 30 % of its bf16 peak"), (1.5e11, "two CPU cores with bf16 units"))  # MACs/s in training
TRAINER_DEFAULTS = {"enable_model_summary": False}  # it counts 0 FLOPs; modules print what they train


def clips_of(data: VideoDataModule) -> Clips:
    """Return what the module must know about the data; lists the folder, decodes nothing."""
    encoders = (data.latent_codec, data.text_encoder, data.text_channels)
    return Clips(data.clip_size, data.num_classes, data.batch_size, data.latent_size, *encoders)


class Parser(LightningArgumentParser):
    """A parser that reports in one line what is wrong with the arguments, with the nearest valid key."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2, unless the parser only tries one of several types for a value."""
        if not self.exit_on_error:
            super().error(message, ex)
        refuse(self, message, ex)


class SaveFreshConfig(SaveConfigCallback):
    """Saves the settings of a run without those that resumed it, so that they start a fresh run."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **settings: Any) -> None:
        fresh = config.clone()
        fresh.ckpt_path = None
        if config.get("ckpt_path"):
            logger = getattr(fresh.trainer.logger, "init_args", None)
            run = Path(config.ckpt_path).parent.parent.name
            if logger is not None and logger.get("version") == run:
                logger.version = None
        super().__init__(parser, fresh, **settings)


class FlexiCLI(LightningCLI):
    """``fit`` and ``validate`` from YAML files and dotted options.

    Args:
        dry_run: Print the needs of a run, and stop before anything is built.
    """

    module_class: type[LightningModule] = FlexiDiffusion
    data_class: type[LightningDataModule] = VideoDataModule

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        super().__init__(
            self.module_class,
            self.data_class,
            subclass_mode_data=self.data_class is LightningDataModule,
            seed_everything_default=0,
            save_config_callback=SaveFreshConfig,
            save_config_kwargs={"overwrite": True},  # a resumed run stays in its folder
            trainer_defaults=TRAINER_DEFAULTS,
            parser_class=Parser,
            parser_kwargs={"prog": "python -m flexivid.train"},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Keep the useful ones only, since each parser makes the start slower."""
        return {name: LightningCLI.subcommands()[name] for name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Fill ``model.clips`` from the data."""
        parser.link_arguments("data", "model.clips", compute_fn=clips_of, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and check the checkpoint before Lightning reads it."""
        super().parse_arguments(parser, args)
        _resolve_paths(self.config[self.config.subcommand])
        file = self.config[self.config.subcommand].get("ckpt_path")
        if file and file != "last":
            refuse_fault(file)

    def before_instantiate_classes(self) -> None:
        """Choose the precision, and turn ``--ckpt_path last`` into the newest run of this name and its folder."""
        config = self.config[self.subcommand]
        if config.config and (logger := _logger_settings(config)) is not None and logger.get("name", "") is None:
            logger.name = Path(str(config.config[0])).stem  # of the recipe
        if config.trainer.precision is None:
            config.trainer.precision = _fast_precision(config.trainer.accelerator)
        if config.get("weights_only") is False:
            raise ValueError(
                "got --weights_only false; expected true: otherwise a checkpoint may run any code; ours need none, so"
                " remove it"
            )
        config.weights_only = True
        if config.get("ckpt_path") == "last":
            file = find_last_good(_run_root(config))
            config.ckpt_path = str(file)
            config.trainer.logger.init_args.version = file.parent.parent.name

    def instantiate_classes(self) -> None:
        """Build everything, or only print what it would need. Errors of the data come without jsonargparse's text."""
        if self.dry_run:
            sys.stdout.write("\n".join(self.needs(self.config[self.subcommand])) + "\n")
            raise SystemExit(0)
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error.__cause__, (ValueError, OSError)) and "compute_fn" in str(error):
                raise error.__cause__ from None
            raise

    def needs(self, config: Namespace) -> list[str]:
        """The lines of a dry run: parameters, and tokens, MACs and memory of each mode."""
        model, data = config.model, VideoDataModule(**config.data.as_dict())
        clips, share = clips_of(data), data.picture_steps.share
        plain = (
            value.as_dict() if isinstance(value, Namespace) else value for value in (model.codec, model.text_encoder)
        )
        encoders = Encoders(clips, *plain)
        shares = GivenFrames(**model.given_frames.as_dict())
        network = encoders.shape_of(FlexiDiTConfig(**model.network.as_dict()), shares)
        if model.init_from:
            require_weights_alone(model.init_from)
            network = shape_from(model.init_from, network)
        size, tokens = Size3(*encoders.latent_shape[1:]), encoders.text_tokens
        shares.check(size.t)
        modes: tuple[PatchMode, ...] = network.modes  # type: ignore[assignment]
        phases = [Phase(phase.until, dict(phase.probabilities)) for phase in model.mode_choice.phases]
        choice, passes = ModeChoice(phases, model.mode_choice.equal_tokens), 3 + network.gradient_checkpointing

        def batch(mode: PatchMode, extent: Size3 = size) -> int:
            return choice.batch_size(mode, extent, network.native, clips.batch_size, native_size=size)

        def cost(mode: PatchMode, extent: Size3) -> int:
            return step_macs(network, extent, [(mode, passes)], batch(mode, extent), text_tokens=tokens)

        costs = {m: (1 - share) * cost(m, size) + share * cost(m, size._replace(t=1)) for m in modes}
        report = training_report(network, size, {m: batch(m) for m in modes}, text_tokens=tokens)
        batches = config.trainer.accumulate_grad_batches  # of a step
        work = encoders.described() + _work_lines(
            phases, {mode: batches * macs for mode, macs in costs.items()}, config.trainer.max_steps
        )
        return [*report[:-1], *work, report[-1]]


def _work_lines(phases: list[Phase], costs: dict[PatchMode, float], max_steps: int) -> list[str]:
    """Compute of the whole run on each device, and its time at usual speeds; ``costs`` are of a step in each mode."""
    if max_steps < 1:
        return []
    start, mean = 0.0, 0.0
    for phase in phases or [Phase(1.0, dict.fromkeys(map(str, costs), 1.0))]:
        weights = phase.weights(tuple(costs))
        step = sum(weight * cost for weight, cost in zip(weights, costs.values(), strict=True)) / sum(weights)
        start, mean = phase.until, mean + (phase.until - start) * step
    times = (f"{_hours(max_steps * mean / rate)} at {human(rate)}/s ({device})" for rate, device in SPEEDS)
    return [f"{max_steps} steps of {human(mean)} (1 MAC = 2 FLOPs) on each device: about {', '.join(times)}"]


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"


def _resolve_paths(config: Any) -> None:
    """Resolve the paths of Lightning's settings by the rules of all paths, so that ranks and resumed runs agree."""
    if config.get("ckpt_path") not in (None, "last"):
        config.ckpt_path = resolve(config.ckpt_path)
    for section, name in ((config.trainer, "default_root_dir"), (_logger_settings(config), "save_dir")):
        if section is not None and section.get(name):
            section[name] = resolve(section[name])


def _logger_settings(config: Any) -> Any:
    return getattr(config.trainer.logger, "init_args", None)


def _fast_precision(accelerator: str) -> str:
    """bf16 autocast where the hardware multiplies it fast, else float32."""
    device = pick_device("cpu" if accelerator == "cpu" else None)
    return "bf16-mixed" if fast_dtype(device) == torch.bfloat16 else "32-true"


def refuse_fault(file: str | Path) -> None:
    """Refuse a checkpoint with a fault (``ValueError``) before Lightning reads it."""
    fault = fault_of(Path(file))
    if fault:
        fault = "is not one" if fault == CUT_OFF else fault
        raise ValueError(
            f"got --ckpt_path {file}, which {fault}; expected a .ckpt of a run; check the path, or name `last` for"
            " the last good one"
        )


def find_last_good(root: Path) -> Path:
    """Return the newest good checkpoint of the runs below ``root``; rejected newer ones are listed on stderr.

    All checkpoints of a run come before those of an older one. ``FileNotFoundError`` if there is none, ``ValueError``
    if none is good.
    """
    checkpoints = newest_first(root.glob("*/checkpoints/*.ckpt"))
    if not checkpoints:
        raise FileNotFoundError(
            f"got --ckpt_path last, but no checkpoint below {root}/; expected a run with one; start without it"
        )
    good, rejected = choose_good(checkpoints)
    faults = "; ".join(f"{file}, which {fault}" for file, fault in rejected)
    if good is None:
        raise ValueError(
            f"got --ckpt_path last, but no good checkpoint below {root}/ ({faults}); expected one; start without it"
        )
    if rejected:
        sys.stderr.write(f"--ckpt_path last passes over {faults}; going on from {good}\n")
    return good


def _run_root(config: Any) -> Path:
    """The folder that holds all runs of this name."""
    settings = _logger_settings(config)
    if settings is None or "save_dir" not in settings:
        raise ValueError(
            "got --ckpt_path last with a logger that keeps no folder of its own; expected trainer.logger to be one with"
            " save_dir and name; name the .ckpt file"
        )
    return Path(settings.save_dir) / settings.name

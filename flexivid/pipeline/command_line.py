"""The command line that the programs share: errors in one line, dashes and underscores alike. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from flexivid.files.paths import resolve
from flexivid.pipeline.messages import refuse

PATHS = {  # options that name files or folders; resolved, whatever program has them
    *("checkpoint", "pipeline", "adapter", "model", "weights", "reference", "generated", "path", "config", "prompts"),
    *("output", "output_dir", "json", "fix_manifest"),
}


class ProgramParser(ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2."""
        refuse(self, message, ex)


def program_parser(program: str, description: str, examples: str) -> ProgramParser:
    """A parser without options yet.

    Args:
        program: What is typed after ``python -m flexivid.``.
        description: One line.
        examples: Shown as they are at the end of the help.

    Example:
        >>> program_parser("sample", "Sample videos.", "").prog
        'python -m flexivid.sample'
    """
    return ProgramParser(
        prog=f"python -m flexivid.{program}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def words_of(argv: Sequence[str] | None) -> list[str]:
    """The given words, or those of the process, with underscores in the names of options.

    Example:
        >>> words_of(["--num-videos=4", "--output-dir", "my-videos"])
        ['--num_videos=4', '--output_dir', 'my-videos']
    """
    return [_underscored(word) for word in (sys.argv[1:] if argv is None else argv)]


def resolved(options: Namespace) -> Namespace:
    """The same options, their paths read by the rules of ``flexivid.files.paths``.

    Raises:
        ValueError: If a path is empty, or names a variable that is not set.

    Example:
        >>> resolved(Namespace(output_dir="./2024::trip//", prompt=["a  //  b"])).output_dir
        './2024::trip'
    """
    for name in sorted(PATHS.intersection(options.keys())):
        value = options[name]
        if isinstance(value, list):
            options[name] = [resolve(path) for path in value]
        elif isinstance(value, str):
            options[name] = resolve(value)
    return options


def _underscored(word: str) -> str:
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def add_layout(add: Callable[..., Any]) -> None:
    """How folders of videos are read."""
    add("--layout", help="folders of videos are splits, classes, or flat: none of both (default: as trained, or auto)")


def add_solving(add: Callable[..., Any]) -> None:
    """Solver and guidance."""
    add("--num_inference_steps", type=int, help="solver steps (default: as the model says, else 20)")
    add("--guidance_scale", type=float, help="classifier-free guidance, 1 = none (default: as the model says)")
    add("--weak_guidance_scale", type=float, help="the same for steps in weak modes (default: as --guidance-scale)")
    add("--guide_mode", help="weak guidance: patch mode of the second branch (default: the step's own)")
    add("--guidance", help="second branch: ordinary, weak or auto (default: ordinary; weak with --guide-mode)")
    add("--guidance_interval", type=float, nargs=2, help="guidance between these times only, 1 = noise (default: 0 1)")
    add("--compensate_guidance", action="store_true", help="a little more guidance for less compute (default: off)")
    add("--packing", default="auto", help="both branches in one call: auto, always or never")
    add("--solver", help="euler, heun, unipc, dpm++ (flow); ddim, ddpm, unipc, dpm++ (DDPM)")
    add("--shift", type=float, help="time shift of flow models; above 1 more steps at high noise")


def add_files(add: Callable[..., Any]) -> None:
    """Which files of a diffusers model to read; their names are those of ``ModelFiles``."""
    add("--variant", help="diffusers: files of the weights, e.g. fp16 (default: those without a variant)")
    add("--revision", help="diffusers: branch, tag or commit on the hub (default: its main branch)")
    add("--local_files_only", action="store_true", help="diffusers: read what is on this machine only")
    add("--use_safetensors", action="store_true", help="diffusers: read weights from safetensors only")


def sampling_options(options: Namespace) -> dict[str, Any]:
    """The options that are sampling settings, under their names there."""
    names = ["num_inference_steps", "guidance_scale", "guidance", "guide_mode", "compensate_guidance", "solver"]
    names += ["weak_guidance_scale", "shift", "batch_size", "precision", "planner", "packing"]
    given = {name: getattr(options, name) for name in ("modes", "guidance_interval")}
    pairs = {name: tuple(value) if value else None for name, value in given.items()}
    return {**{name: getattr(options, name) for name in names}, **pairs}

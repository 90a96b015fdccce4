"""The sampling options that programs share: their flags, and the settings they stand for. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace


def add_solving(add: Callable[..., Any]) -> None:
    """Solver and guidance."""
    add("--num_inference_steps", type=int, help="solver steps (default: as the model says, else 20)")
    add("--guidance_scale", type=float, help="classifier-free guidance, 1 = none (default: as the model says)")
    add("--guide_mode", help="weak guidance: patch mode of the second branch (default: the step's own)")
    add("--guidance", help="second branch: ordinary, weak or auto (default: ordinary; weak with --guide-mode)")
    add("--guidance_interval", type=float, nargs=2, help="guidance between these times only, 1 = noise (default: 0 1)")
    add("--compensate_guidance", action="store_true", help="a little more guidance for less compute (default: off)")
    add("--packing", default="auto", help="both branches in one call: auto, always or never")
    add("--solver", help="euler, heun, unipc, dpm++ (flow); ddim, ddpm, unipc, dpm++ (DDPM)")
    add("--shift", type=float, help="time shift of flow models; above 1 more steps at high noise")


def sampling_options(options: Namespace) -> dict[str, Any]:
    """The options that are sampling settings, under their names there."""
    names = ["num_inference_steps", "guidance_scale", "guidance", "guide_mode", "compensate_guidance", "solver"]
    names += ["shift", "batch_size", "precision", "planner", "packing"]
    given = {name: getattr(options, name) for name in ("modes", "guidance_interval")}
    pairs = {name: tuple(value) if value else None for name, value in given.items()}
    return {**{name: getattr(options, name) for name in names}, **pairs}

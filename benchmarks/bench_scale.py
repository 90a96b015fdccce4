"""At the size of Latte: operations a second of each mode, seconds of each budget, and diffusers' own loop beside ours.

A FlexiDiT with the shape of Latte-XL/2 (latent 4 x 16 x 32 x 32, width 1152, depth 28) and random weights, bfloat16.
diffusers' loop is that of its ``LattePipeline``, guidance on, with this very network in the place of its transformer.

    python benchmarks/bench_scale.py --compile --output benchmarks/results/bench_scale.json
    python benchmarks/bench_scale.py --width 64 --depth 2 --heads 2 --size 4 8 8 --batches 1 --steps 4    a try on a CPU

MFU is over the device's dense bfloat16 peak, where it is known. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LattePipeline
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor, nn

from flexivid import Condition, FlexiDiT, FlexiDiTConfig, generate, macs
from flexivid.model.recipe import Recipe
from flexivid.patching.shapes import PatchMode, Size3
from flexivid.sampling.compiling import compile_forward
from flexivid.sampling.denoiser import batch_of
from flexivid.sampling.generate import start_noise

CHANNELS, CLASSES, GUIDANCE = 4, 101, 4.0
MODES = ("1x2x2", "2x2x2", "1x4x4", "2x4x4")


def build(options: argparse.Namespace) -> FlexiDiT:
    """The network, no weight of it zero (so that no product could be skipped)."""
    torch.manual_seed(0)
    shape = FlexiDiTConfig(options.width, options.depth, options.heads, CHANNELS, MODES, num_classes=CLASSES)
    model = FlexiDiT(shape).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    sampling = {"num_inference_steps": options.steps, "guidance_scale": GUIDANCE}
    process = {"path": "flow", "target": "velocity"}
    model.recipe = Recipe(size=options.size, process=process, sampling=sampling)
    return model.to(options.device)


class Euler(FlowMatchEulerDiscreteScheduler):
    """With what ``LattePipeline`` asks of a scheduler and flow matching does not need."""

    init_noise_sigma = 1.0

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:  # type: ignore[override]
        """Equal steps, as ours; diffusers' own end at 1/1000 and spend a step on the rest."""
        sigmas = torch.linspace(1, 1 / num_inference_steps, num_inference_steps).tolist()
        super().set_timesteps(sigmas=sigmas, device=device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The sample as it is."""
        return sample


class AsLatte(nn.Module):
    """A FlexiDiT as ``LattePipeline`` calls its transformer. The text is not looked at: there are classes."""

    def __init__(self, model: FlexiDiT, labels: Tensor) -> None:
        super().__init__()
        self.model, self.labels, self.dtype, self.device = model, labels, torch.float32, labels.device
        self.config = SimpleNamespace(in_channels=CHANNELS, sample_size=1)

    def forward(self, hidden_states: Tensor, timestep: Tensor, **other: Any) -> tuple[Tensor]:
        """Latents (2 b, c, t, h, w), first without the class -> velocity, and as many channels that are not used."""
        labels = torch.cat([torch.full_like(self.labels, CLASSES), self.labels])
        velocity = self.model(hidden_states, timestep / 1000, Condition(labels)).float()
        return (velocity.repeat(1, 2, 1, 1, 1),)


def diffusers_loop(model: FlexiDiT, options: argparse.Namespace, batch: int) -> Callable[[], Tensor]:
    """``LattePipeline`` without a text encoder and an autoencoder, from the noises that ``generate`` starts from."""
    labels = torch.arange(batch, device=options.device) % CLASSES
    scheduler = Euler()
    parts = {"tokenizer": None, "text_encoder": None, "vae": None}
    pipe = LattePipeline(**parts, transformer=AsLatte(model, labels), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    text = torch.zeros(batch, 1, 8, device=options.device)

    @torch.no_grad()
    def run() -> Tensor:
        latents = start_noise(model, options.size, range(batch)).to(options.device)
        with torch.autocast(options.device, torch.bfloat16):
            return pipe(
                prompt_embeds=text, negative_prompt_embeds=text, negative_prompt=None, latents=latents,
                guidance_scale=GUIDANCE, num_inference_steps=options.steps, video_length=options.size[0],
                height=8 * options.size[1], width=8 * options.size[2], mask_feature=False, output_type="latent",
                return_dict=False,
            )[0]  # fmt: skip

    return run


def median_seconds(runs: dict[Any, Callable[[], Any]], options: argparse.Namespace) -> dict[Any, float]:
    """Of each, taken in turn; the first round warms up."""
    found: dict[Any, list[float]] = {name: [] for name in runs}
    for repetition in range(options.repetitions + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if options.device != "cpu":
                torch.accelerator.synchronize()
            if repetition:
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def mode_rows(model: FlexiDiT, options: argparse.Namespace, batch: int) -> list[dict[str, Any]]:
    """One call of each mode, in the batch that it is sampled in: about as many tokens as the native one's."""
    peak, native = None, model.config.native
    if options.device == "cuda":
        peak = get_available_flops(torch.device("cuda"), torch.bfloat16)
    size = Size3(*options.size)
    counts = {mode: batch_of(mode, size, native, batch) for mode in model.config.modes}
    seconds = median_seconds({mode: _call(model, options, mode, count) for mode, count in counts.items()}, options)
    rows = []
    for mode, count in counts.items():
        rate = 2 * count * macs(model.config, size, mode) / seconds[mode]
        row = {"mode": str(mode), "batch": count, "seconds": seconds[mode], "tflops": rate / 1e12}
        rows.append({**row, "mfu": rate / peak if peak else None})
        print(f"batch {batch:<3} {mode!s:<6} x {count:<4} {rate / 1e12:8.2f} TFLOP/s", file=sys.stderr)
    return rows


def _call(model: FlexiDiT, options: argparse.Namespace, mode: PatchMode, count: int) -> Callable[[], Tensor]:
    x, at = torch.randn(count, CHANNELS, *options.size, device=options.device), torch.rand(count, device=options.device)
    shown = Condition(torch.zeros(count, dtype=torch.long, device=options.device))

    @torch.no_grad()
    def run() -> Tensor:
        with torch.autocast(options.device, torch.bfloat16):
            return model(x, at, shown, mode)

    return run


def budget_rows(model: FlexiDiT, options: argparse.Namespace, batch: int) -> list[dict[str, Any]]:
    """Seconds of ``generate`` at each budget, and of diffusers' loop, which has no budget."""
    common = {"num_videos": batch, "batch_size": batch, "precision": "bf16"}
    runs: dict[Any, Callable[[], Any]] = {
        budget: lambda budget=budget: generate(model, budget, **common) for budget in options.budgets
    }
    runs["diffusers"] = diffusers_loop(model, options, batch)
    apart = (runs["diffusers"]().float().cpu() - generate(model, 1.0, **common).videos).abs().mean().item()
    seconds = median_seconds(runs, options)
    rows = []
    for name, value in seconds.items():
        loop = "diffusers" if name == "diffusers" else "flexivid"
        row = {"loop": loop, "budget": 1.0 if loop == "diffusers" else name, "seconds": value}
        rows.append({**row, "over_diffusers": value / seconds["diffusers"], "mean_difference_at_full": apart})
        print(f"batch {batch:<3} {loop:<9} budget {row['budget']:<5} {value:8.3f} s", file=sys.stderr)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1152)
    parser.add_argument("--depth", type=int, default=28)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=3, default=[16, 32, 32], help="latent frames, rows, columns")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 0.8, 0.6, 0.4, 0.25, 0.15])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    options.size = tuple(options.size)
    model = build(options)
    if options.compile:
        compile_forward(model)
    modes = [row for batch in options.batches for row in mode_rows(model, options, batch)]
    budgets = [{"batch": batch, **row} for batch in options.batches for row in budget_rows(model, options, batch)]
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor()
    result = {
        "question": __doc__.splitlines()[0],
        "machine": {
            "device": options.device,
            "name": name,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
        "shape": {key: getattr(options, key) for key in ("width", "depth", "heads", "size", "steps")},
        **{"compiled": options.compile, "modes": modes, "budgets": budgets},
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

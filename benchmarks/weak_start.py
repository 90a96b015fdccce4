"""How far new weak modes of a pre-trained DiT or Latte start from its native mode, and where distillation brings them.

A small network of a class of diffusers learns to predict the noise of smooth random latents, as published ones do. Then
* it becomes a FlexiDiT (``load_shared``) and gains modes: error before any training in them;
* it is flexified, and its modes are distilled for a while: error before and after.
Errors are of the output against the native mode's, relative, with what patches cannot hold passed on (``weak_detail``,
``flexify(detail=True)``), and without; same seeds, same number of steps.

    python benchmarks/weak_start.py --output benchmarks/results/weak_start.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from flexivid.diffusion.process import Process
from flexivid.model.conditioning import Condition
from flexivid.model.flexidit import FlexiDiT
from flexivid.patching.position import sinusoids
from flexivid.pretrained.adapter import flexify
from flexivid.pretrained.families.video_dit import VideoDiT
from flexivid.pretrained.flexify import adapter_parameters, set_mode, unflexify
from flexivid.pretrained.more_modes import add_modes
from flexivid.pretrained.shared.convert import to_flexidit
from flexivid.runtime.files import save_json

PROCESS = Process("linear", "noise")
CHANNELS, SIDE, FRAMES = 4, 16, 4
TIMES = (0.99, 0.9, 0.8, 0.6)
MODES = {"DiT": ("1x4x4", "1x8x8"), "Latte": ("2x2x2", "1x4x4", "2x4x4")}


def smooth(count: int, frames: int) -> Tensor:
    """Latents that change slowly along all axes, deviation 1: (count, 4, frames, 16, 16)."""
    coarse = torch.randn(count, CHANNELS, max(1, frames // 2), SIDE // 4, SIDE // 4)
    x = F.interpolate(coarse, size=(frames, SIDE, SIDE), mode="trilinear")
    return x / x.std()


def build(name: str) -> nn.Module:
    """A small random network of the class."""
    shape = {"num_attention_heads": 4, "attention_head_dim": 32, "in_channels": CHANNELS, "sample_size": SIDE}
    if name == "DiT":
        model: nn.Module = DiTTransformer2DModel(**shape, num_layers=4, num_embeds_ada_norm=1)
    else:
        model = VideoDiT(**shape, num_layers=2, num_embeds_ada_norm=1, video_length=FRAMES)
        table = model.get_parameter("temporal_positions.weight").requires_grad_(False)  # fixed in Latte
        table.copy_(sinusoids(torch.arange(FRAMES), table.shape[2])[None])
    for block in [module for key, module in model.named_modules() if key.endswith("norm1.linear")] + [
        model.get_submodule("proj_out_1"),
        model.get_submodule("proj_out_2"),
    ]:
        nn.init.zeros_(block.weight)  # as published networks start
        nn.init.zeros_(block.bias)
    return model


def train(model: nn.Module, seconds: float, frames: int) -> int:
    """Train to predict noise; returns the number of steps."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    start, steps = time.monotonic(), 0
    while (spent := (time.monotonic() - start) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (steps + 1) / 50) * (1 - spent)
        x0, k = smooth(32, frames), torch.randint(0, 1000, (32,))
        noise, labels = torch.randn_like(x0), torch.zeros(32, dtype=torch.long)
        x = PROCESS.add_noise(x0, noise, (k + 1) / 1000)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x if frames > 1 else x[:, :, 0], timestep=k, class_labels=labels).sample
        loss = (output.float().view_as(noise) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps += 1
    return steps


@torch.no_grad()
def errors(model: FlexiDiT, frames: int) -> list[dict[str, Any]]:
    """Relative error of each weak mode at each time, with detail passed on and without."""
    plain, rows = FlexiDiT(replace(model.config, weak_detail="none")), []
    plain.load_state_dict(model.state_dict())
    for moment in TIMES:
        x0, at = smooth(64, frames), torch.full((64,), moment)
        noise, condition = torch.randn_like(x0), Condition(torch.zeros(64, dtype=torch.long))
        x = PROCESS.add_noise(x0, noise, at)
        native = model(x, at, condition)
        row = {"time": moment, "native_against_noise": ((native - noise).norm() / noise.norm()).item()}
        for mode in map(str, model.config.modes[1:]):
            pair = (network(x, at, condition, mode) for network in (model, plain))
            row[mode], row[f"{mode} without"] = (((y - native).norm() / native.norm()).item() for y in pair)
        rows.append({key: round(value, 4) for key, value in row.items()})
    return rows


def distilled(model: nn.Module, mode: str, frames: int, steps: int, *, has_detail: bool) -> dict[str, Any]:
    """Errors of one mode of a flexified network before and after distillation; leaves the network as it was."""
    torch.manual_seed(1)
    flexify(model, [mode], rank=16, detail=has_detail)
    parameters = adapter_parameters(model)
    optimizer = torch.optim.AdamW(parameters, lr=8e-4, weight_decay=1e-2)

    def pair(moment: Tensor) -> tuple[Tensor, Tensor]:
        x0 = smooth(len(moment), frames)
        x, labels = PROCESS.add_noise(x0, torch.randn_like(x0), moment), torch.zeros(len(moment), dtype=torch.long)
        call = {"timestep": (moment * 1000).round().long() - 1, "class_labels": labels}
        video = x if frames > 1 else x[:, :, 0]
        with torch.no_grad():
            native = set_mode(model, "native")(video, **call).sample
        return set_mode(model, mode)(video, **call).sample, native

    def rows() -> dict[str, float]:
        with torch.no_grad():
            pairs = {moment: pair(torch.full((64,), moment)) for moment in (*TIMES, 0.3)}
        return {f"{moment:g}": round(((y - n).norm() / n.norm()).item(), 4) for moment, (y, n) in pairs.items()}

    before = rows()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 8e-4 * min(1, (step + 1) / 20) * (1 - step / steps)
        output, native = pair(torch.randint(1, 1001, (16,)) / 1000)
        loss = (output - native).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
    result = {"mode": mode, "detail": has_detail, "steps": steps, "before": before, "after": rows()}
    unflexify(model)
    return result


def measure(name: str, seconds: float, distillation_steps: int) -> dict[str, Any]:
    """Train, convert, measure."""
    torch.manual_seed(0)
    model, frames = build(name), 1 if name == "DiT" else FRAMES
    steps = train(model, seconds, frames)
    flexible = add_modes(to_flexidit(model.eval()), MODES[name])
    distillations = [
        distilled(model, mode, frames, distillation_steps, has_detail=has_detail)
        for mode in MODES[name][-2:]
        for has_detail in (False, True)
    ]
    return {"network": name, "steps": steps, "rows": errors(flexible, frames), "distillations": distillations}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seconds", type=float, default=90, help="of training, each network")
    parser.add_argument("--distillation-steps", type=int, default=300)
    options = parser.parse_args()
    settings = {"seconds": options.seconds, "distillation_steps": options.distillation_steps}
    results = {"settings": settings, "networks": [measure(name, *settings.values()) for name in MODES]}
    print(json.dumps(results, indent=2))
    if options.output:
        save_json(options.output, results)


if __name__ == "__main__":
    main()

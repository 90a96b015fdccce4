"""Do weak modes, distilled for a tenth of the training, keep the quality of a pre-trained transformer at less compute?

A small ``WanTransformer3DModel`` is trained on moving digits by the plain loop ``pretrain``, which knows nothing of
modes. It is flexified, and its modes are distilled within ``--share`` of that training's MACs (backward = 2 forward).
Reported: error of each mode against the native one by time, before and after; fvd[motion] with 95 % intervals at each
budget, a fraction of ``NUM_STEPS`` native steps: with fewer steps, some of them weak, first, last or in the middle; and
with native ones alone. (With all steps more must be weak, which cost more than fewer steps did: docs/LOG.md.)
Pixels, 1 x 8 x 32 x 32, native patch 2x4x4, a rectified flow that predicts the clean video: large pixel patches hold
more numbers than a velocity could pass through the width. High noise decides the shape of a digit, so most times of
training and most steps of the solver are there.

    python benchmarks/distill_wan_digits.py --output benchmarks/results/distill_wan_digits

Writes OUTPUT.json, OUTPUT.png (the curves) and OUTPUT_samples.png. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from lightning.pytorch import Trainer, seed_everything
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from flexivid.data import open_video
from flexivid.diffusion.times import draw_times, shift_time
from flexivid.metrics.features import build_extractor
from flexivid.metrics.scores import score
from flexivid.pipeline.precision import fast_dtype
from flexivid.pipeline.pretrained_plan import PLANNERS, PretrainedPlan, costs_of, plan_steps
from flexivid.pipeline.video_io import film_strip, tile, to_frames
from flexivid.pretrained.flexify import NATIVE, adapter_parameters, flexify, set_mode
from flexivid.training.callbacks.adapter import AdapterEMA
from flexivid.training.distill import DistillationTimes, FlexiDistillation, distance
from flexivid.training.modes import Phase
from flexivid.training.optimizer import OptimizerSettings

ROOT = Path(__file__).resolve().parents[1]
SIZE = (8, 32, 32)
SHARES = {"2x8x8": 0.3, "4x8x8": 0.7}  # of the steps of distillation: the largest mode has most to learn
MODES = list(SHARES)
REUSE = 4  # steps that an answer of the teacher serves: it is most of the work of a step
TIMES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
TIME_MEAN, TIME_STD, LEAST_TIME = 2.0, 1.5, 0.1  # of training; the loss on the velocity is capped below the last
STUDENT_TIMES = (0.5, 2.0)  # mean and deviation of the logit: more of little noise, where large patches lose most
SHIFT, NUM_STEPS, GUIDANCE = 5.0, 20, 2.0
FEWER = {12: list(PLANNERS), 10: ["weak_first"]}  # steps that a budget may be spent in, and in which order
CLASSES, TEXT_WIDTH, NO_CLASS = 10, 32, 10


class Clips(NamedTuple):
    """Videos in [-1, 1], (n, 1, t, h, w), and their classes, (n,)."""

    videos: Tensor
    labels: Tensor


class Latents(Dataset):
    """What ``FlexiDistillation`` reads: a clip and the text of its class, or of none for one in five."""

    def __init__(self, clips: Clips, texts: Tensor) -> None:
        self.clips, self.texts = clips, texts

    def __len__(self) -> int:
        return len(self.clips.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        label = NO_CLASS if torch.rand(()) < 0.2 else int(self.clips.labels[i])
        return {"latent": self.clips.videos[i], "encoder_hidden_states": self.texts[label]}


def fast() -> torch.autocast:
    """bfloat16 where the processor has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_dtype(torch.device("cpu")) == torch.bfloat16)


def read_clips(folder: Path, most: int | None = None) -> Clips:
    """The first frames of every clip; the folder of a clip is its class."""
    paths = sorted(folder.glob("*/*.mp4"), key=lambda path: path.stem)[:most]
    if not paths:
        raise FileNotFoundError(f"got no clips in {folder}; expected moving digits; run data/moving_digits.py first")
    clips = []
    for path in paths:
        with open_video(path) as reader:
            clips.append(np.asarray(reader.frames(range(SIZE[0]))).mean(-1))
    videos = torch.from_numpy(np.stack(clips)).float()[:, None] / 127.5 - 1
    return Clips(videos, torch.tensor([int(path.parent.name) for path in paths]))


def build(width: int, depth: int) -> WanTransformer3DModel:
    """The network, as diffusers has it."""
    return WanTransformer3DModel(
        patch_size=(2, 4, 4), num_attention_heads=width // 64, attention_head_dim=64, in_channels=1, out_channels=1,
        text_dim=TEXT_WIDTH, freq_dim=128, ffn_dim=3 * width, num_layers=depth,
    )  # fmt: skip


def pretrain(model: nn.Module, clips: Clips, texts: Tensor, *, seconds: float, batch: int) -> tuple[nn.Module, int]:
    """Train as anyone would; returns the averaged model and the number of samples seen."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01)
    average, started, step = copy.deepcopy(model), time.perf_counter(), 0
    while (done := (time.perf_counter() - started) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * done))
        chosen = torch.randint(len(clips.labels), (batch,))
        x0, noise = clips.videos[chosen], torch.randn(batch, *clips.videos.shape[1:])
        t = draw_times(batch, distribution="logit_normal", mean=TIME_MEAN, std=TIME_STD)
        labels = torch.where(torch.rand(batch) < 0.1, NO_CLASS, clips.labels[chosen])
        wide = t.view(-1, 1, 1, 1, 1)
        with fast():
            found = model(torch.lerp(x0, noise, wide), 1000 * t, texts[labels], return_dict=False)[0]
        loss = ((found.float() - x0) / wide.clamp_min(LEAST_TIME)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.995, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        if step % 50 == 0:
            print(f"step {step}, {done:.0%}, loss {loss.item():.4f}", file=sys.stderr)
    return average.eval(), step * batch


def pretrained(folder: Path | None, options: argparse.Namespace, clips: Clips, texts: Tensor) -> tuple[nn.Module, int]:
    """Train, or take what an earlier run has kept in a folder of diffusers."""
    if folder is not None and (folder / "seen.json").is_file():
        return WanTransformer3DModel.from_pretrained(folder).eval(), json.loads((folder / "seen.json").read_text())
    fresh = build(options.width, options.depth)
    model, seen = pretrain(fresh, clips, texts, seconds=60 * options.minutes, batch=options.batch)
    if folder is not None:
        model.save_pretrained(folder)
        (folder / "seen.json").write_text(json.dumps(seen))
    return model, seen


def distil(model: nn.Module, clips: Clips, texts: Tensor, *, macs: float, batch: int) -> dict[str, Any]:
    """Train the modes until the MACs are spent: a share of the teacher, student forward and backward."""
    costs = costs_of(model, SIZE, 1)
    a_step = batch * (costs[NATIVE] / REUSE + 3 * sum(share * costs[mode] for mode, share in SHARES.items()))
    steps = max(REUSE, int(macs / a_step) // REUSE * REUSE)
    module = FlexiDistillation.of(
        model,
        gradient_checkpointing=False,
        reuse=REUSE,
        phases=[Phase(1.0, SHARES)],
        times=DistillationTimes("logit_normal", *STUDENT_TIMES, shift=1.0),
        optimizer=OptimizerSettings(learning_rate=3e-3, weight_decay=1e-2, warmup_steps=20, final_fraction=0.05),
    )
    is_bf16 = fast_dtype(torch.device("cpu")) == torch.bfloat16
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, precision="bf16-mixed" if is_bf16 else "32-true",
        gradient_clip_val=0.02, callbacks=[AdapterEMA(0.97)], logger=False, enable_checkpointing=False,
        enable_model_summary=False, default_root_dir=Path("runs") / "distill_wan_digits",
    )  # fmt: skip
    started = time.perf_counter()
    trainer.fit(module, DataLoader(Latents(clips, texts), batch, shuffle=True, drop_last=True))
    set_mode(model, NATIVE)
    return {"steps": steps, "macs": steps * a_step, "seconds": time.perf_counter() - started}


@torch.no_grad()
def errors_by_time(model: nn.Module, clips: Clips, texts: Tensor) -> dict[str, list[float]]:
    """Mean squared difference from the native mode over the native mean square, for each of ``TIMES``."""
    noise = torch.randn(clips.videos.shape, generator=torch.Generator().manual_seed(0))
    found: dict[str, list[float]] = {mode: [] for mode in MODES}
    for t in TIMES:
        call = {
            "hidden_states": torch.lerp(clips.videos, noise, t),
            "timestep": torch.full((len(noise),), 1000 * t),
            "encoder_hidden_states": texts[clips.labels],
        }
        target = set_mode(model, NATIVE)(**call, return_dict=False)[0]
        for mode in MODES:
            error, scale = distance(model, mode, call, target)  # type: ignore[arg-type]
            found[mode].append((error / scale).item())
    set_mode(model, NATIVE)
    return found


@torch.no_grad()
def sample(model: nn.Module, plan: PretrainedPlan, texts: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """Videos, (n, 1, t, h, w): Euler steps with guidance, each in its modes."""
    x = torch.randn(len(labels), 1, *SIZE, generator=torch.Generator().manual_seed(seed))
    times = shift_time(torch.linspace(1, 0, len(plan.modes) + 1), SHIFT)
    both = torch.stack([texts[labels], texts[NO_CLASS].expand(len(labels), -1, -1)])
    for step, (t, following) in enumerate(pairwise(times)):
        modes = [plan.mode_of(step, call) for call in range(2)]
        with fast():
            given, without = _branches(model, modes, x, torch.full((len(x),), 1000 * t.item()), both)
        x0 = without + GUIDANCE * (given - without)
        x = x + (following - t) * (x - x0) / t
    set_mode(model, NATIVE)
    return x.clamp(-1, 1)


def _branches(model: nn.Module, modes: list[str], x: Tensor, time_now: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """With and without the class: one call for equal modes."""
    if modes[0] == modes[1]:
        call = (x.repeat(2, 1, 1, 1, 1), time_now.repeat(2), both.flatten(0, 1))
        given, without = set_mode(model, modes[0])(*call, return_dict=False)[0].float().chunk(2)
        return given, without
    given, without = (
        set_mode(model, mode)(x, time_now, text, return_dict=False)[0].float()
        for mode, text in zip(modes, both, strict=True)
    )
    return given, without


class Way(NamedTuple):
    """One way to spend a budget."""

    name: str
    budget: float
    plan: PretrainedPlan

    @property
    def cost(self) -> float:
        """Over that of ``NUM_STEPS`` native steps."""
        return self.plan.budget * len(self.plan.modes) / NUM_STEPS


def ways_of(model: nn.Module, budgets: list[float]) -> list[Way]:
    """The full way, and all that a lower budget can be spent in."""
    costs = costs_of(model, SIZE, 1)
    ways = [Way("full", 1.0, plan_steps(1.0, costs, NUM_STEPS))]
    for budget in (b for b in budgets if b < 1):
        for fewer, planners in FEWER.items():
            share = min(1.0, budget * NUM_STEPS / fewer)
            for planner in planners:
                plan = plan_steps(share, costs, fewer, planner=planner)
                ways.append(Way(f"{fewer} steps, {planner}", budget, plan))
        few = math.floor(budget * NUM_STEPS)
        ways.append(Way("native only", budget, plan_steps(1.0, costs, few)))
    return ways


def quality(model: nn.Module, real: Clips, texts: Tensor, ways: list[Way], num_videos: int) -> list[dict]:
    """fvd[motion] of samples in each way against held-out clips, with its interval; the samples come along."""
    extractor, rows = build_extractor("motion"), []
    target = extractor(real.videos.expand(-1, 3, -1, -1, -1))
    for way in ways:
        started = time.perf_counter()
        parts = torch.arange(num_videos).split(50)
        videos = torch.cat([sample(model, way.plan, texts, part % CLASSES, seed=int(part[0])) for part in parts])
        found = score(extractor(videos.expand(-1, 3, -1, -1, -1)), target)
        row = {"way": way.name, "budget": way.budget, "cost": way.cost, "plan": str(way.plan)}
        row |= {"seconds": time.perf_counter() - started, "fvd[motion]": found.fvd, "low": found.low}
        rows.append({**row, "high": found.high, "videos": videos[:10]})
        print(
            f"budget {way.budget}, {way.name}: {way.plan}: fvd[motion] {found.fvd:.3f} ({found.low:.3f} -"
            f" {found.high:.3f})",
            file=sys.stderr,
        )
    return rows


def draw(output: Path, before: dict, after: dict, rows: list[dict]) -> None:
    """The curves, and film strips: a row of videos a budget."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, mode in enumerate(MODES):
        left.semilogy(TIMES, before[mode], "--", color=f"C{number}", label=f"{mode}, at first")
        left.semilogy(TIMES, after[mode], "-", color=f"C{number}", label=f"{mode}, distilled")
    left.set(xlabel="time (1 = noise)", ylabel="error against native, relative")
    left.legend(fontsize=8)
    for name in dict.fromkeys(row["way"] for row in rows[1:]):
        own = [row for row in rows if row["way"] in (name, "full")]
        values = [row["fvd[motion]"] for row in own]
        spread = [[row["fvd[motion]"] - row["low"] for row in own], [row["high"] - row["fvd[motion]"] for row in own]]
        right.errorbar([row["cost"] for row in own], values, yerr=spread, marker="o", capsize=4, label=name)
    right.axhspan(rows[0]["low"], rows[0]["high"], color="0.9", label="full compute, 95 %")
    right.set(xlabel="compute, fraction of all-native", ylabel="fvd[motion], 95 % interval", ylim=(0, None))
    right.legend(fontsize=7)
    figure.savefig(output.with_suffix(".png"), dpi=120)
    strips = [[film_strip(to_frames(v.expand(3, -1, -1, -1)), 4) for v in row["videos"]] for row in rows]
    picture = Image.fromarray(tile(strips)[0])
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(
        output.with_name(output.name + "_samples.png")
    )


def main() -> None:
    """Train, flexify, distil, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "moving_digits")
    parser.add_argument("--minutes", type=float, default=20, help="of pre-training")
    parser.add_argument("--pretrained", type=Path, help="folder of the pre-trained model, made or taken")
    parser.add_argument("--share", type=float, default=0.1, help="MACs of distillation over those of pre-training")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.7, 0.4, 0.25], help="below 1")
    parser.add_argument("--num-videos", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("distill_wan_digits"))
    options = parser.parse_args()
    seed_everything(0)
    train, held_out = read_clips(options.data / "train"), read_clips(options.data / "held_out", options.num_videos)
    texts = torch.randn(CLASSES + 1, 1, TEXT_WIDTH)  # the text of a class is one fixed token
    model, seen = pretrained(options.pretrained, options, train, texts)
    flexify(model, MODES, rank=options.rank, skip=True)
    spent = 3 * seen * costs_of(model, SIZE, 1)[NATIVE]
    few = Clips(held_out.videos[:64], held_out.labels[:64])
    before = errors_by_time(model, few, texts)
    training = distil(model, train, texts, macs=options.share * spent, batch=options.batch)
    after = errors_by_time(model, few, texts)
    falls = {mode: [old / new for old, new in zip(before[mode], after[mode], strict=True)] for mode in MODES}
    rows = quality(model, held_out, texts, ways_of(model, options.budgets), options.num_videos)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    draw(options.output, before, after, rows)
    new = sum(p.numel() for p in adapter_parameters(model))
    result = {
        "question": __doc__.splitlines()[0],
        "network": {"width": options.width, "depth": options.depth},
        "pretraining": {"minutes": options.minutes, "samples": seen, "macs": spent},
        "distillation": {**training, "share": training["macs"] / spent, "new_parameters": new},
        "parameters": sum(p.numel() for p in model.parameters()) - new,
        "times": TIMES,
        "error_before": before,
        "error_after": after,
        "error_falls_by": falls,
        "quality": [{name: value for name, value in row.items() if name != "videos"} for row in rows],
    }
    options.output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Do weak modes, distilled for a tenth of the training, buy more than fewer native steps of a pre-trained transformer?

A small ``WanTransformer3DModel`` is trained on moving digits by the plain loop ``pretrain``, which knows nothing of
modes. It is flexified, and its modes are distilled within ``--share`` of that training's MACs (backward = 2 forward).
Its step floor is measured: the fewest native steps whose fvd[motion] is within the interval of ``MANY_STEPS``. That is
full compute. At every budget, a fraction of it, the same noises are sampled in all ways it pays for: by the planner
``staged``, weak steps first in any number of steps, the cheapest mode alone, fewer native steps. Reported: errors of
the modes against the native one by time, before and after distillation; fvd[motion] with 95 % intervals, and paired
intervals of the differences from full compute and from fewer native steps.
Pixels, 1 x 8 x 32 x 32, native patch 2x4x4, a rectified flow. With ``--target x0`` it predicts the clean video. With
``velocity``, as Wan does, large patches hold more numbers than pass through the width, and ``--detail`` adds what the
process says of those that are lost. High noise decides the shape of a digit, so most times of training and most steps
of the solver are there.

    python benchmarks/distill_wan_digits.py --output benchmarks/results/distill_wan_digits
    python benchmarks/distill_wan_digits.py --target velocity --detail --output benchmarks/results/distill_wan_velocity

Writes OUTPUT.json, OUTPUT.png (the curves) and OUTPUT_samples.png. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
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

from flexivid.budget.allowance import Allowance
from flexivid.budget.planners import staged
from flexivid.budget.schedule import Schedule, Step, affordable_cost
from flexivid.data import open_video
from flexivid.diffusion.process import Process
from flexivid.diffusion.solver import build_scheduler, solve
from flexivid.diffusion.times import draw_times
from flexivid.media.write import film_strip, tile, to_frames
from flexivid.metrics.bootstrap import paired_difference
from flexivid.metrics.extractors.extractor import build_extractor
from flexivid.metrics.scores import score
from flexivid.patching.shapes import PatchMode
from flexivid.pipelines.plan import costs_of
from flexivid.pretrained.flexify import NATIVE, adapter_parameters, flexify, set_mode
from flexivid.runtime.device import fast_dtype
from flexivid.training.distillation.ema import AdapterEMA
from flexivid.training.distillation.module import DistillationTimes, FlexiDistillation, distance
from flexivid.training.modes import Phase
from flexivid.training.optimizer import OptimizerSettings

ROOT = Path(__file__).resolve().parents[1]
SIZE = (8, 32, 32)
SHARES = {"4x4x4": 0.3, "4x8x8": 0.7}  # of the steps of distillation: the largest mode has most to learn
MODES = list(SHARES)
REUSE = 4  # steps that an answer of the teacher serves: it is most of the work of a step
TIMES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
TIME_MEAN, TIME_STD, LEAST_TIME = 2.0, 1.5, 0.1  # of training; the loss on the velocity is capped below the last
STUDENT_TIMES = (0.5, 2.0)  # mean and deviation of the logit: more of little noise, where large patches lose most
SHIFT, GUIDANCE = 5.0, 2.0
MANY_STEPS = 20  # of full compute before its step floor is known
MOST_WEAK = 16  # steps of the cheapest mode, at most
PATCH = PatchMode("2x4x4")
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
        patch_size=tuple(PATCH), num_attention_heads=width // 64, attention_head_dim=64, in_channels=1, out_channels=1,
        text_dim=TEXT_WIDTH, freq_dim=128, ffn_dim=3 * width, num_layers=depth,
    )  # fmt: skip


def pretrain(model: nn.Module, clips: Clips, texts: Tensor, process: Process, *, steps: int, batch: int) -> nn.Module:
    """Train as anyone would; returns the averaged model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01)
    average = copy.deepcopy(model)
    for step in range(steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 50) * decay
        chosen = torch.randint(len(clips.labels), (batch,))
        x0, noise = clips.videos[chosen], torch.randn(batch, *clips.videos.shape[1:])
        t = draw_times(batch, distribution="logit_normal", mean=TIME_MEAN, std=TIME_STD)
        labels = torch.where(torch.rand(batch) < 0.1, NO_CLASS, clips.labels[chosen])
        wide = t.view(-1, 1, 1, 1, 1)
        with fast():
            found = model(torch.lerp(x0, noise, wide), 1000 * t, texts[labels], return_dict=False)[0]
        error = found.float() - process.target_of(x0, noise, t)
        if process.target == "x0":
            error = error / wide.clamp_min(LEAST_TIME)
        loss = error.square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        fresh_share = max(0.005, 9 / (11 + step))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, fresh_share)
        if step % 50 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.4f}", file=sys.stderr, flush=True)
    return average.eval()


def pretrained(options: argparse.Namespace, process: Process, clips: Clips, texts: Tensor) -> nn.Module:
    """Train, or take what an earlier run has kept in a folder of diffusers."""
    folder = options.pretrained
    if folder is not None and (folder / "config.json").is_file():
        return WanTransformer3DModel.from_pretrained(folder).eval()
    model = build(options.width, options.depth)
    model = pretrain(model, clips, texts, process, steps=options.steps, batch=options.batch)
    if folder is not None:
        model.save_pretrained(folder)
    return model


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
def sample(
    model: nn.Module, process: Process, schedule: Schedule, texts: Tensor, labels: Tensor, seed: int = 0
) -> Tensor:
    """Videos, (n, 1, t, h, w): UniPC with guidance, both branches of a step in one call."""
    noise = torch.randn(len(labels), 1, *SIZE, generator=torch.Generator().manual_seed(seed))
    both = torch.cat([texts[labels], texts[NO_CLASS].expand(len(labels), -1, -1)])

    def predict(call: int, x: Tensor, time: Tensor) -> Tensor:
        mode = schedule[call].modes[0]
        set_mode(model, NATIVE if mode == PATCH else str(mode))
        with fast():
            output = model(x.repeat(2, 1, 1, 1, 1), 1000 * time.repeat(2), both, return_dict=False)[0]
        given, without = output.float().chunk(2)
        return without + GUIDANCE * (given - without)

    scheduler = build_scheduler(process, "unipc", len(schedule), shift=SHIFT)
    videos = solve(predict, noise, process, scheduler)
    set_mode(model, NATIVE)
    return videos.clamp(-1, 1)


class Way(NamedTuple):
    """One way to spend a budget, a fraction of full compute; 0 where only the step floor is looked for."""

    name: str
    budget: float
    schedule: Schedule


class Maker:
    """Features of the same noises in any way; a schedule that two ways share is sampled once.

    Args:
        model: Flexified and distilled.
        process: What it predicts.
        texts: Of every class, and of none.
        num_videos: A way.
    """

    def __init__(self, model: nn.Module, process: Process, texts: Tensor, num_videos: int) -> None:
        self.model, self.process, self.texts, self.num_videos = model, process, texts, num_videos
        self.extractor = build_extractor("motion")
        self.made: dict[str, tuple[Tensor, Tensor, float]] = {}

    def features(self, videos: Tensor) -> Tensor:
        """Of grey videos, (n, d)."""
        return self.extractor(videos.expand(-1, 3, -1, -1, -1))

    def __call__(self, schedule: Schedule) -> tuple[Tensor, Tensor, float]:
        """Features (n, d), the first ten videos, seconds."""
        if str(schedule) not in self.made:
            started, model, texts = time.perf_counter(), self.model, self.texts
            parts = torch.arange(self.num_videos).split(50)
            videos = torch.cat(
                [sample(model, self.process, schedule, texts, part % CLASSES, seed=int(part[0])) for part in parts]
            )
            seconds = time.perf_counter() - started
            self.made[str(schedule)] = (self.features(videos), videos[:10], seconds)
            print(f"{schedule}: {seconds:.0f} s", file=sys.stderr, flush=True)
        return self.made[str(schedule)]


def allowance_of(model: nn.Module, floor: int, budget: float) -> Allowance:
    """What a budget buys: the modes and what a step costs in each."""
    costs = {PATCH if mode == NATIVE else PatchMode(mode): cost for mode, cost in costs_of(model, SIZE, 1).items()}
    modes = sorted(costs, key=lambda mode: -costs[mode])
    affordable = affordable_cost(budget, floor * costs[PATCH])
    return Allowance(tuple(Step(mode) for mode in modes), tuple(costs[mode] for mode in modes), floor, affordable)


def step_floor(make: Maker, real: Tensor) -> int:
    """The fewest native steps that are within the interval of many."""
    highest = score(make(Schedule([Step(PATCH)] * MANY_STEPS))[0], real).high
    for number in range(1, MANY_STEPS):
        if score(make(Schedule([Step(PATCH)] * number))[0], real).fvd <= highest:
            return number
    return MANY_STEPS


def ways_of(model: nn.Module, floor: int, budgets: list[float]) -> list[Way]:
    """The full way, and all that a lower budget can be spent in."""
    native = [Step(PATCH)]
    ways = [Way("full", 1.0, Schedule(native * floor)), Way("many steps", 0.0, Schedule(native * MANY_STEPS))]
    for budget in budgets:
        whole = allowance_of(model, floor, budget)
        ways.append(Way("staged", budget, Schedule(whole.options[option] for option in staged(whole))))
        weak = Step(PatchMode(MODES[-1]))
        cheapest, price = whole.costs[-1], whole.costs[0]
        for late in range(1, whole.affordable // price + 1):
            early = min(MOST_WEAK, (whole.affordable - late * price) // cheapest)
            ways.append(Way(f"weak first, {late} native", budget, Schedule([weak] * early + native * late)))
        ways.append(Way("cheapest mode alone", budget, Schedule([weak] * min(MOST_WEAK, whole.affordable // cheapest))))
        if whole.affordable >= price:
            ways.append(Way("fewer native steps", budget, Schedule(native * (whole.affordable // price))))
    return [way for way in ways if way.schedule]


def quality(make: Maker, real: Tensor, ways: list[Way], full: int) -> list[dict]:
    """A row a way: its distance to real clips, and paired differences; the first videos come along."""
    reference, rows = make(ways[0].schedule)[0], []
    rivals = {way.budget: make(way.schedule)[0] for way in ways if way.name == "fewer native steps"}
    for way in ways:
        features, videos, seconds = make(way.schedule)
        found = score(features, real)
        macs = sum(costs_of(make.model, SIZE, 1)[_name(step)] for step in way.schedule)
        row: dict[str, Any] = {"way": way.name, "budget": way.budget, "plan": str(way.schedule), "cost": macs / full}
        row |= {"seconds": seconds, "fvd[motion]": found.fvd, "low": found.low, "high": found.high}
        row["to_full"] = paired_difference(features, reference, real)._asdict()
        if way.budget in rivals:
            row["to_fewer_steps"] = paired_difference(features, rivals[way.budget], real)._asdict()
        rows.append({**row, "videos": videos})
        print(
            f"{way.budget}, {way.name}: {way.schedule}, {row['cost']:.3f}: {found.fvd:.2f} ({found.low:.2f} -"
            f" {found.high:.2f}), to full {row['to_full']['low']:.2f} - {row['to_full']['high']:.2f}",
            file=sys.stderr,
        )
    return rows


def _name(step: Step) -> str:
    return NATIVE if step == Step(PATCH) else str(step.modes[0])


def draw(output: Path, before: dict, after: dict, rows: list[dict]) -> None:
    """The curves, and film strips: full compute, then each budget as planned and in fewer native steps."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, mode in enumerate(MODES):
        left.semilogy(TIMES, before[mode], "--", color=f"C{number}", label=f"{mode}, at first")
        left.semilogy(TIMES, after[mode], "-", color=f"C{number}", label=f"{mode}, distilled")
    left.set(xlabel="time (1 = noise)", ylabel="error against native, relative")
    left.legend(fontsize=8)
    for name in ("staged", "cheapest mode alone", "fewer native steps"):
        own = [row for row in rows if row["way"] == name]
        values = [row["fvd[motion]"] for row in own]
        spread = [[row["fvd[motion]"] - row["low"] for row in own], [row["high"] - row["fvd[motion]"] for row in own]]
        right.errorbar([row["cost"] for row in own], values, yerr=spread, marker="o", capsize=4, label=name)
    right.axhspan(rows[0]["low"], rows[0]["high"], color="0.9", label="full compute, 95 %")
    right.set(xlabel="compute, fraction of full", ylabel="fvd[motion], 95 % interval", yscale="log")
    right.legend(fontsize=7)
    figure.savefig(output.with_suffix(".png"), dpi=120)
    shown = [row for row in rows if row["way"] in ("full", "staged", "fewer native steps")]
    strips = [[film_strip(to_frames(v.expand(3, -1, -1, -1)), 4) for v in row["videos"]] for row in shown]
    picture = Image.fromarray(tile(strips)[0])
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(
        output.with_name(output.name + "_samples.png")
    )


def main() -> None:
    """Train, flexify, distil, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "moving_digits")
    parser.add_argument("--steps", type=int, default=2400, help="of pre-training")
    parser.add_argument("--target", choices=("x0", "velocity"), default="x0", help="what the network predicts")
    parser.add_argument("--detail", action="store_true", help="weak modes pass on the detail that their patches lose")
    parser.add_argument("--pretrained", type=Path, help="folder of the pre-trained model, made or taken")
    parser.add_argument("--share", type=float, default=0.1, help="MACs of distillation over those of pre-training")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.7, 0.5, 0.3, 0.2, 0.1], help="below 1")
    parser.add_argument("--num-videos", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("distill_wan_digits"))
    options = parser.parse_args()
    seed_everything(0)
    train, held_out = read_clips(options.data / "train"), read_clips(options.data / "held_out", options.num_videos)
    texts = torch.randn(CLASSES + 1, 1, TEXT_WIDTH)  # the text of a class is one fixed token
    process = Process("flow", options.target)
    model = pretrained(options, process, train, texts)
    flexify(model, MODES, rank=options.rank, skip=True, detail=options.detail)
    spent = 3 * options.steps * options.batch * costs_of(model, SIZE, 1)[NATIVE]
    few = Clips(held_out.videos[:64], held_out.labels[:64])
    before = errors_by_time(model, few, texts)
    training = distil(model, train, texts, macs=options.share * spent, batch=options.batch)
    after = errors_by_time(model, few, texts)
    falls = {mode: [old / new for old, new in zip(before[mode], after[mode], strict=True)] for mode in MODES}
    make = Maker(model, process, texts, options.num_videos)
    real = make.features(held_out.videos)
    floor = step_floor(make, real)
    rows = quality(make, real, ways_of(model, floor, options.budgets), allowance_of(model, floor, 1.0).affordable)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    draw(options.output, before, after, rows)
    new = sum(p.numel() for p in adapter_parameters(model))
    result = {
        "question": __doc__.splitlines()[0],
        "target": options.target,
        "detail": options.detail,
        "network": {"width": options.width, "depth": options.depth},
        "pretraining": {"steps": options.steps, "samples": options.steps * options.batch, "macs": spent},
        "distillation": {**training, "share": training["macs"] / spent, "new_parameters": new},
        "parameters": sum(p.numel() for p in model.parameters()) - new,
        "step_floor": floor,
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

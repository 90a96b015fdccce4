"""Train the feature network of fvd[motion] on drawn digits: flexivid/metrics/motion.safetensors is its result.

    OMP_NUM_THREADS=1 python benchmarks/train_motion_features.py --output motion.safetensors

The same arguments, processor type, number of threads and torch version give the same bytes. The shipped file was made
by the line above with torch 2.14 on a processor with AVX512-BF16, in ten minutes of one core; its sha256 begins with
848388cfe4e57ac1. Scans that the data set holds out are not trained on; the last line of stdout is one JSON document
with what a linear map reads from the features of those scans.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from motion_clips import LABELS, Clip, digits, draw_clip
from safetensors.torch import save_file
from torch import Tensor, nn

from flexivid.metrics.extractors.motion import NUM_FEATURES, MotionNet

LENGTHS = (4, 6, 8, 8, 8, 8, 12, 16)  # frames of a batch, most often those of the main job
SIZES = (32, 32, 32, 64)


def stack(clips: list[Clip]) -> tuple[Tensor, Tensor, Tensor]:
    """Return videos (b, 3, t, h, w) in [-1, 1], shares of the classes (b, 10) and labels (b, labels)."""
    videos, classes, labels = (torch.from_numpy(np.stack(part)).float() for part in zip(*clips, strict=True))
    return 2 * videos.movedim(-1, 1) - 1, classes, labels


def draw_batch(scans: list[np.ndarray], seed: list[int], num_clips: int, **given) -> tuple[Tensor, Tensor, Tensor]:
    """Draw clips of one random length and size; everything depends on the seed."""
    rng = np.random.default_rng(seed)
    shape = {"num_frames": int(rng.choice(LENGTHS)), "size": int(rng.choice(SIZES))} | given
    return stack([draw_clip(scans, rng, **shape) for _ in range(num_clips)])


def loss_of(features: Tensor, answers: Tensor, classes: Tensor, labels: Tensor) -> Tensor:
    """Class by cross entropy, labels (of unit variance) by squared error, and features that repeat each other."""
    named = F.cross_entropy(answers[:, :10], classes)
    measured = F.mse_loss(answers[:, 10:], labels)
    correlation = features.T @ features / len(features)
    repeated = (correlation - torch.diag(correlation.diag())).square().mean()
    return named + 4 * measured + repeated


def train(scans: list[np.ndarray], options: argparse.Namespace) -> tuple[MotionNet, nn.Linear, Tensor]:
    """Return the network, the linear head that reads its features, and the labels' (mean, deviation)."""
    torch.manual_seed(options.seed)
    network, head = MotionNet(), nn.Linear(NUM_FEATURES, 10 + len(LABELS))
    labels = draw_batch(scans, [options.seed, 0], 1000)[2]
    scale = torch.stack((labels.mean(0), labels.std(0)))
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, options.rate, weight_decay=0.02)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=options.steps, pct_start=0.2)
    begin = time.perf_counter()
    for step in range(1, options.steps + 1):
        videos, classes, labels = draw_batch(scans, [options.seed, step], options.batch)
        with torch.autocast("cpu", torch.bfloat16):
            features = network(videos).float()
        loss = loss_of(features, head(features), classes, (labels - scale[0]) / scale[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        if step % 50 == 0:
            print(f"step {step}  loss {loss:.3f}  {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return network.eval(), head, scale


@torch.no_grad()
def examine(network: MotionNet, head: nn.Linear, scale: Tensor, scans: list[np.ndarray], seed: int) -> dict[str, float]:
    """Measure on scans never trained on: the digit and the direction of faultless clips, and R2 of every label."""
    videos, classes, labels = draw_batch(scans, [seed], 500, num_frames=8, size=32, plain=True, faults={})
    answers = head(network(videos))
    moved = [LABELS.index("moved_row"), LABELS.index("moved_column")]
    said = (answers[:, 10:] * scale[1] + scale[0])[:, moved]
    far = labels[:, moved].norm(dim=1) > 3 / 32
    right = {
        "digit": answers[:, :10].argmax(1) == classes.argmax(1),
        "direction_to_45_degrees": (F.cosine_similarity(said, labels[:, moved]) > 0.5**0.5)[far],
    }
    result = {f"accuracy_{name}": is_right.float().mean().item() for name, is_right in right.items()}
    videos, classes, labels = draw_batch(scans, [seed, 1], 1000, num_frames=8, size=32)
    errors = (head(network(videos))[:, 10:] - (labels - scale[0]) / scale[1]).square().mean(0)
    return result | {f"r2_{name}": 1 - error for name, error in zip(LABELS, errors.tolist(), strict=True)}


def main() -> None:
    """Train, save and examine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    splits = digits.split_scans(seed=0)  # the data set's own split
    network, head, scale = train(splits["train"], options)
    save_file(
        {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}, options.output
    )
    network.load_state_dict({name: t.half().float() for name, t in network.state_dict().items()})
    result = examine(network, head, scale, splits["held_out"], options.seed)
    result = {name: round(value, 4) for name, value in result.items()}
    print(json.dumps(result | {"sha256": hashlib.sha256(options.output.read_bytes()).hexdigest()}))


if __name__ == "__main__":
    main()

"""Do samples show the digit that they were asked for, and the same digit in every frame?

A second opinion beside fvd[motion]: a small convolutional network that names the digit of a single frame. It shares
nothing with the features of that metric. It is trained on drawn frames of the scans that the data set trains on, one
digit or two, in a quarter of a minute. What it makes of real clips of the held-out scans is what samples are to be
read against.

    python benchmarks/digit_judge.py --checkpoint RUN --budgets 1 0.25 --num-videos 1000

The last line of stdout is one JSON document. A support vector machine of scikit-learn on centred and scaled frames was
right about 97.5 % of the same 1000 clips at best, this network about 98.7 %.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SPEC = importlib.util.spec_from_file_location(
    "moving_digits", Path(__file__).resolve().parents[1] / "data" / "moving_digits.py"
)
data = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(data)

NUM_CLASSES = data.NUM_CLASSES
SIDE = 32  # rows and columns that the network sees
WIDTH = 16  # channels of its first layer
PLACES = 3  # of each scan in the training set, alone and as often beside another one
EPOCHS, BATCH, LEARNING_RATE = 5, 128, 6e-3
NOISE = 0.03  # deviation of what is added to the pixels, in [0, 1]: samples are less clean than drawn frames


class Look(NamedTuple):
    """What a judge makes of some clips.

    Args:
        accuracy: Fraction of clips most of whose frames show the digit that was asked for.
        frame_accuracy: Fraction of such frames.
        consistency: Mean over clips of the fraction of frames that show the clip's most frequent digit.
    """

    accuracy: float
    frame_accuracy: float
    consistency: float


class Judge:
    """Names digits.

    Args:
        network: Takes frames as :func:`frames_of` gives them, returns a number for each digit.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()

    @torch.no_grad()
    def classes(self, videos: Tensor) -> np.ndarray:
        """The digit of each frame, int64 (n, t), of videos (n, 3, t, h, w) in [-1, 1]."""
        digits = [self._network(frames).argmax(1) for frames in frames_of(videos).split(512)]
        return torch.cat(digits).reshape(len(videos), -1).numpy()

    def look(self, videos: Tensor, labels: Tensor) -> Look:
        """All that is asked of clips at once.

        Args:
            videos: (n, 3, t, h, w) in [-1, 1].
            labels: The digits that were asked for, int64 (n,).
        """
        found, asked = self.classes(videos), labels.cpu().numpy()
        most = majority(found)
        return Look(
            float((most == asked).mean()),
            float((found == asked[:, None]).mean()),
            float((found == most[:, None]).mean()),
        )

    def accuracy(self, videos: Tensor, labels: Tensor) -> float:
        """Fraction of clips whose most frequent digit is the one that was asked for."""
        return self.look(videos, labels).accuracy

    def frame_accuracy(self, videos: Tensor, labels: Tensor) -> float:
        """Fraction of frames that show the digit that was asked for."""
        return self.look(videos, labels).frame_accuracy

    def consistency(self, videos: Tensor) -> float:
        """Mean over clips of the fraction of frames that show the clip's most frequent digit."""
        return self.look(videos, torch.zeros(len(videos), dtype=torch.long)).consistency


def majority(classes: np.ndarray) -> np.ndarray:
    """The most frequent class of each row, (n, t) -> (n,); the smallest of those that tie.

    >>> majority(np.array([[3, 8, 8], [5, 5, 1]])).tolist()
    [8, 5]
    """
    counts = (classes[..., None] == np.arange(NUM_CLASSES)).sum(1)
    return counts.argmax(1)


def frames_of(videos: Tensor) -> Tensor:
    """Frames as the network sees them: (n, 3, t, h, w) in [-1, 1] -> (n * t, 1, SIDE, SIDE) in [0, 1], on the CPU.

    >>> frames_of(torch.ones(2, 3, 4, 64, 64)).shape
    torch.Size([8, 1, 32, 32])
    """
    grey = ((videos.detach().cpu().float().mean(1) + 1) / 2).clamp(0, 1).flatten(0, 1)[:, None]
    if grey.shape[-2:] == (SIDE, SIDE):
        return grey
    return F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)


def build_network() -> nn.Sequential:
    """Five convolutions; the strongest answer of any place counts, so a digit may be anywhere."""
    layers: list[nn.Module] = []
    shapes = ((1, WIDTH, 5, 2), (WIDTH, 2 * WIDTH, 3, 1), (2 * WIDTH, 4 * WIDTH, 3, 2), (4 * WIDTH, 4 * WIDTH, 3, 1))
    for channels_in, channels, side, stride in shapes:
        layers += [nn.Conv2d(channels_in, channels, side, stride, side // 2), nn.BatchNorm2d(channels), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Conv2d(4 * WIDTH, 4 * WIDTH, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(4 * WIDTH, NUM_CLASSES))


def draw_frames(seed: int) -> tuple[Tensor, Tensor]:
    """Frames of all training scans, (n, 1, SIDE, SIDE) in [0, 1], and their digits, int64 (n,).

    Each scan is drawn at some places, and as often smaller together with another one of its class.
    """
    rng, recipe = np.random.default_rng(seed), data.Recipe(size=SIDE)
    frames, digits = [], []

    def drawn(scan: np.ndarray, scale: float) -> np.ndarray:
        digit = data.enlarge(scan, round(scale * recipe.digit_size))
        return data.place(digit, rng.uniform(0, SIDE - len(digit), 2), SIDE)

    for digit, scans in enumerate(data.split_scans(seed)["train"]):
        for scan in np.repeat(scans, PLACES, axis=0):
            pair = np.maximum(drawn(scan, data.PAIR_SCALE), drawn(rng.choice(scans), data.PAIR_SCALE))
            frames += [drawn(scan, 1), pair]
            digits += [digit, digit]
    return torch.from_numpy(np.stack(frames)).float()[:, None], torch.tensor(digits)


def train_judge(seed: int = 0) -> Judge:
    """A judge that has seen the training scans of the data set with this seed, and none of those that it holds out.

    Args:
        seed: Of the data set, of places, weights and batches.
    """
    frames, digits = draw_frames(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
        steps = EPOCHS * -(-len(frames) // BATCH)
        pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(frames)).split(BATCH):
                noisy = frames[rows] + NOISE * torch.randn(frames[rows].shape)
                loss = F.cross_entropy(network(noisy), digits[rows], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                pace.step()
    return Judge(network)


def held_out_clips(num_clips: int, size: tuple[int, int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Real clips of held-out scans: videos (n, 3, t, h, w) in [-1, 1], and their digits, int64 (n,).

    Args:
        num_clips: How many, the digits in turn.
        size: Frames, height, width; frames are square.
        seed: Of the data set.
    """
    scale = size[1] / data.Recipe().size
    recipe = data.Recipe(
        size=size[1], num_frames=size[0], digit_size=round(scale * data.Recipe().digit_size), seed=seed
    )
    scans = data.split_scans(seed)["held_out"]
    clips = np.stack([data.render_clip(scans, recipe, split="held_out", index=index) for index in range(num_clips)])
    videos = torch.from_numpy(clips).float()[:, None].expand(-1, 3, -1, -1, -1) / 127.5 - 1
    return videos, torch.arange(num_clips) % NUM_CLASSES


def main() -> None:
    """Train the judge, sample, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="run folder of a model of moving digits with classes")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 0.25])
    parser.add_argument("--num-videos", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="video i starts from the noise of seed + i")
    parser.add_argument("--data-seed", type=int, default=0, help="of the data set: parts its scans")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()

    from flexivid import generate, load
    from flexivid.budget.table import read_tables
    from flexivid.sampling.plan import tables_folder

    started = time.perf_counter()
    judge = train_judge(options.data_seed)
    seconds = time.perf_counter() - started
    model, tables = load(options.checkpoint).to(options.device), read_tables(tables_folder(options.checkpoint))
    size, names = model.recipe.size, model.recipe.class_names or range(NUM_CLASSES)
    digits = torch.tensor([int(name) for name in names])
    real = judge.look(*held_out_clips(options.num_videos, tuple(size), options.data_seed))
    rows: list[dict[str, Any]] = [{"budget": None, "plan": "held-out clips", **real._asdict()}]
    show(rows[0])
    for budget in options.budgets:
        made = generate(model, budget, num_videos=options.num_videos, seed=options.seed, tables=tables)
        look = judge.look(made.videos, digits[made.labels])
        rows.append({"budget": budget, "plan": str(made.schedule), "seconds": made.seconds, **look._asdict()})
        show(rows[-1])
    result = {"question": __doc__.splitlines()[0], "num_videos": options.num_videos, "training_seconds": seconds}
    result |= {"rows": rows, "torch": torch.__version__}
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


def show(row: dict[str, Any]) -> None:
    """One line of the table, on stderr."""
    name = "real" if row["budget"] is None else f"{row['budget']:g}"
    figures = "  ".join(f"{key} {row[key]:.4f}" for key in Look._fields)
    print(f"{name:<5} {figures}  {row['plan']}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Do videos of moving digits jump where temporal patches meet?

A token draws its frames without a look at those of the next one. The change from the last frame of a large patch to the
first of the next is held against the other changes of the same videos: 1 where nobody can see the border, as in real
clips. Distances between distributions hardly notice.

    python benchmarks/patch_borders.py --checkpoint moving_digits --schedules 8x4x8x8+4x8x8 5x4x4x4+4x4x4

Budgets are met by the default plan. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from digit_judge import held_out_clips
from torch import Tensor

from flexivid import generate, load

RESAMPLES = 200


class Jump(NamedTuple):
    """Change at the borders over change elsewhere, with its 95 % interval over videos."""

    jump: float
    low: float
    high: float


def jump_of(videos: Tensor, frames: int) -> Jump:
    """The jump of videos (n, c, t, h, w) every so many frames.

    >>> still = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(4, -1, -1, 2, 2)
    >>> jump_of(still, 4).jump, jump_of(torch.where(still < 4, still, still + 2), 4).jump
    (1.0, 3.0)
    """
    changes = videos.diff(dim=2).abs().mean((1, 3, 4)).double()  # n t-1
    is_border = torch.arange(1, videos.shape[2]) % frames == 0
    means = torch.stack([changes[:, is_border].mean(1), changes[:, ~is_border].mean(1)])  # 2 n
    rows = torch.randint(len(videos), (RESAMPLES, len(videos)), generator=torch.Generator().manual_seed(0))
    at_borders, elsewhere = means[:, rows].mean(-1)
    low, high = (at_borders / elsewhere).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    border, other = means.mean(1).tolist()
    return Jump(border / other, low, high)


def main() -> None:
    """Sample, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", required=True, help="run folder, or the name of a shipped model, of moving digits"
    )
    parser.add_argument("--budgets", type=float, nargs="*", default=[1.0, 0.5, 0.3, 0.2, 0.1])
    parser.add_argument("--schedules", nargs="*", default=[], help="these plans too")
    parser.add_argument("--num-videos", type=int, default=256)
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    model = load(options.checkpoint)
    frames = max(mode.t for mode in model.config.modes)
    real, _ = held_out_clips(options.num_videos, tuple(model.recipe.size))
    rows: list[dict[str, Any]] = [{"plan": "held-out clips", "budget": None, **jump_of(real, frames)._asdict()}]
    plans = [{"budget": budget} for budget in options.budgets] + [{"schedule": text} for text in options.schedules]
    for plan in plans:
        made = generate(model, num_videos=options.num_videos, seed=50_000, **plan)
        row = {"plan": made.schedule.short, "budget": plan.get("budget"), **jump_of(made.videos, frames)._asdict()}
        rows.append(row)
        print(f"{row['plan']:<32} {row['jump']:.2f} ({row['low']:.2f}-{row['high']:.2f})", file=sys.stderr)
    result = {"question": __doc__.splitlines()[0], "frames": frames, "num_videos": options.num_videos, "rows": rows}
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

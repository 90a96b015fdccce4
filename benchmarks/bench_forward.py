"""Is a native FlexiDiT as fast as diffusers' transformers of the same shape, forward and in training?

Same width, depth, heads and tokens, one process, the candidates in turn within each repetition so that drift of the
machine hits all alike. ``DiTTransformer2DModel`` is the same block structure without rotary positions and QK-norm;
``WanTransformer3DModel`` has those and cross-attention to text, which it cannot leave out: it gets one text token.

    python benchmarks/bench_forward.py --output benchmarks/results/bench_forward.json

On Linux the process restarts itself with an allocator that keeps its memory (``KEEP_MEMORY``): with glibc's defaults up
to a sixth of a step are page faults, which fall on whichever candidate happens to find the heap trimmed.

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from torch import Tensor, nn

from flexivid import Condition, FlexiDiT, FlexiDiTConfig

WIDTH, DEPTH, HEADS, CHANNELS = 384, 4, 6, 4  # a third of DiT-S/2, so that compiling three networks takes minutes
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the most that glibc takes; larger blocks are mapped anew each time
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
FRAMES, SIDE, BATCH = 1, 32, 8  # 256 tokens; one frame, since the DiT of diffusers is an image model


class Flexi(nn.Module):
    """FlexiDiT in its native mode."""

    def __init__(self) -> None:
        super().__init__()
        shape = FlexiDiTConfig(WIDTH, DEPTH, HEADS, CHANNELS, ("1x2x2", "1x4x4"), num_classes=1000)
        self.net = FlexiDiT(shape)

    def forward(self, x: Tensor, time: Tensor, label: Tensor, text: Tensor) -> Tensor:
        """(b, c, t, h, w) -> the same shape."""
        return self.net(x, time, Condition(label))


class Dit(nn.Module):
    """diffusers' DiT."""

    def __init__(self) -> None:
        super().__init__()
        self.net = diffusers.DiTTransformer2DModel(
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH // HEADS,
            in_channels=CHANNELS,
            num_layers=DEPTH,
            sample_size=SIDE,
            patch_size=2,
        )

    def forward(self, x: Tensor, time: Tensor, label: Tensor, text: Tensor) -> Tensor:
        """(b, c, 1, h, w) -> the same shape."""
        return self.net(x[:, :, 0], (time * 999).long(), label, return_dict=False)[0].unsqueeze(2)


class Wan(nn.Module):
    """diffusers' Wan transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH // HEADS,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            text_dim=WIDTH,
            ffn_dim=4 * WIDTH,
            num_layers=DEPTH,
        )

    def forward(self, x: Tensor, time: Tensor, label: Tensor, text: Tensor) -> Tensor:
        """(b, c, t, h, w) -> the same shape."""
        return self.net(x, (time * 999).long(), text, return_dict=False)[0]


CANDIDATES = {
    "flexivid.FlexiDiT": Flexi,
    "diffusers.DiTTransformer2DModel": Dit,
    "diffusers.WanTransformer3DModel": Wan,
}


def build(kind: type[nn.Module], dtype: torch.dtype, device: str, *, compiled: bool) -> nn.Module:
    """A candidate with random weights (zero-initialised gates included, so that nothing is skipped)."""
    torch.manual_seed(0)
    model = kind()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    model = model.to(device, dtype)
    return torch.compile(model, dynamic=False) if compiled else model  # type: ignore[return-value]


def inputs(dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """Latent, times, labels, one text token."""
    x = torch.randn(BATCH, CHANNELS, FRAMES, SIDE, SIDE, device=device, dtype=dtype)
    label = torch.randint(0, 1000, (BATCH,), device=device)
    return x, torch.rand(BATCH, device=device), label, torch.randn(BATCH, 1, WIDTH, device=device, dtype=dtype)


def forward_of(model: nn.Module, args: tuple[Tensor, ...]) -> Callable[[], None]:
    """One forward pass without gradients."""

    @torch.no_grad()
    def run() -> None:
        model.eval()(*args)

    return run


def training_of(model: nn.Module, args: tuple[Tensor, ...]) -> Callable[[], None]:
    """One training step: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        model.train()(*args).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def measure(runs: dict[str, Callable[[], None]], repetitions: int, device: str) -> dict[str, float]:
    """Median seconds of each, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 2):
        for name, run in runs.items():
            _wait(device)
            started = time.perf_counter()
            run()
            _wait(device)
            if repetition >= 2:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _keep_memory() -> None:
    if sys.platform == "linux" and not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})


def main() -> None:
    """Measure every combination of dtype, compilation and work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled rows out")
    parser.add_argument("--output", type=Path, help="also write the result here")
    options = parser.parse_args()
    _keep_memory()
    rows = []
    for compiled in (False,) if options.no_compile else (False, True):
        for dtype in (torch.float32, torch.bfloat16):
            torch._dynamo.reset()
            models = {name: build(kind, dtype, options.device, compiled=compiled) for name, kind in CANDIDATES.items()}
            args = inputs(dtype, options.device)
            for work, make in (("forward", forward_of), ("training step", training_of)):
                runs = {name: make(model, args) for name, model in models.items()}
                seconds = measure(runs, options.repetitions, options.device)
                ours = seconds["flexivid.FlexiDiT"]
                ratios = {name: round(value / ours, 3) for name, value in seconds.items()}
                kind = "compiled" if compiled else "eager"
                rows.append({"work": work, "dtype": str(dtype)[6:], "kind": kind, "seconds": seconds, "ratio": ratios})
                print(f"{work:>14} {str(dtype)[6:]:>9} {kind:>9}  {ratios}", file=sys.stderr)
    shape = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "tokens": FRAMES * (SIDE // 2) ** 2, "batch": BATCH}
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    machine = {"device": options.device, "processor": platform.processor(), "threads": torch.get_num_threads()}
    result = {"question": __doc__.splitlines()[0], "shape": shape, "machine": {**machine, **versions}, "rows": rows}
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

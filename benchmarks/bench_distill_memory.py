"""Does distilling weak modes need more memory than a plain LoRA fine-tune of the same transformer?

Each candidate runs some training steps in a process of its own; memory is the peak of the process on the CPU (resident
set, less what it had before the model), or of the allocator on a GPU. Both train with AdamW, bf16 weights, gradient
checkpointing and LoRA of the same rank on the same linears. Also: what a 1.3B Wan needs by the report of
``flexivid.convert --dry-run``, counted on the meta device.

    python benchmarks/bench_distill_memory.py --output benchmarks/results/bench_distill_memory.json

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig

from flexivid.pipelines.report import needs_of
from flexivid.pretrained.families.registry import family_of
from flexivid.pretrained.flexify import NATIVE, adapter_parameters, flexify, set_mode
from flexivid.pretrained.signature import random_call
from flexivid.training.distillation.module import distance

WAN_13B = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
WAN_02B = {"num_attention_heads": 8, "attention_head_dim": 96, "ffn_dim": 3072, "num_layers": 20}
MODES, RANK, TEXT = ["2x2x2", "1x4x4", "2x4x4"], 32, 128
CANDIDATES = ("lora", "distillation")


def peak_bytes(device: str) -> int:
    """Of this process so far, or of the GPU's allocator."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def lora(model: Any) -> list[torch.nn.Parameter]:
    """Plain LoRA by diffusers and peft on the linears that flexify adapts."""
    model.requires_grad_(False)
    targets = family_of(type(model).__name__).lora
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def train(candidate: str, device: str, size: tuple[int, int, int], steps: int) -> dict[str, Any]:
    """Peak memory over some steps of one candidate, one sample each."""
    before = 0 if device.startswith("cuda") else peak_bytes(device)
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = WanTransformer3DModel(**WAN_02B).eval()
        torch.set_default_dtype(torch.float32)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    new = lora(model) if candidate == "lora" else adapter_parameters(flexify(model, MODES, rank=RANK))
    model.enable_gradient_checkpointing()
    call = random_call(model, size, text_tokens=TEXT)
    noise = torch.randn_like(call["hidden_states"])
    optimizer = torch.optim.AdamW(new, lr=1e-4)
    for step in range(steps):
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            if candidate == "lora":
                loss = (model(**call, return_dict=False)[0] - noise).square().mean()
            else:
                with torch.no_grad():
                    target = set_mode(model, NATIVE)(**call, return_dict=False)[0]
                loss, _ = distance(model, MODES[step % len(MODES)], call, target)  # type: ignore[arg-type]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = peak_bytes(device) - before
    return {
        "candidate": candidate,
        "parameters": parameters,
        "trained": sum(p.numel() for p in new),
        "peak_bytes": peak,
    }


def needs_of_wan() -> dict[str, Any]:
    """What a 1.3B Wan with three modes needs, counted on the meta device."""
    with torch.device("meta"):
        model = WanTransformer3DModel(**WAN_13B)
    flexify(model.to(torch.bfloat16), MODES, rank=RANK)
    return needs_of(model, (21, 60, 104), 512)


def main() -> None:
    """Run each candidate in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, nargs=3, default=(8, 32, 32), help="latent: frames rows columns")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--output", type=Path, help="also write the result here")
    parser.add_argument("--only", choices=CANDIDATES, help="run this one here")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(train(options.only, options.device, tuple(options.size), options.steps)))
        return
    size = [str(side) for side in options.size]
    settings = ["--device", options.device, "--steps", str(options.steps), "--size", *size]
    rows = []
    for candidate in CANDIDATES:
        command = [sys.executable, __file__, "--only", candidate, *settings]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{candidate:>14} {rows[-1]['peak_bytes'] / 2**30:.2f} GiB", file=sys.stderr)
    result = {
        "question": __doc__.splitlines()[0],
        "machine": {"device": options.device, "torch": torch.__version__},
        "size": list(options.size),
        "rows": rows,
        "distillation_over_lora": rows[1]["peak_bytes"] / rows[0]["peak_bytes"],
        "wan_1.3b": needs_of_wan(),
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""What the README shows runs: its first Python block as it is, its network block with inputs, its flags exist."""

from __future__ import annotations

import re
from pathlib import Path

import torch

import flexivid
from flexivid.sample import build_parser

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_planning_and_network_blocks_run() -> None:
    names: dict = {}
    exec(BLOCKS[0], names)
    assert flexivid.budget_of(names["schedule"], names["config"], names["size"]) <= 0.25
    names |= {"x": torch.zeros(1, 16, 2, 8, 8), "time": torch.tensor([0.5]), "labels": torch.tensor([0])}
    small = names["config"].to_dict() | {"width": 32, "depth": 1, "num_heads": 2, "num_classes": 3}
    names["config"] = flexivid.FlexiDiTConfig.from_dict(small)
    exec(BLOCKS[2], names)
    assert names["model"].config.width == 32


def test_the_flags_it_names_exist() -> None:
    known = {option.replace("-", "_") for action in build_parser()._actions for option in action.option_strings}
    shown = re.findall(r"flexivid\.sample[^\n#`]*", README)
    flags = {word for line in shown for word in re.findall(r"--[a-z-]+", line)}
    assert len(flags) >= 5
    assert {flag.replace("-", "_") for flag in flags} <= known


def test_numbers_it_quotes_have_a_file() -> None:
    files = re.findall(r"benchmarks/results/[a-z_0-9]+\.json", README)
    root = Path(__file__).resolve().parents[1]
    assert files
    assert all((root / file).is_file() for file in files)

"""Jumps at the borders of patches are measured against the other frames; the script runs to its end."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flexivid.model.checkpoint import save


@pytest.fixture
def borders(load_script, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")  # scripts import their neighbours
    return load_script("benchmarks/patch_borders.py")


def test_a_jump_is_seen_where_it_is(borders):
    steps = torch.tensor([0.0, 1, 1, 1, 4, 1, 1, 1]).cumsum(0)
    videos = steps.view(1, 1, 8, 1, 1) * torch.rand(20, 3, 1, 4, 4)
    jump = borders.jump_of(videos, 4)
    assert jump.jump == pytest.approx(4)
    assert jump.low <= 4.0001
    assert jump.high >= 3.9999
    assert borders.jump_of(videos, 2).jump == pytest.approx((1 + 4 + 1) / 3)


def test_the_interval_is_wide_where_videos_differ(borders):
    torch.manual_seed(0)
    jump = borders.jump_of(torch.rand(12, 3, 8, 4, 4), 4)
    assert jump.low < jump.jump < jump.high


def test_the_last_line_is_json(borders, build_model, tmp_path, monkeypatch, capsys):
    model = build_model(modes=("1x4x4", "4x8x8"), num_classes=10)
    model.recipe = replace(model.recipe, size=(8, 32, 32))
    save(model, tmp_path / "model")
    words = ["--checkpoint", tmp_path / "model", "--budgets", 0.5, "--schedules", "2x4x8x8", "--num-videos", 4]
    monkeypatch.setattr(sys, "argv", ["patch_borders.py", *map(str, words)])
    borders.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["budget"] for row in result["rows"]] == [None, 0.5, None]
    assert result["rows"][2]["plan"] == "2x4x8x8"
    assert result["frames"] == 4
    assert result["rows"][0]["jump"] == pytest.approx(1, abs=0.2)  # real clips have no borders

"""Pairs are counted as they should be; the whole measurement runs on a model that reads text."""

import json
import sys

import numpy as np
import pytest
import torch

from flexivid.media.write import write_video
from flexivid.model.checkpoint import save


@pytest.fixture(scope="module")
def bench(load_script):
    return load_script("benchmarks/text_matters.py")


def test_pairs_by_the_nearer_mean(bench):
    clips = {"a": torch.zeros(3, 2), "b": torch.ones(3, 2), "c": torch.tensor([[0.0, 1.0]] * 3)}
    near = {name: features[:1].expand(4, -1) + 0.1 for name, features in clips.items()}
    assert all(bench.nearer_pairs(near, clips).values())
    crossed = {"a": clips["b"], "b": clips["a"], "c": clips["c"]}
    pairs = bench.nearer_pairs(crossed, clips)
    assert not pairs["a", "b"]
    assert not pairs["b", "a"]
    assert pairs["c", "a"]
    assert len(pairs) == 6


def test_colours_of_pictures_and_videos(bench):
    dark = torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint8)
    assert bench.colours(dark).shape == (2, 3 * 16 * 3)
    assert bench.colours(dark[:, :, :1]).shape == (2, 3 * 16)
    assert bench.colours(dark).unique().tolist() == [-1.0, 0.0]


def test_the_last_line_is_json(bench, text_model, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(6):
        write_video(folder / f"{i}.mp4", np.full((4, 16, 16, 3), 40 * i, np.uint8), 8)
        (folder / f"{i}.txt").write_text(["a red ball", "a blue cube", "a ball"][i % 3])
    model = str(save(text_model, tmp_path / "model", recipe=text_model.recipe))
    words = ["--checkpoint", model, "--reference", str(folder), "--num-prompts", "3", "--num-videos", "2"]
    monkeypatch.setattr(sys, "argv", ["text_matters.py", *words, "--device", "cpu", "--split", "train"])
    bench.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["pairs"] == 6
    assert 0 <= result["share"] <= 1
    assert result["least_change_from_null"] > 0

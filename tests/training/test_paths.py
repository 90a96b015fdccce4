"""Lightning's own paths are read as all others are."""

import pytest
import torch
from jsonargparse import Namespace

from flexivid.training.cli import _resolve_paths, _run_root, find_last_good


def test_paths_of_the_trainer(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNS", str(tmp_path / "2024::runs"))
    logger = Namespace(class_path="TensorBoardLogger", init_args=Namespace(save_dir="$RUNS/", name="digits"))
    trainer = Namespace(default_root_dir="~/root", logger=logger)
    config = Namespace(ckpt_path="~/a.ckpt", trainer=trainer)
    _resolve_paths(config)
    assert config.ckpt_path == f"{tmp_path}/a.ckpt"
    assert trainer.default_root_dir == f"{tmp_path}/root"
    assert logger.init_args.save_dir == f"{tmp_path}/2024::runs"
    checkpoint = tmp_path / "2024::runs" / "digits" / "version_3" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({"state_dict": {}}, checkpoint)
    assert find_last_good(_run_root(config)) == checkpoint


@pytest.mark.parametrize("logger", [None, True, False])
def test_other_loggers_and_no_checkpoint(logger):
    config = Namespace(ckpt_path="last", trainer=Namespace(default_root_dir=None, logger=logger))
    _resolve_paths(config)
    assert config.ckpt_path == "last"

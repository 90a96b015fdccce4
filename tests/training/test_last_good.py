"""Which checkpoint is gone on from: the newest that is whole, finite and not of a diverging run."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from flexivid.training.cli import find_last_good
from flexivid.training.last_good import CUT_OFF, KEY, choose_good, fault_of, keep_proven, newest_first, to_rewind_to


def write(file: Path, age: float = 0, *, value: float = 1.0, in_a_row: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = {"network.out.weight": torch.full((64, 64), value)}
    torch.save({"state_dict": weights, "global_step": 3, KEY: {"in_a_row": in_a_row}}, file)
    os.utime(file, (1e9 - age, 1e9 - age))
    return file


class Code:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def flipped(content: bytes) -> bytes:
    at = content.index(torch.ones(8).numpy().tobytes()) + 5
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


DAMAGES = {
    "cut off": (lambda content: content[: len(content) // 2], CUT_OFF),
    "cut off at the end": (lambda content: content[:-1], CUT_OFF),
    "empty": (lambda content: b"", "is empty"),
    "zeros": (lambda content: bytes(len(content)), CUT_OFF),
    "another bit": (flipped, "is damaged ("),
    "text": (lambda content: b"no checkpoint", CUT_OFF),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_told(tmp_path, kind):
    change, words = DAMAGES[kind]
    file = write(tmp_path / "last.ckpt")
    assert fault_of(file) == ""
    file.write_bytes(change(file.read_bytes()))
    assert fault_of(file).startswith(words)


def test_what_is_whole_but_no_good_checkpoint(tmp_path):
    torch.save({"a": 1}, tmp_path / "other.ckpt")
    assert fault_of(tmp_path / "other.ckpt") == "holds no weights"
    nan = write(tmp_path / "nan.ckpt", value=math.nan)
    assert fault_of(nan) == "holds values that are not finite in weight network.out.weight"
    assert fault_of(write(tmp_path / "late.ckpt", in_a_row=7)) == "was saved after 7 bad steps in a row"
    assert fault_of(write(tmp_path / "single.ckpt", in_a_row=1)) == ""
    (tmp_path / "folder.ckpt").mkdir()
    assert fault_of(tmp_path / "folder.ckpt") == "is a folder without a checkpoint in it"
    (tmp_path / "link.ckpt").symlink_to(tmp_path / "nowhere.ckpt")
    assert fault_of(tmp_path / "link.ckpt") == "does not exist"


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    torch.save({"state_dict": {}, "code": Code(tmp_path / "ran")}, tmp_path / "last.ckpt")
    assert fault_of(tmp_path / "last.ckpt") == "cannot be read without running code that is in it (UnpicklingError)"
    assert not (tmp_path / "ran").exists()


def test_order(tmp_path):
    old = [write(tmp_path / "version_1" / name, 50) for name in ("last.ckpt", "epoch=0.ckpt", "last_good.ckpt")]
    new = [write(tmp_path / "version_0" / "last.ckpt", 9), write(tmp_path / "version_0" / "step=2.ckpt", 5)]
    new.append(write(tmp_path / "version_0" / "step=1.ckpt", 7))
    assert newest_first([*old, *new]) == [*new, *old]
    numbered = write(tmp_path / "version_0" / "last-v1.ckpt", 8)  # written after last.ckpt, by another ModelCheckpoint
    assert newest_first(new)[0] == new[0]
    assert newest_first([*new, numbered])[:2] == [numbered, new[0]]


def test_the_last_good_one_of_the_newest_run_is_found(tmp_path, capsys):
    """First among the run's own, then in older runs; what is passed over is said."""
    good = [write(tmp_path / run / "checkpoints" / "last.ckpt", age) for run, age in (("a", 30), ("b", 20))]
    earlier = write(tmp_path / "b" / "checkpoints" / "step=1.ckpt", 25)
    assert find_last_good(tmp_path) == good[1]
    assert capsys.readouterr().err == ""
    for broken, expected in ((good[1], earlier), (earlier, good[0])):
        broken.write_bytes(broken.read_bytes()[:1000])
        os.utime(broken, (1e9 - 20, 1e9 - 20))
        assert find_last_good(tmp_path) == expected
        said = capsys.readouterr().err
        assert f"passes over {good[1]}, which {CUT_OFF}" in said
        assert said.endswith(f"; going on from {expected}\n")
    good[0].write_bytes(b"")
    with pytest.raises(ValueError, match=r"got --ckpt_path last, but no good checkpoint below .*, which is empty"):
        find_last_good(tmp_path)


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got --ckpt_path last, but no checkpoint below .*; expected a run"):
        find_last_good(tmp_path)


def test_a_proven_checkpoint_outlives_its_successors(tmp_path):
    last = write(tmp_path / "last.ckpt")
    keep_proven(tmp_path)
    proven = tmp_path / "last_good.ckpt"
    assert proven.samefile(last)  # a name, no copy
    last.unlink()
    write(last, value=2.0, in_a_row=5)
    assert float(torch.load(proven, weights_only=True)["state_dict"]["network.out.weight"][0, 0]) == 1.0
    assert to_rewind_to([tmp_path]) == proven
    proven.write_bytes(b"")
    assert to_rewind_to([tmp_path]) is None
    assert choose_good(newest_first(tmp_path.glob("*.ckpt")))[0] is None


def test_without_links_it_is_copied(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    last = write(tmp_path / "last.ckpt")
    keep_proven(tmp_path)
    assert (tmp_path / "last_good.ckpt").read_bytes() == last.read_bytes()
    keep_proven(tmp_path / "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "last_good.ckpt"]

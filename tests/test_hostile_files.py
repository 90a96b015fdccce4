"""No file that flexivid reads runs code: a pickle in its place is refused in a line, or the file counts as damaged."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from flexivid import train
from flexivid.budget.table import read_tables
from flexivid.data.clips.dataset import ClipDataset
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.encoded.clips import make_table, open_if_encoded, write_shard
from flexivid.data.encoded.folder import END, PLAN, TABLE, Encoded
from flexivid.data.index.table import Table
from flexivid.data.index.videos import Videos
from flexivid.data.sources.layout import Collection
from flexivid.evaluation.features import BlockFolder
from flexivid.latents.settings import CodecSettings
from flexivid.metrics.extractors.i3d_weights import load_i3d
from flexivid.metrics.extractors.networks import module_in_file, torchvision_network
from flexivid.metrics.protocol import Protocol, reference_features, reference_file
from flexivid.model import checkpoint
from flexivid.pretrained.adapter import load_adapter
from flexivid.pretrained.original_checkpoints import load_plain
from flexivid.runtime.files import save_json
from flexivid.training.cli import refuse_fault
from flexivid.training.distillation.recorded_data import Rows
from tests.pretrained.families import CASES, build


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def payload(tmp_path):
    """Something that makes a folder when it is unpickled, and did not do so when the test ends."""
    made = tmp_path / "made"
    yield Payload(made)
    assert not made.exists()


FORMS = {
    "zip": lambda content, file: torch.save(content, file),
    "old": lambda content, file: torch.save(content, file, _use_new_zipfile_serialization=False),
    "bare": lambda content, file: file.write_bytes(pickle.dumps(content)),
    "bare-2": lambda content, file: file.write_bytes(pickle.dumps(content, protocol=2)),
}


def check(read, file, content=None, form="bare"):
    """Put a pickle in place of a file, and see it refused in one line that names it."""
    FORMS[form](content, file)
    with pytest.raises(ValueError, match=r"^got ") as caught:
        read()
    text = str(caught.value)
    assert file.name in text or str(file.parent) in text
    assert "\n" not in text
    assert len(text) < 600 + len(str(file))
    assert "weights_only" not in text  # no advice to run it


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("last.ckpt", checkpoint.load),
        ("last.ckpt", refuse_fault),
        ("i3d.pt", load_i3d),
        ("r3d.pth", lambda file: torchvision_network("r3d_18", file)),
        ("module.pt", module_in_file),
        ("module.pt2", module_in_file),
        ("dit.pt", load_plain),
    ],
)
def test_weights(tmp_path, payload, name, read, form):
    check(lambda: read(tmp_path / name), tmp_path / name, {"state_dict": {"a": payload}, "flexivid": payload}, form)


def test_an_exported_program_with_a_pickle_for_example(tmp_path, payload):
    class Mean(torch.nn.Module):
        def forward(self, video):
            return video.mean((3, 4)).flatten(1)

    program = torch.export.export(Mean(), (torch.zeros(1, 3, 8, 4, 4),))
    torch.export.save(program, tmp_path / "good.pt2")
    assert module_in_file(tmp_path / "good.pt2").num_features == 24
    example = io.BytesIO()
    torch.save((payload,), example)
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil:
        for name in good.namelist():
            evil.writestr(name, example.getvalue() if "sample_inputs" in name else good.read(name))
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    with pytest.raises(ValueError, match=r"evil\.pt2, which cannot be opened"):
        module_in_file(tmp_path / "evil.pt2")
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before


def test_exported_weights_adapters_and_tables(tmp_path, payload):
    (tmp_path / "config.json").write_text("{}")
    check(lambda: checkpoint.load(tmp_path), tmp_path / "model.safetensors", payload)
    check(lambda: read_tables(tmp_path), tmp_path / "schedules.json", payload)
    model = build(CASES[0])
    check(lambda: load_adapter(model, tmp_path), tmp_path / "flexivid.json", payload)


def test_arrays_of_distillation(tmp_path, payload):
    np.save(tmp_path / "latent.npy", np.zeros((2, 3)))
    for form in FORMS:
        check(lambda: Rows(tmp_path), tmp_path / "constants.pt", payload, form)
    (tmp_path / "constants.pt").unlink()
    check(lambda: Rows(tmp_path), tmp_path / "latent.npy", payload)
    np.save(tmp_path / "latent.npy", np.array([payload], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"latent\.npy, which cannot be read .*; expected an array of numbers"):
        Rows(tmp_path)


def test_encoded_clips(tmp_path, payload):
    clips = ClipDataset(Videos.of(["a.mp4"], num_frames=16), ClipSettings(windows="uniform"))
    table, _ = make_table({"train": clips}, {"train": [("a cat",)]})
    write_shard(tmp_path / TABLE, table)
    pixels = {"codec": CodecSettings(), "codec_fingerprint": "pixel", "latent_size": (3, 8, 32, 32)}
    encoded = Encoded(Collection("v"), clips.settings, "0", {"train": 2}, (), 8.0, **pixels, clips_per_shard=2)
    save_json(tmp_path / PLAN, encoded.to_plain())
    (tmp_path / "latents" / "train").mkdir(parents=True)
    (tmp_path / END).write_text('{"missing": {"train": []}, "bad": {}}')
    check(
        lambda: open_if_encoded(str(tmp_path)).part("train").latent(1),
        tmp_path / encoded.shards("train")[0].name,
        payload,
    )
    for name in (TABLE, END, PLAN):
        check(lambda: open_if_encoded(str(tmp_path)).part("train"), tmp_path / name, payload)


def test_caches_count_as_damaged(tmp_path, payload, monkeypatch):
    store = BlockFolder(tmp_path, {"a": 1})
    store.write([0, 1], {"features": torch.zeros(2, 3)})
    FORMS["bare"](payload, next(tmp_path.rglob("*.safetensors")))
    assert store.read([0, 1]) is None
    FORMS["bare"](payload, tmp_path / "index.arrow")
    assert Table.open(tmp_path / "index.arrow") is None
    protocol = Protocol("fvd", "0f3a", "64x64", 16, 64, 64, 1, 8.0, 4, 2, "9c1e")
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path))
    reference_file(protocol).parent.mkdir()
    FORMS["bare"](payload, reference_file(protocol))
    with pytest.warns(UserWarning, match="made again"):
        assert reference_features(protocol, lambda: torch.ones(2, 3)).sum() == 6


def test_training_refuses_a_checkpoint_with_code_or_settings(tmp_path, payload, capsys):
    """Lightning takes classes to import from a checkpoint's hyper-parameters."""
    settings = {"state_dict": {}, "hyper_parameters": {"_class_path": "os.system", "command": "true"}}
    for content, words in ((payload, "cannot be read without running code"), (settings, "brings settings of its own")):
        torch.save({"state_dict": content} if content is payload else content, tmp_path / "evil.ckpt")
        with pytest.raises(SystemExit) as caught:
            train.main(["fit", "--data.root", str(tmp_path), "--ckpt_path", str(tmp_path / "evil.ckpt")])
        assert caught.value.code == 2
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1

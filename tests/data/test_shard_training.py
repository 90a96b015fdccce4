"""The data module reads shards and tars as it reads the files that went into them."""

import io
import tarfile

import pytest
import torch

from flexivid.data import VideoDataModule
from flexivid.data.sources.shard_writer import write_shards


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Indices of the test stay with the test."""
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(make_video, tmp_path):
    """Six grey videos that can be told apart, and their classes."""
    return [(make_video(tmp_path / "files" / f"{i}.mp4", first=20 * i, step=1), i % 2) for i in range(6)]


def clips(root):
    """Every clip of an epoch, and its label, by the level of its first frame."""
    data = VideoDataModule(str(root), num_frames=4, batch_size=1, windows="first", clips_per_video=1, cache_gib=0)
    data.setup()
    batches = list(data.train_dataloader()) + list(data.val_dataloader())
    data.teardown()
    video, label = (torch.cat([batch[name] for batch in batches]) for name in ("video", "label"))
    order = video[:, 0, 0, 0, 0].argsort()
    return video[order], label[order]


def test_a_store_trains_like_its_files(files, tmp_path):
    write_shards([(str(path), label, "", b"") for path, label in files], tmp_path / "store", progress=False)
    video, label = clips(tmp_path / "store")
    assert torch.equal(video, clips(tmp_path / "files")[0])
    assert label.tolist() == [label for _, label in files]


@pytest.mark.parametrize("where", ["tars/a.tar", "tars"])
def test_tars_train_like_their_files(files, tmp_path, where):
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as archive:
        for path, label in files:
            for name, content in ((path.name, path.read_bytes()), (f"{path.stem}.cls", str(label).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    video, label = clips(tmp_path / where)
    assert torch.equal(video, clips(tmp_path / "files")[0])
    assert label.tolist() == [label for _, label in files]

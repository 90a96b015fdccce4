"""An epoch through the data module: every clip once, whatever the ranks and workers, and whatever happens to them."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import flexivid.data.module
from flexivid.data import VideoDataModule
from flexivid.data.workers.pool import DecodePool

pytestmark = pytest.mark.filterwarnings("ignore:got .* videos that do not fit")


@pytest.fixture
def root(tmp_path, make_video):
    for i in range(8):
        make_video(tmp_path / "v" / "train" / f"{i}.mp4", 20, first=10 * i, step=3)
    make_video(tmp_path / "v" / "held_out" / "0.mp4")
    return str(tmp_path / "v")


@pytest.fixture
def crashing(monkeypatch):
    """Decode processes that crash or hang on files of certain names."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import crashing_decoder

    monkeypatch.setattr(flexivid.data.module, "DecodePool", partial(DecodePool, work=crashing_decoder.read))


def ready(root, *, rank=0, world_size=1, log_dir=None, **options):
    """A data module without a cache, on some rank, whose clips of an epoch are fixed and all different."""
    options = {"batch_size": 3, "num_frames": 4, "size": 16, "windows": "all", **options}
    datamodule = VideoDataModule(root, cache_gib=0, **options)
    trainer = {"global_rank": rank, "world_size": world_size, "log_dir": log_dir, "global_step": 0, "max_steps": -1}
    datamodule.trainer = SimpleNamespace(**trainer, accumulate_grad_batches=1, max_epochs=1, overfit_batches=0.0)
    datamodule.setup()
    return datamodule


def clips(batches):
    return [clip.numpy().tobytes() for batch in batches for clip in batch["video"]]


@pytest.fixture
def epoch(root):
    datamodule = ready(root)
    whole = [datamodule.splits.train[clip, 0]["video"].numpy().tobytes() for clip in range(datamodule.num_clips)]
    assert len(set(whole)) == len(whole) == 8 * 5
    return whole


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [4, 5])
def test_two_ranks_share_an_epoch(root, epoch, num_workers, batch_size):
    ranks = [ready(root, num_workers=num_workers, batch_size=batch_size, rank=rank, world_size=2) for rank in (0, 1)]
    shares = [clips(datamodule.train_dataloader()) for datamodule in ranks]
    for datamodule in ranks:
        datamodule.teardown()
    assert [len(share) for share in shares] == [20, 20]
    assert sorted(shares[0] + shares[1]) == sorted(epoch)


def children(pid):
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            yield int(file.parent.name)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_killed_workers_cost_no_clip(root, epoch):
    datamodule = ready(root, num_workers=2, batch_size=2)
    before = set(children(os.getpid()))
    seen = []
    for number, batch in enumerate(datamodule.train_dataloader()):
        seen += clips([batch])
        if number in (2, 9, 16):
            workers = set(children(os.getpid())) - before
            assert workers
            os.kill(min(workers), signal.SIGKILL)  # one: its clip may go to the next process at once, and a clip
            # whose process dies twice is blamed for it
    datamodule.teardown()
    assert sorted(seen) == sorted(epoch)
    assert datamodule.skipped["bad"] == 0


@pytest.mark.usefixtures("crashing")
@pytest.mark.parametrize("kind", ["crash", "hang"])
def test_a_file_that_ends_its_decoder_costs_that_file_only(root, epoch, make_video, tmp_path, kind):
    make_video(Path(root) / "train" / f"{kind}.mp4", 20, first=90, step=3)
    options = {"num_workers": 2, "max_bad_fraction": 0.2, "max_seconds_per_file": 20 if kind == "crash" else 5}
    datamodule = ready(root, log_dir=str(tmp_path / "run"), batch_size=9, **options)
    with pytest.warns(UserWarning, match=rf"got 1 of 10 files .*bad_videos\.jsonl: .*{kind}\.mp4: "):
        seen = clips(datamodule.train_dataloader())
    datamodule.teardown()
    assert len(seen) == 45
    assert set(seen) == set(epoch)
    (line,) = (tmp_path / "run" / "bad_videos.jsonl").read_text().splitlines()
    assert json.loads(line)["path"].endswith(f"{kind}.mp4")
    assert datamodule.skipped["bad"] == 1


@pytest.mark.usefixtures("crashing")
def test_too_many_failures_end_the_run(root, make_video):
    make_video(Path(root) / "train" / "crash.mp4", 20)
    datamodule = ready(root)
    with pytest.raises(ValueError, match=r"got 1 of 10 .*crash\.mp4: .*raise data\.max_bad_fraction"):
        list(datamodule.train_dataloader())
    datamodule.teardown()


def test_validation_leaves_out_what_fails(root, make_video):
    for i in range(3):
        make_video(Path(root) / "held_out" / f"{i}.mp4", first=i)
    datamodule = ready(root, max_bad_fraction=0.5)
    whole = clips(datamodule.val_dataloader())
    (Path(root) / "held_out" / "1.mp4").write_bytes(b"gone")
    with pytest.warns(UserWarning, match=r"1\.mp4"):
        rest = clips(datamodule.val_dataloader())
    datamodule.teardown()
    assert (len(whole), len(rest)) == (12, 8)
    assert set(rest) < set(whole)


def test_buckets_through_the_data_module(root, make_video):
    for i in range(5):
        make_video(Path(root) / "train" / f"wide{i}.mp4", 20, size=(32, 64), first=10 * i, step=3)
    shapes = [(4, 16, 16), (8, 16, 32)]
    shares = []
    for rank in (0, 1):
        datamodule = ready(root, buckets=[list(shape) for shape in shapes], rank=rank, world_size=2)
        shares.append([batch["video"] for batch in datamodule.train_dataloader()])
        assert all(batch["video"].shape[2:] in shapes for batch in datamodule.val_dataloader())
        datamodule.teardown()
    assert all(one.shape == other.shape for one, other in zip(*shares, strict=True))
    assert {tuple(batch.shape[2:]) for batch in shares[0]} == set(shapes)


def test_rate_of_the_clips(root):
    datamodule = ready(root, fps=4)  # the videos have 8 frames a second
    batch = next(iter(datamodule.train_dataloader()))
    datamodule.teardown()
    levels = batch["video"].float().mean(dim=(1, 3, 4))
    assert torch.allclose(levels.diff(), torch.tensor(6.0), atol=2.5)
    assert datamodule.fps == 4

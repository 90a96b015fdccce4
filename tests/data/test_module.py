"""The data module under a real Trainer: exact resume, ranks that share, accounts of what is left out."""

import json
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import BatchSampler

from flexivid.data import VideoDataModule, VideoError

ROOT = Path(__file__).resolve().parents[2]


class Watcher(pl.LightningModule):
    """Remembers which batches it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, index):
        self.seen.append((self.global_step, batch["video"].float().mean(dim=(1, 2, 3, 4)).tolist()))
        return self.weight * 1

    def validation_step(self, batch, index):
        self.validated += batch["label"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def root(tmp_path, make_video):
    for i in range(10):
        make_video(tmp_path / "v" / "train" / "ab"[i % 2] / f"{i}.mp4", 20, first=10 * i, step=3)
    for i in range(5):
        make_video(tmp_path / "v" / "held_out" / "ab"[i % 2] / f"{i}.mp4")
    return str(tmp_path / "v")


def data(root, **options):
    return VideoDataModule(root, **{"batch_size": 3, "num_frames": 4, "size": 16, **options})


def fit(datamodule, folder, checkpoint=None, **options):
    model = Watcher()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    once = {"enable_checkpointing": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(default_root_dir=folder, **once, **quiet, **options)
    trainer.fit(model, datamodule, ckpt_path=checkpoint)
    return trainer, model


def stub(**changes):
    return SimpleNamespace(
        **{
            "global_rank": 0,
            "world_size": 1,
            "global_step": 0,
            "accumulate_grad_batches": 1,
            "max_steps": 20,
            "max_epochs": -1,
            "val_check_interval": 1.0,
            "overfit_batches": 0.0,
            "log_dir": None,
            **changes,
        }
    )


def test_batches(root):
    datamodule = data(root, size=(16, 24), stride=2)
    datamodule.setup("fit")
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["video"].shape == (3, 3, 4, 16, 24)
    assert (batch["video"].dtype, batch["label"].dtype) == (torch.uint8, torch.int64)
    assert (datamodule.class_names, datamodule.num_classes, datamodule.num_clips) == (("a", "b"), 2, 20)
    assert datamodule.fps == pytest.approx(4)
    assert datamodule.skipped == {"bad": 0, "too_short": 0}


def test_captions_come_with_their_clips(tmp_path, make_video):
    paths = [make_video(tmp_path / f"{i}.mp4", first=20 * i, step=0) for i in range(10)]
    lines = [f"{path.name},{'' if i == 3 else f'number {i}'}" for i, path in enumerate(paths)]
    (tmp_path / "list.csv").write_text("\n".join(["path,caption", *lines]))
    datamodule = data(str(tmp_path / "list.csv"), batch_size=9)
    datamodule.setup()
    seen = set()
    for batch in [*datamodule.train_dataloader(), *datamodule.val_dataloader()]:
        numbers = (batch["video"].float().mean(dim=(1, 2, 3, 4)) / 20).round().int().tolist()
        assert batch["caption"] == ["" if i == 3 else f"number {i}" for i in numbers]
        seen |= set(batch["caption"])
    assert len(seen) == 10
    dataset = datamodule.splits.train
    assert dataset[0, 0]["caption"] == dataset.caption(0)


def test_no_captions_no_key(tmp_path, make_video):
    for i in range(3):
        make_video(tmp_path / f"{i}.mp4")
    datamodule = data(str(tmp_path))
    datamodule.setup()
    assert set(next(iter(datamodule.train_dataloader()))) == {"video", "label"}


def test_a_pinned_decoder_refuses_what_it_does_not_decode_exactly(root, monkeypatch):
    plain, pinned = data(root), data(root, decoder="decord")
    pinned.setup()
    videos = pinned.splits.train.videos
    assert {videos.decoder(row) for row in range(len(videos))} == {"decord"}
    (Path(root) / "train" / "a" / "0.mp4").touch()
    monkeypatch.setattr("flexivid.data.splits.probe_many", lambda paths, pool, decoder: [_inexact(p) for p in paths])
    with pytest.raises(ValueError, match=r"got 1 of 15 files .*a/0\.mp4: not decoded exactly by decord"):
        data(root, decoder="decord").setup()
    monkeypatch.undo()
    plain.setup()
    assert plain.skipped["bad"] == 0


def _inexact(path):
    return VideoError(path, "not decoded exactly by decord (decord counts other frames); decoder=auto takes another")


def test_files_that_killed_a_decoder_are_not_tried_after_a_resume(root):
    first, second = data(root, cache_gib=0, max_bad_fraction=0.1), data(root, cache_gib=0, max_bad_fraction=0.1)
    first.setup()
    path = first.splits.train.videos.path(2)
    first._died[path] = "takes longer than 60 seconds"
    second.setup()
    with pytest.warns(UserWarning, match=r"got 1 of 15 files .*takes longer than 60 seconds"):
        second.load_state_dict(first.state_dict())
    asked = []
    second._pool = second._new_pool(1)
    submit = second._pool.submit
    second._pool.submit = lambda request: asked.append(request.path) or submit(request)
    dataset = second.splits.train
    for batch in second.train_dataloader():
        assert len(batch["label"]) == 3
    assert {dataset.videos.path(row) for row in range(len(dataset.videos))} - set(asked) == {path}
    assert second.skipped["bad"] == 1
    second.teardown()


def test_ranks_take_their_own_share_of_the_state(root):
    everyones = {"died": [{"a.mp4": "hangs"}, {"b.mp4": "hangs"}]}

    def loaded(**changes):
        datamodule = data(root, max_bad_fraction=1.0)
        datamodule.trainer = stub(**changes)
        datamodule.setup()
        with pytest.warns(UserWarning, match="hangs"):
            datamodule.load_state_dict(everyones)
        return set(datamodule._died)

    assert loaded(global_rank=1, world_size=2) == {"b.mp4"}
    assert loaded(global_rank=1, world_size=3) == loaded() == {"a.mp4", "b.mp4"}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_run_equals_uninterrupted(root, tmp_path, accumulate):
    def make():
        datamodule = data(root)
        datamodule.set_batch_sizes(lambda global_step: 2 + global_step % 3)
        return datamodule

    options = {"accumulate_grad_batches": accumulate, "val_check_interval": 100}
    _, whole = fit(make(), tmp_path, max_steps=17, **options)
    trainer, first = fit(make(), tmp_path, max_steps=6, **options)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable.*")
        _, rest = fit(make(), tmp_path, tmp_path / "first.ckpt", max_steps=17, **options)
    assert first.seen + rest.seen == whole.seen
    assert [len(values) for _, values in whole.seen[::accumulate]] == [2 + step % 3 for step in range(17)]


def test_epochs_follow_each_other(root, tmp_path):
    _, model = fit(data(root, batch_size=6), tmp_path, max_epochs=3)
    assert len(model.seen) == 3 * 9  # 50 clips in batches of 6
    assert len({tuple(values) for _, values in model.seen}) == 27
    assert len(model.validated) == 3 * 20  # 5 videos of 16 frames: 4 clips of 4 frames each


def test_overfitting_repeats_its_batches(root, tmp_path):
    _, model = fit(data(root), tmp_path, max_epochs=3, overfit_batches=2)
    assert len({tuple(values) for _, values in model.seen}) == 2


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_without_overlap(root, world_size):
    def batches(kind, **changes):
        datamodule = data(root, val_clips=7)
        datamodule.trainer = stub(**changes)
        datamodule.setup()
        return [batch["video"] for batch in getattr(datamodule, kind)()]

    for kind in ("train_dataloader", "val_dataloader"):
        ranks = [torch.cat(batches(kind, global_rank=rank, world_size=world_size)) for rank in range(world_size)]
        alone = torch.cat(batches(kind, max_steps=20 * world_size))
        clips = [clip.numpy().tobytes() for clip in alone]
        shared = [clip.numpy().tobytes() for rank in ranks for clip in rank]
        assert sorted(shared) == sorted(clips)
    assert len(clips) == 7


def test_lightning_leaves_the_loaders_alone(root):
    datamodule = data(root)
    datamodule.setup()
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader()):
        assert not isinstance(loader, torch.utils.data.DataLoader)
        assert not isinstance(loader.batches, BatchSampler)


def test_bad_files_are_listed_and_limited(root, tmp_path):
    (Path(root) / "train" / "a" / "bad.mp4").write_bytes(b"junk")
    with pytest.warns(UserWarning, match=r"got 1 of 16 files .*bad_videos\.jsonl: .*bad\.mp4: cannot be opened"):
        trainer, _ = fit(data(root, max_bad_fraction=0.1), tmp_path / "run", max_steps=1)
    (line,) = (tmp_path / "run" / "bad_videos.jsonl").read_text().splitlines()
    assert json.loads(line)["path"].endswith("bad.mp4")
    assert trainer.datamodule.skipped == {"bad": 1, "too_short": 0}
    with pytest.raises(ValueError, match=r"got 1 of 16 .*at most 0\.05; .*raise data\.max_bad_fraction"):
        data(root).setup()


def test_what_is_left_out_is_said(root, make_video, tmp_path):
    make_video(Path(root) / "train" / "a" / "short.mp4", 3)
    datamodule = data(root, cache_gib=0)
    with pytest.warns(UserWarning, match="data.short=loop") as caught:
        datamodule.setup()
    messages = [str(warning.message) for warning in caught]
    assert any("got 1 videos shorter than the 4 frames of a clip" in message for message in messages)
    assert any("got 15 videos that do not fit into data.cache_gib=0" in message for message in messages)
    make_video(tmp_path / "one" / "a.mp4", 5)
    alone = data(str(tmp_path / "one"))
    with pytest.warns(UserWarning, match="there is no validation"):
        alone.setup()
    assert alone.val_dataloader() == []


@pytest.mark.parametrize("name", ["num_frames", "stride", "batch_size", "size"])
def test_refusals(name):
    with pytest.raises(ValueError, match=rf"got data\.{name}=0; expected .*at least 1; raise data\.{name}"):
        VideoDataModule("v", **{name: 0})


def test_importing_the_room_imports_neither_torch_nor_lightning():
    code = "import sys, flexivid.data; print(sorted({'torch', 'lightning', 'decord'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_two_real_ranks_share_the_stream(root, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(f"""
        import json, sys, torch
        sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
        from test_module import Watcher, data, pl
        model = Watcher()
        trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=5, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0)
        trainer.fit(model, data({root!r}, val_clips=7))
        name = f"{{trainer.global_rank}}.json"
        open({str(tmp_path)!r} + "/" + name, "w").write(json.dumps([model.seen, model.validated]))
        torch.distributed.destroy_process_group()
        """)
    )
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True, timeout=120)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    _, alone = fit(data(root, batch_size=6, val_clips=7), tmp_path, max_steps=5)
    joined = [first[1] + second[1] for first, second in zip(ranks[0][0], ranks[1][0], strict=True)]
    assert joined == [values for _, values in alone.seen]
    assert sorted(ranks[0][1] + ranks[1][1]) == sorted(alone.validated)


@pytest.mark.parametrize(("stage", "merged"), [("fit", [True]), ("validate", [True]), ("predict", [])])
def test_ranks_merge_their_accounts_at_the_end_of_a_run(root, stage, merged, monkeypatch):
    datamodule, seen = data(root), []
    datamodule.setup()
    monkeypatch.setattr(datamodule._bad, "end", lambda is_first: seen.append(is_first))
    datamodule.teardown(stage)
    assert seen == merged


def test_a_file_that_goes_while_training_ends_no_run(tmp_path, make_video):
    for i in range(6):
        make_video(tmp_path / f"{i}.mp4", 200, first=i, step=1)
    module = data(str(tmp_path), cache_gib=0, num_workers=1, max_bad_fraction=0.5)
    module.setup("fit")
    (tmp_path / "1.mp4").unlink()
    with pytest.warns(UserWarning, match="1 of 6 files"):
        batches = [len(batch["label"]) for batch, _ in zip(module.train_dataloader(), range(30), strict=False)]
    module.teardown("fit")
    assert batches == [3] * 30

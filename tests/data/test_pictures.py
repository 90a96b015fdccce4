"""Pictures among videos: each a video of one frame; steps of pictures are the same on all ranks and after a resume."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from flexivid.data import VideoDataModule
from flexivid.data.clips.sampler import PictureSteps
from flexivid.data.sources.layout import Collection
from flexivid.data.sources.manifest import read_manifests
from flexivid.dataset import main
from flexivid.latents.codec import build_codec
from flexivid.media.pixels import to_unit
from tests.latents.codecs import save_network

SIZE, STEPS = 16, 30


@pytest.fixture
def root(tmp_path, make_video):
    """Videos of dark greys below 100, pictures of bright ones, all different; two held-out videos."""
    for i in range(6):
        make_video(tmp_path / "mix" / "train" / "ab"[i % 2] / f"{i}.mp4", 20, first=4 * i, step=3)
    for i in range(7):
        path = tmp_path / "mix" / "train" / "ac"[i % 2] / f"still {i}.{('png', 'jpg')[i % 2]}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 30, 3), 150 + 10 * i, np.uint8)).save(path)
    for i in range(2):
        make_video(tmp_path / "mix" / "held_out" / "ab"[i] / f"{i}.mp4")
    return str(tmp_path / "mix")


def batches_of(root, *, step=0, rank=0, world_size=1, accumulate=1, **settings):
    """The batches of a rank from a global step on."""
    data = VideoDataModule(root, **{"batch_size": 2, "seed": 3, **settings})
    data.trainer = SimpleNamespace(
        **{"global_rank": rank, "world_size": world_size, "accumulate_grad_batches": accumulate, "global_step": step},
        **{"max_steps": STEPS - step, "max_epochs": -1, "val_check_interval": None, "overfit_batches": 0},
        log_dir=None,
    )
    data.setup()
    batches = list(data.train_dataloader())
    data.teardown()
    return batches


def levels(batch):
    return batch["video"].float().mean((1, 2, 3, 4)).tolist()


def are_equal(batches, others):
    return all(torch.equal(a["video"], b["video"]) for a, b in zip(batches, others, strict=True))


def test_a_picture_is_a_video_of_one_frame_where_asked_for(root):
    paths = {pictures: read_manifests(Collection(root, "auto", pictures)).train.table["path"] for pictures in (0, 1)}
    assert [len(paths[pictures]) for pictures in (0, 1)] == [6, 13]


def test_pixels_are_those_of_the_picture_upright(tmp_path):
    """As phones store them: turned, with a mark that says so."""
    (tmp_path / "v").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (24, SIZE, 3), np.uint8)
    mark = Image.Exif()
    mark[0x0112] = 6  # turn by 90 degrees clockwise to show
    Image.fromarray(np.rot90(picture)).save(tmp_path / "v" / "a.png", exif=mark)
    Image.fromarray(picture).save(tmp_path / "v" / "b.png")
    data = VideoDataModule(str(tmp_path / "v"), num_frames=1, size=(24, SIZE), pictures=True, batch_size=1)
    data.setup()
    assert data.skipped == {"bad": 0, "too_short": 0}
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch["video"][0, :, 0], torch.from_numpy(picture).permute(2, 0, 1))
    data.teardown()


def test_buckets_take_both_out_of_one_folder(root):
    """Every clip once an epoch: nine of six videos, and seven pictures."""
    batches = batches_of(root, pictures=True, buckets=[[8, SIZE, SIZE], [1, SIZE, SIZE]], batch_size=1)
    shapes = [batch["video"].shape[2] for batch in batches]
    assert {*shapes} == {1, 8}
    assert len(batches) == STEPS
    first = [levels(batch)[0] for batch in batches if batch["video"].shape[2] == 1][:7]
    assert sorted(round(level, -1) for level in first) == [150 + 10 * i for i in range(7)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ranks_draw_the_same_kind_and_share_the_clips(root, accumulate):
    settings = {
        "picture_root": root,
        "picture_share": 0.4,
        "size": SIZE,
        "num_frames": 8,
        "accumulate": accumulate,
    }
    alone = batches_of(root, **settings, batch_size=4)
    ranks = [batches_of(root, **settings, rank=rank, world_size=2) for rank in range(2)]
    for batch, *shares in zip(alone, *ranks, strict=True):
        assert torch.equal(batch["video"], torch.cat([share["video"] for share in shares]))
    steps = PictureSteps(3, 0.4)
    kinds = [batch["video"].shape[2] == 1 for batch in alone]
    assert kinds == [steps.at(step // accumulate) for step in range(accumulate * STEPS)]
    assert 0.2 < np.mean(kinds) < 0.6
    pictures = [level for batch, is_picture in zip(alone, kinds, strict=True) if is_picture for level in levels(batch)]
    assert len({round(level) for level in pictures[:13]}) == 13  # each file once an epoch: pictures, frames of videos


def test_a_run_resumes_at_the_exact_batch(root):
    settings = {"picture_root": root, "picture_share": 0.4, "size": SIZE, "num_frames": 8}
    batches = batches_of(root, **settings)
    for step in (1, 7, 20):
        assert are_equal(batches[step:], batches_of(root, step=step, **settings))


def test_classes_are_matched_by_name_and_a_missing_caption_is_the_null_text(root, tmp_path):
    (tmp_path / "loose").mkdir()
    Image.fromarray(np.full((SIZE, SIZE, 3), 200, np.uint8)).save(tmp_path / "loose" / "x.png")
    batches = batches_of(root, picture_root=root, picture_share=0.5, size=SIZE)
    bright = [
        (round(level, -1), label, caption)
        for batch in batches
        for level, label, caption in zip(levels(batch), batch["label"].tolist(), batch["caption"], strict=True)
        if level > 140
    ]
    assert {(int(level) // 10 % 2, label, caption) for level, label, caption in bright} == {(1, 0, "a"), (0, -1, "c")}
    batches = batches_of(root, picture_root=str(tmp_path / "loose"), picture_share=0.5, size=SIZE)
    stills = [batch for batch in batches if batch["video"].shape[2] == 1]
    assert {(*batch["label"].tolist(), *batch["caption"]) for batch in stills} == {(-1, -1, "", "")}


def test_a_mixed_folder_is_encoded_and_trained_on(root, tmp_path):
    """Videos into one folder, pictures into another; latents are those of the codec."""
    codec = str(tmp_path / "vae")
    save_network("CausalAutoencoder", tmp_path / "vae")
    words = ["--codec", codec, "--size", str(SIZE)]
    videos, stills = str(tmp_path / "videos"), str(tmp_path / "stills")
    main(["encode", root, videos, *words, "--num-frames", "5"])
    main(["encode", root, stills, *words, "--num-frames", "1", "--pictures", "--clips-per-video", "1"])
    batches = batches_of(videos, picture_root=stills, picture_share=0.4)
    in_pixels = batches_of(
        root, picture_root=root, picture_share=0.4, size=SIZE, num_frames=5, windows="uniform", flip=False
    )
    network = build_codec(codec)
    kinds = set()
    for latents, clips in zip(batches, in_pixels, strict=True):
        kinds.add(latents["latent"].shape[2])
        assert torch.equal(latents["latent"], network.encode(to_unit(clips["video"])))
        assert torch.equal(latents["label"], clips["label"])
        assert latents["caption"] == clips["caption"]
    assert kinds == {1, 2}
    save_network("AutoencoderTiny", tmp_path / "other")
    main(
        [
            "encode",
            root,
            str(tmp_path / "wrong"),
            "--codec",
            str(tmp_path / "other"),
            "--size",
            "16",
            "--num-frames",
            "1",
        ]
    )
    with pytest.raises(ValueError, match=r"got data.picture_root=.*wrong with codec_fingerprint .*; expected"):
        VideoDataModule(videos, picture_root=str(tmp_path / "wrong"))
    with pytest.raises(ValueError, match=r"with clips of \(5, 16, 16\); expected \(1, 16, 16\)"):
        VideoDataModule(videos, picture_root=videos)


def test_texts_of_both_are_encoded_once(root, tmp_path, text_folder, codec_folder):
    """Pictures without a caption have the null text; another text encoder, or none, is refused."""
    (tmp_path / "photos").mkdir()
    for i in range(4):
        picture = np.full((SIZE, SIZE, 3), 60 * i, np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{i}.png")
        if i:
            (tmp_path / "photos" / f"{i}.txt").write_text("a red cube")
    videos, stills, plain = (str(tmp_path / name) for name in ("encoded videos", "encoded stills", "plain"))
    words = ["--codec", codec_folder, "--size", str(SIZE)]
    texts, pictures = ["--text-encoder", text_folder], ["--num-frames", "1", "--pictures"]
    main(["encode", root, videos, *words, *texts, "--num-frames", "5", "--class-captions"])
    main(["encode", str(tmp_path / "photos"), stills, *words, *texts, *pictures, "--allow-missing-captions"])
    lengths = {1: set(), 3: set()}  # captions and their tokens, by latent frames
    for batch in batches_of(videos, picture_root=stills, picture_share=0.4):
        lengths[batch["latent"].shape[2]] |= {*zip(batch["caption"], batch["text_mask"].sum(1).tolist(), strict=True)}
    assert lengths == {1: {("", 0), ("a red cube", 3)}, 3: {("a", 1), ("b", 1)}}
    main(["encode", str(tmp_path / "photos"), plain, *words, *pictures])
    with pytest.raises(ValueError, match=r"plain with text_fingerprint None; expected \w{16}, .* encode both"):
        VideoDataModule(videos, picture_root=plain)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"picture_share": 1.0}, "got data.picture_share=1.0"),
        ({"buckets": [[8, 16, 16]]}, "got data.buckets and data.pict"),
    ],
)
def test_what_cannot_be_is_refused(root, settings, words):
    with pytest.raises(ValueError, match=words):
        VideoDataModule(root, picture_root=root, **settings)

"""Cached latents are what encoding the pixels would give, for the clips that training asks for, or they are refused."""

from pathlib import Path

import pytest
import torch

from flexivid.data import VideoDataModule
from flexivid.data.clips.latent_cache import open_latents, write_latents
from flexivid.data.workers.pool import DecodePool

CODEC = "halves 1"


def encode(video):
    """A quarter of the pixels, scaled."""
    return video[:, :, :, ::2, ::2].float() / 255


@pytest.fixture
def root(tmp_path, make_video):
    for i in range(6):
        make_video(tmp_path / "v" / "train" / "ab"[i % 2] / f"{i}.mp4", 16 + 4 * i, first=10 * i, step=3)
    make_video(tmp_path / "v" / "val" / "a" / "0.mp4", 20)
    return tmp_path / "v"


def data(root, **options):
    settings = {"num_frames": 4, "size": 16, "batch_size": 3, "windows": "uniform", "cache_gib": 0, **options}
    datamodule = VideoDataModule(str(root), **settings)
    datamodule.setup()
    return datamodule


def write(splits, folder):
    with DecodePool(1) as pool:
        for name, dataset in (("train", splits.train), ("val", splits.val)):
            write_latents(folder, dataset, encode, codec=CODEC, pool=pool, name=name)


def test_batches_are_those_of_the_pixels(root, tmp_path):
    from_pixels = data(root)
    write(from_pixels.splits, tmp_path / "latents")
    from_latents = data(root, latents=str(tmp_path / "latents"))
    assert (from_latents.latent_codec, from_pixels.latent_codec) == (CODEC, None)
    for kind in ("train_dataloader", "val_dataloader"):
        pixels, latents = (list(getattr(datamodule, kind)()) for datamodule in (from_pixels, from_latents))
        assert len(pixels) == len(latents) > 1
        for one, other in zip(pixels, latents, strict=True):
            assert "video" not in other
            assert torch.equal(encode(one["video"]).half(), other["latent"])
            assert torch.equal(one["label"], other["label"])
            assert one["caption"] == other["caption"]
    from_pixels.teardown()


def test_a_clip_without_a_latent_is_replaced(root, tmp_path):
    splits = data(root).splits
    gone = Path(splits.train.videos.path(0))
    content = gone.read_bytes()
    gone.write_bytes(b"")
    write(splits, tmp_path / "latents")
    gone.write_bytes(content)
    number = int(splits.train.counts[0])
    assert open_latents(tmp_path / "latents", splits.train).missing == set(range(number))
    with pytest.warns(UserWarning, match=f"got {number} clips without a latent"):
        datamodule = data(root, latents=str(tmp_path / "latents"))
    latents = torch.cat([batch["latent"] for batch in datamodule.train_dataloader()])
    assert len(latents) == len(splits.train)
    first = encode(splits.train[number, 0]["video"][None]).half()
    assert sum(torch.equal(latent[None], first) for latent in latents) == number + 1


@pytest.mark.parametrize("change", [{"stride": 2}, {"size": 32}, {"clips_per_video": 1, "windows": "first"}])
def test_latents_of_other_clips_are_refused(root, tmp_path, change):
    write(data(root).splits, tmp_path)
    with pytest.raises(ValueError, match=r"got .*train\.npy of clips with .*write the latents anew"):
        data(root, latents=str(tmp_path), **change)


def test_latents_of_other_videos_are_refused(root, tmp_path, make_video):
    write(data(root).splits, tmp_path / "l")
    make_video(root / "train" / "a" / "0.mp4", 16, first=99)
    with pytest.raises(ValueError, match="of clips with videos="):
        data(root, latents=str(tmp_path / "l"))


@pytest.mark.parametrize("change", [{"windows": "random"}, {"flip": True}, {"crop": "random"}])
def test_clips_that_are_drawn_anew_have_no_latents(root, tmp_path, change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"got data\.latents and data\.{name}={value}; .*set data\.{name}="):
        data(root, latents=str(tmp_path), **change)


def test_nothing_to_encode_is_said(root, tmp_path):
    dataset = data(root).splits.val
    Path(dataset.videos.path(0)).write_bytes(b"")
    with pytest.raises(ValueError, match=r"got \d+ clips, none of which can be decoded"), DecodePool(1) as pool:
        write_latents(tmp_path / "l", dataset, encode, codec=CODEC, pool=pool)
    assert list((tmp_path / "l").iterdir()) == []

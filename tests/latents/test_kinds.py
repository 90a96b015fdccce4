"""Every class of autoencoder, saved to disk: sizes, frames, normalisation as in diffusers' pipelines, pieces, tiles."""

from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers import CogVideoXPipeline, LTX2Pipeline, LTXPipeline
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flexivid.latents.autoencoder import AutoencoderCodec
from flexivid.latents.codec import build_codec
from flexivid.latents.kinds import KINDS
from flexivid.latents.settings import CodecSettings
from flexivid.latents.taef2 import TAEF2
from tests.latents.codecs import CASES, make_network, save_network

IMAGES = [name for name, case in CASES.items() if not case.temporal]
VIDEOS = [name for name, case in CASES.items() if case.temporal]


def codec_of(name, **settings):
    return AutoencoderCodec(make_network(name), CodecSettings(name, **settings), "0" * 12)


def clip(frames, height=32, width=48, batch=2):
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def smooth_clip(frames, height, width, unit):
    """Slow waves, of about 40 latent cells: neighbouring tiles see nearly the same."""
    sides = torch.arange(float(frames)), torch.arange(float(height)) / unit, torch.arange(float(width)) / unit
    t, y, x = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([0.5 * torch.sin(0.15 * y + 0.1 * t + k) * torch.cos(0.12 * x + k) for k in range(3)])[None]


def pipelines_pixels(network, name, latent):
    """What the pipelines do to the latents of a denoised video, by their own code where it can be called alone."""
    config = network.config
    if "LTX2" in name:
        raw = LTX2Pipeline._denormalize_latents(
            latent, network.latents_mean, network.latents_std, config.scaling_factor
        )
        return network.decode(raw, None, return_dict=False)[0]
    if "LTX" in name:
        raw = LTXPipeline._denormalize_latents(latent, network.latents_mean, network.latents_std, config.scaling_factor)
        time = torch.tensor([0.0] * len(latent)) if config.timestep_conditioning else None
        return network.decode(raw, time, return_dict=False)[0]
    if "CogVideoX" in name:
        pipeline = SimpleNamespace(vae=network, vae_scaling_factor_image=config.scaling_factor)
        return CogVideoXPipeline.decode_latents(pipeline, latent.permute(0, 2, 1, 3, 4))
    if "Wan" in name:
        mean = torch.tensor(config.latents_mean).view(1, config.z_dim, 1, 1, 1)
        reciprocal = 1.0 / torch.tensor(config.latents_std).view(1, config.z_dim, 1, 1, 1)
        return network.decode(latent / reciprocal + mean, return_dict=False)[0]
    if "Hunyuan" in name:
        return network.decode(latent / config.scaling_factor, return_dict=False)[0]
    shift = getattr(config, "shift_factor", None) or 0.0
    images = latent.transpose(1, 2).flatten(0, 1) / config.scaling_factor + shift
    return network.decode(images, return_dict=False)[0].unflatten(0, (len(latent), -1)).transpose(1, 2)


def raw_latents(network, name, video):
    """Means of the posterior, by the public call."""
    if CASES[name].temporal:
        return network.encode(video).latent_dist.mode()
    coded = network.encode(video.transpose(1, 2).flatten(0, 1))
    raw = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded[0]
    return raw.unflatten(0, (len(video), -1)).transpose(1, 2)


@pytest.mark.parametrize("name", CASES)
def test_round_trip_from_disk_for_any_number_of_frames(tmp_path, name):
    save_network(name, tmp_path / "vae")
    codec, case = build_codec(str(tmp_path)), CASES[name]
    assert (codec.spatial, codec.temporal, codec.causal) == (case.spatial, case.temporal or 1, case.temporal > 0)
    for frames in (1, 4, 5, 9, 11):
        video = clip(frames, batch=1)
        latent = codec.encode(video)
        coded = frames if not case.temporal else 1 + -(-(frames - 1) // case.group) * case.group
        count = frames if not case.temporal else 1 + (coded - 1) // case.temporal
        assert latent.shape == (1, codec.channels, count, 32 // case.spatial, 48 // case.spatial)
        assert tuple(latent.shape[2:]) == codec.latent_size(frames, 32, 48)
        assert codec.decode(latent, frames).shape == video.shape
        assert codec.video_size(*latent.shape[2:]) == (coded, 32, 48)
        assert latent.dtype == torch.float32
        assert torch.equal(latent, codec.encode(video))


@pytest.mark.parametrize("name", VIDEOS)
def test_missing_frames_are_repeats_of_the_last_one(name):
    codec = codec_of(name)
    video = clip(6, batch=1)
    missing = codec.fit_frames(6) - 6
    assert missing > 0
    longer = torch.cat([video, *[video[:, :, -1:]] * missing], dim=2)
    assert torch.equal(codec.encode(video), codec.encode(longer))
    assert torch.equal(codec.decode(codec.encode(video), 6), codec.decode(codec.encode(longer))[:, :, :6])


@pytest.mark.parametrize("name", [name for name in CASES if name != "CausalAutoencoder"])
def test_latents_mean_what_they_mean_in_the_pipelines(name):
    codec, network, video = codec_of(name), make_network(name), clip(9, batch=1)  # HunyuanVideo15 takes no more
    latent = codec.encode(video)
    with torch.no_grad():
        expected = pipelines_pixels(network, name, latent)
        assert torch.allclose(codec.decode(latent), expected, atol=1e-5)
        raw = raw_latents(network, name, video)
        assert torch.allclose(network_pixels(network, name, raw), expected, atol=1e-4)


def network_pixels(network, name, raw):
    """Raw latents through the decoder; equal to the pipeline's pixels only if encoding undoes what it does."""
    if "LTX" in name:
        time = torch.zeros(len(raw)) if network.config.timestep_conditioning else None
        return network.decode(raw, time)[0]
    if CASES[name].temporal:
        return network.decode(raw)[0]
    return network.decode(raw.transpose(1, 2).flatten(0, 1))[0].unflatten(0, (len(raw), -1)).transpose(1, 2)


def test_means_and_deviations_of_sdxl_variants():
    settings = dict(
        CASES["AutoencoderKL"].settings, latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 3.0, 4.0]
    )
    codec = AutoencoderCodec(diffusers.AutoencoderKL(**settings), CodecSettings("kl"), "")
    shift, scale = codec.scale
    latent = torch.ones(4)  # StableDiffusionXLPipeline: latents * std / scaling_factor + mean
    expected = latent * torch.tensor(settings["latents_std"]) / 0.3 + torch.tensor(settings["latents_mean"])
    assert torch.allclose(latent / scale + shift, expected)


@pytest.mark.parametrize("name", IMAGES)
def test_pieces_equal_the_whole(name):
    """Frame by frame bit for bit, however long the clip is; libraries add up larger batches in another order."""
    single, video = codec_of(name, frames=1), clip(7)
    latent = single.encode(video)
    assert torch.equal(latent[:, :, 2:5], single.encode(video[:, :, 2:5]))
    assert torch.equal(single.decode(latent)[:, :, 2:5], single.decode(latent[:, :, 2:5]))
    for frames in (3, 7):
        pieces = codec_of(name, frames=frames)
        assert torch.allclose(pieces.encode(video), latent, atol=1e-5)
        assert torch.allclose(pieces.decode(latent), single.decode(latent), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_latent_does_not_depend_on_the_batch_or_on_autocast(name):
    codec, video = codec_of(name), clip(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together = codec.encode(video)
    assert torch.equal(together, torch.cat([codec.encode(video[:1]), codec.encode(video[1:])]))


@pytest.mark.parametrize("name", CASES)
def test_tiles_equal_the_whole_on_smooth_videos(name):
    """In units of the deviation, on average; where norms or attention see the whole picture, tiles cannot be equal."""
    limits = {"AutoencoderKL": 0.5, "AutoencoderKLCogVideoX": 0.75, "AutoencoderKLHunyuanVideo": 0.55}
    limit = limits.get(name, 0.2 if name in ("AutoencoderKLHunyuanVideo15", "AutoencoderDC") else 0.12)
    unit = CASES[name].spatial
    video, whole, tiled = smooth_clip(1, 12 * unit, 20 * unit, unit), codec_of(name), codec_of(name, tile=12 * unit)
    latent, in_parts = whole.encode(video), tiled.encode(video)
    assert tiled.piece_size(1, 12 * unit, 20 * unit)[1:] == (12 * unit, 12 * unit)
    assert latent.shape == in_parts.shape
    assert 0 < (latent - in_parts).abs().mean() / latent.std() < limit
    pixels, in_parts = whole.decode(latent), tiled.decode(latent)
    assert 0 < (pixels - in_parts).abs().mean() / pixels.std() < limit


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.is_causal])
def test_latent_frames_do_not_depend_on_later_frames(name):
    codec, case = codec_of(name), CASES[name]
    video = clip(1 + 2 * case.group, batch=1)
    changed = video.clone()
    changed[:, :, 1 + case.temporal :] *= -1
    before, after = codec.encode(video), codec.encode(changed)
    assert torch.allclose(before[:, :, :2], after[:, :, :2], atol=1e-6)
    assert not torch.allclose(before[:, :, 2:], after[:, :, 2:], atol=1e-3)
    assert torch.allclose(codec.encode(video[:, :, :1]), before[:, :, :1], atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Numbers of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderDC", "AutoencoderKLWan", "CausalAutoencoder"])
def test_memory_does_not_grow_with_the_frames(name):
    """Inside of the network; the video itself and its latent do grow."""
    codec, peaks = codec_of(name, frames=4), []
    inner = codec._network.encoder if hasattr(codec._network, "encoder") else codec._network.down
    for frames in (17, 65):
        watch, handles = LargestTensor(), []
        for module in inner.modules():
            handles.append(module.register_forward_hook(lambda m, a, out, watch=watch: grow(watch, out)))
        codec.encode(clip(frames, batch=1))
        peaks.append(watch.largest)
        for handle in handles:
            handle.remove()
    assert peaks[0] == peaks[1] > 0
    assert codec.piece_size(65, 32, 48) == codec.piece_size(17, 32, 48)


def grow(watch, output):
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    watch.largest = max([watch.largest, *(tensor.numel() for tensor in tensors)])


def test_samples_of_the_posterior_have_its_deviation():
    codec = codec_of("AutoencoderKL", sample=True)
    video, mean = clip(1, batch=1), codec_of("AutoencoderKL").encode(clip(1, batch=1))
    samples = torch.stack([codec.encode(video) for _ in range(200)])
    assert torch.allclose(samples.mean(0), mean, atol=0.15)
    posterior = make_network("AutoencoderKL").encode(video[:, :, 0]).latent_dist
    assert torch.allclose(samples.std(0).mean(), 0.3 * posterior.std.mean(), rtol=0.05)


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_near(name):
    video = smooth_clip(5, 32, 32, 4)
    exact, half = codec_of(name).encode(video), codec_of(name, dtype="bf16").encode(video)
    assert half.dtype == torch.float32
    assert (exact - half).abs().mean() < 0.06 * exact.abs().mean() + 0.02


def test_sizes_that_do_not_fit_are_refused():
    codec = codec_of("AutoencoderKLWan")
    with pytest.raises(ValueError, match=r"got 5 frames of 30x41 .*multiples of 8 pixels.* 32x40.*change the size"):
        codec.latent_size(5, 30, 41)
    with pytest.raises(ValueError, match="30x41"):
        codec.encode(clip(5, 30, 41))
    with pytest.raises(ValueError, match=r"got a latent of 2 frames .*multiple of 2, and one more"):
        codec_of("AutoencoderKLCogVideoX").video_size(2, 4, 4)
    with pytest.raises(ValueError, match=r"got a latent of shape \(1, 3, 2, 4, 4\)"):
        codec.decode(torch.zeros(1, 3, 2, 4, 4))
    with pytest.raises(ValueError, match=r"got a video of shape \(1, 1, 5, 32, 32\)"):
        codec.encode(torch.zeros(1, 1, 5, 32, 32))
    with pytest.raises(ValueError, match=r"got codec tile=20 .*multiple of 8, at least 16"):
        codec_of("AutoencoderKLWan", tile=20)


def test_every_class_has_a_case():
    assert {name.split()[0] for name in CASES} | {TAEF2.__name__} == set(KINDS)


def test_a_codec_is_no_module():
    assert not isinstance(codec_of("AutoencoderKL"), torch.nn.Module)

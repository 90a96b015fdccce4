"""The own autoencoder: nothing looks ahead, chunks are the whole, files come back."""

import pytest
import torch

from flexivid.latents.causal_autoencoder import AutoencoderConfig, CausalAutoencoder
from flexivid.latents.codec import build_codec

SHAPES = [(4, 2), (4, 4), (8, 2), (8, 4)]


def network_of(spatial=8, temporal=4, **settings):
    torch.manual_seed(0)
    shape = {"channels": 3, "width": 12, "depth": 1} | settings
    return CausalAutoencoder(AutoencoderConfig(spatial=spatial, temporal=temporal, **shape)).eval()


@pytest.mark.parametrize(("spatial", "temporal"), SHAPES)
def test_sizes(spatial, temporal):
    network = network_of(spatial, temporal)
    for groups in (0, 1, 3):
        video = torch.randn(2, 3, 1 + groups * temporal, 16, 24)
        moments = network.encode(video)
        assert moments.shape == (2, 6, 1 + groups, 16 // spatial, 24 // spatial)
        assert network.decode(moments[:, :3]).shape == video.shape


@torch.no_grad()
@pytest.mark.parametrize(("spatial", "temporal"), SHAPES)
def test_no_latent_sees_later_frames(spatial, temporal):
    network, groups = network_of(spatial, temporal), 4
    video = torch.randn(2, 3, 1 + groups * temporal, 16, 16)
    latent = network.encode(video)
    for k in range(groups):
        seen = 1 + k * temporal
        changed = torch.cat([video[:, :, :seen], torch.randn_like(video[:, :, seen:])], dim=2)
        other = network.encode(changed)
        assert torch.equal(other[:, :, : k + 1], latent[:, :, : k + 1])
        assert not torch.allclose(other[:, :, k + 1], latent[:, :, k + 1], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("spatial", "temporal"), SHAPES)
def test_no_pixel_sees_later_latents(spatial, temporal):
    network = network_of(spatial, temporal)
    latent = torch.randn(1, 3, 4, 2, 3)
    video = network.decode(latent)
    changed = torch.cat([latent[:, :, :2], torch.randn(1, 3, 2, 2, 3)], dim=2)
    assert torch.equal(network.decode(changed)[:, :, : 1 + temporal], video[:, :, : 1 + temporal])


@torch.no_grad()
def test_the_first_frame_is_coded_like_a_picture():
    network, video = network_of(), torch.randn(1, 3, 9, 16, 16)
    latent = network.encode(video)
    assert torch.allclose(network.encode(video[:, :, :1]), latent[:, :, :1], atol=1e-6)
    assert torch.allclose(network.decode(latent[:, :3, :1]), network.decode(latent[:, :3])[:, :, :1], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("spatial", "temporal"), SHAPES)
def test_chunks_equal_the_whole(spatial, temporal):
    network, video = network_of(spatial, temporal), torch.randn(2, 3, 25, 16, 16)
    latent = network.encode(video, chunk=100)
    for chunk in (4, 8, 16):
        assert torch.allclose(network.encode(video, chunk), latent, atol=1e-5)
        decoded = [network.decode(latent[:, :3], frames) for frames in (chunk, 100)]
        assert torch.allclose(*decoded, atol=1e-5)


def test_files_come_back_as_a_codec(tmp_path):
    network = network_of()
    network.normalised(torch.tensor([0.5, 0.0, -1.0]), torch.tensor([2.0, 1.0, 0.5]))
    network.save(tmp_path)
    loaded, codec, video = CausalAutoencoder.load(tmp_path), build_codec(str(tmp_path)), torch.randn(1, 3, 9, 16, 16)
    assert loaded.config == network.config
    with torch.no_grad():
        mean = network.encode(video)[:, :3]
    expected = (mean - torch.tensor([0.5, 0.0, -1.0]).view(-1, 1, 1, 1)) / torch.tensor([2.0, 1.0, 0.5]).view(
        -1, 1, 1, 1
    )
    assert torch.allclose(codec.encode(video), expected, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(codec.decode(expected), network.decode(mean), atol=1e-5)


def test_shapes_that_are_not_there():
    with pytest.raises(ValueError, match="got spatial=16, temporal=4 of an autoencoder; expected 4 or 8"):
        AutoencoderConfig(spatial=16)
    with pytest.raises(ValueError, match="1 means"):
        AutoencoderConfig(channels=2, mean=(0.0,))

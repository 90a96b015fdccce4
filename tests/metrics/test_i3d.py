"""The network computes what DeepMind's graph computes, and its faster layers what the plain ones do."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flexivid.metrics.extractors import i3d
from flexivid.metrics.extractors.i3d import I3D, Unit, largest_neighbour, max_pool, same_padding
from flexivid.metrics.extractors.i3d_checkpoint import tensor_table


@pytest.fixture(scope="module")
def network(seeded_state):
    network = I3D()
    network.load_state_dict(seeded_state)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def clips():
    random = np.random.RandomState(20240501)
    made = {t: random.randint(0, 256, size=(2, t, 224, 224, 3)).astype(np.float32) / 127.5 - 1 for t in (16, 9, 17)}
    return {t: torch.from_numpy(video).permute(0, 4, 1, 2, 3) for t, video in made.items()}


def tensorflow_pool(x, kernel, stride):
    """Zeros around, then no padding."""
    sides = [same_padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    return F.max_pool3d(F.pad(x, [n for side in reversed(sides) for n in side]), kernel, stride)


def test_the_state_dict_is_deepminds(network):
    assert sorted(network.state_dict()) == sorted(entry.name for entry in tensor_table())
    assert sum(tensor.numel() for tensor in network.state_dict().values()) * 4 == 50_818_176


def test_the_seeded_weights_are_those_of_the_reference(seeded_arrays, golden_numbers):
    digests = [hashlib.sha256(seeded_arrays[name].tobytes()).hexdigest() for name in sorted(seeded_arrays)]
    assert hashlib.sha256("".join(digests).encode()).hexdigest() == golden_numbers["weights"]


@pytest.mark.parametrize("frames", [16, 9])
def test_logits_are_those_of_the_original_graph(network, clips, golden, frames):
    expected = torch.from_numpy(golden[f"logits_{frames}"])
    torch.testing.assert_close(network(clips[frames]), expected, rtol=0, atol=1e-4)


def test_pooled_features_are_those_of_the_original_graph(network, clips, golden):
    expected = torch.from_numpy(golden["pool_16"]).flatten(1)
    torch.testing.assert_close(network.pool(clips[16]), expected, rtol=0, atol=1e-4)


def test_odd_numbers_of_frames(network, clips):
    logits = network(clips[17])
    assert logits.shape == (2, 400)
    torch.testing.assert_close(network(clips[17][1:]), logits[1:], rtol=0, atol=1e-4)


def test_a_clip_does_not_depend_on_its_batch(network, clips):
    three = torch.cat((clips[9], clips[9][:1].flip(2)))
    alone = torch.cat([network(clip) for clip in three.split(1)])
    torch.testing.assert_close(network(three), alone, atol=1e-4, rtol=0)


def test_the_layout_in_memory_does_not_matter(network, clips, monkeypatch):
    expected = network(clips[9][:1])
    monkeypatch.setattr(i3d, "channels_last", torch.Tensor.contiguous)
    torch.testing.assert_close(network(clips[9][:1]), expected, rtol=0, atol=1e-4)


def test_the_epsilon_of_the_ports_is_off_by_a_percent(network, clips, seeded_state):
    port = I3D(eps=1e-5)
    port.load_state_dict(seeded_state)
    right, wrong = network(clips[9]), port.requires_grad_(False)(clips[9])
    assert 0.005 < (wrong - right).norm() / right.norm() < 0.015


@pytest.mark.parametrize("size", range(1, 13))
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2)])
def test_pools_pad_as_tensorflow_does(size, kernel, stride):
    x = torch.rand(1, 2, size, size, 9, generator=torch.Generator().manual_seed(0))
    sides = (kernel, kernel, 3), (stride, stride, 2)
    assert torch.equal(max_pool(x, *sides), tensorflow_pool(x, *sides))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 2, 1, 1, 3), (1, 1, 2, 2, 1)])
def test_largest_neighbour_is_a_max_pool(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(largest_neighbour(x), F.max_pool3d(x, 3, 1, 1))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (7, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_a_unit_is_convolution_norm_relu(kernel, stride, layout):
    unit = Unit(3, 8, kernel, stride=stride)
    x = torch.randn(2, 3, 8, 9, 10, generator=torch.Generator().manual_seed(0))
    for buffer in unit.bn.buffers():
        buffer.uniform_(0.5, 2)
    padded = F.pad(x, [n for size in reversed(x.shape[2:]) for n in same_padding(size, kernel, stride)])
    plain = F.conv3d(padded, unit.conv3d.weight, stride=stride)
    plain = F.batch_norm(plain, unit.bn.running_mean, unit.bn.running_var, None, unit.bn.bias, eps=1e-3).relu()
    torch.testing.assert_close(unit(x.contiguous(memory_format=layout)), plain, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_video(network):
    video = torch.zeros(1, 3, 9, 224, 224, requires_grad=True)
    network(video).sum().backward()
    assert video.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 3, 8, 224, 224), (1, 3, 9, 112, 224), (1, 1, 9, 224, 224), (3, 9, 224, 224)])
def test_other_shapes_are_refused(network, shape):
    with pytest.raises(ValueError, match=r"expected \(b, 3, t, 224, 224\) with t >= 9"):
        network(torch.zeros(shape))

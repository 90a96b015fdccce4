"""Each kernel gives the pixels of the program it is named after."""

import pytest
import torch
import torch.nn.functional as F

from flexivid.metrics.extractors.preprocess import RESIZES, bilinear, crop, tf1


def videos(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("kernel", "name"), [(bilinear, "resize_half_pixel"), (tf1, "resize_tf1"), (crop, "resize_half_pixel")]
)
def test_pixels_are_tensorflows(golden, kernel, name):
    video, expected = (torch.from_numpy(golden[key]).permute(3, 0, 1, 2)[None] for key in ("resize_x", name))
    torch.testing.assert_close(kernel(video, 28), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", RESIZES)
@pytest.mark.parametrize("size", [(8, 8), (7, 12), (30, 20)])
def test_the_kernels_work_on_each_frame_alone(name, size):
    apply, _ = RESIZES[name]
    video = videos(2, 3, 4, *size)
    resized = apply(video, 8)
    assert resized.shape == (2, 3, 4, 8, 8)
    torch.testing.assert_close(resized[1:, :, 2:3], apply(video[1:, :, 2:3], 8), rtol=0, atol=1e-6)
    torch.testing.assert_close(apply(torch.full_like(video, 0.3), 8), torch.full_like(resized, 0.3))
    turned = video.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(apply(turned, 8), resized, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", RESIZES)
def test_frames_of_the_right_size_are_left_alone(name):
    video = videos(1, 3, 2, 8, 8)
    assert torch.equal(RESIZES[name][0](video, 8), video)


@pytest.mark.parametrize(("size", "whole", "left"), [((48, 64), (32, 43), (0, 5)), ((50, 30), (54, 32), (11, 0))])
def test_crop_cuts_the_middle_of_the_smaller_frame(size, whole, left):
    video = videos(1, 3, 1, *size)
    resized = F.interpolate(video[:, :, 0], whole, mode="bilinear", align_corners=False)
    expected = resized[..., left[0] : left[0] + 32, left[1] : left[1] + 32]
    torch.testing.assert_close(crop(video, 32)[:, :, 0], expected, rtol=0, atol=1e-6)

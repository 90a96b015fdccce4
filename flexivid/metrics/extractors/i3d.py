"""I3D, the network behind FVD: Inception-v1 inflated to three dimensions, as DeepMind's graph computes it.

Reads no files. The features of FVD are its 400 logits for Kinetics, before the softmax. Ports are often wrong in
BatchNorm's epsilon, and in TensorFlow's SAME padding, which has one zero more on the right where the sum is odd.

Source:
    Network: Carreira and Zisserman (arXiv:1705.07750). FVD: Unterthiner et al. (arXiv:1812.01717).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-3  # of the original; the ports of VideoGPT, TATS and others have 1e-5
SIDE, NUM_CLASSES, MIN_FRAMES = 224, 400, 9  # 8 frames leave one time step, too few for the last pool
CLIPS_AT_ONCE = 2  # on a CPU: more clips spend more time on new memory pages than on pools; one has slower kernels


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis in TensorFlow's SAME padding.

    >>> same_padding(224, 7, 2), same_padding(9, 7, 2)
    ((2, 3), (3, 3))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def max_pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Max pool with SAME padding, for x >= 0 (there, padding with zeros and with -inf are the same).

    ``ceil_mode`` adds the step on the right without a padded copy.

    >>> max_pool(torch.arange(5.0).view(1, 1, 1, 1, 5), (1, 1, 3), (1, 1, 2)).flatten().tolist()
    [1.0, 3.0, 4.0]
    """
    before = [same_padding(*axis)[0] for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    return F.max_pool3d(x, kernel, stride, before, ceil_mode=True)


def largest_neighbour(x: Tensor) -> Tensor:
    """Max pool 3x3x3 at stride 1 with SAME padding, axis by axis, in half of the time of ``max_pool3d``.

    Each maximum of a pair is taken once and nothing is padded.

    >>> largest_neighbour(torch.tensor([3.0, 0, 1, 2, 0]).view(1, 1, 1, 1, 5)).flatten().tolist()
    [3.0, 3.0, 2.0, 2.0, 2.0]
    """
    for axis in (2, 3, 4):
        if (size := x.shape[axis]) > 1:
            pairs = x.narrow(axis, 0, size - 1).maximum(x.narrow(axis, 1, size - 1))
            inner = pairs.narrow(axis, 0, size - 2).maximum(pairs.narrow(axis, 1, size - 2))
            x = torch.cat([pairs.narrow(axis, 0, 1), inner, pairs.narrow(axis, size - 2, 1)], axis)
    return x


class FrozenNorm(nn.Module):
    """The parameters of a BatchNorm without gamma."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))


def channels_last(x: Tensor) -> Tensor:
    """Lay out tensors on a CPU channels last; otherwise ``max_pool3d`` alone takes half of the time.

    >>> channels_last(torch.zeros(1, 2, 3, 4, 5)).stride()
    (120, 1, 40, 10, 2)
    """
    return x.contiguous(memory_format=torch.channels_last_3d) if x.device.type == "cpu" else x


class Unit(nn.Module):
    """Convolution with SAME padding, BatchNorm, ReLU.

    The norm is folded into the convolution in each call: 13 million products for the whole network, against 28 billion
    for the shortest usual clip, and the state dict stays DeepMind's.
    """

    def __init__(self, width_in: int, width: int, kernel: int = 1, *, stride: int = 1, eps: float = EPS) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(width_in, width, kernel, stride, bias=False)
        self.bn = FrozenNorm(width)
        self.eps = eps

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of convolution and norm in one."""
        scale = torch.rsqrt(self.bn.running_var + self.eps)
        return self.conv3d.weight * scale.view(-1, 1, 1, 1, 1), self.bn.bias - self.bn.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, t, h, w) -> (b, width, t, h, w), each side divided by the stride and rounded up."""
        (kernel, *_), (stride, *_) = self.conv3d.kernel_size, self.conv3d.stride
        weight, bias = self.folded()
        if kernel == 1 and x.is_contiguous(memory_format=torch.channels_last_3d):
            frames = x.transpose(1, 2).flatten(0, 1)  # bt c h w, a view: the 2-D kernels are the faster ones
            return F.relu_(F.conv2d(frames, weight[..., 0], bias)).unflatten(0, (len(x), -1)).transpose(1, 2)
        sides = [same_padding(size, kernel, stride) for size in x.shape[2:]]
        if any(before != after for before, after in sides):
            x = F.pad(x, [n for before, after in reversed(sides) for n in (0, after - before)])
        return F.relu_(F.conv3d(x, weight, bias, stride, [before for before, _ in sides]))


class Mixed(nn.Module):
    """Four branches side by side, six convolutions: 1x1; twice 1x1 and 3x3; largest neighbour and 1x1."""

    def __init__(self, width_in: int, widths: tuple[int, int, int, int, int, int], eps: float) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit(width_in, b0, eps=eps)
        self.b1a, self.b1b = Unit(width_in, b1a, eps=eps), Unit(b1a, b1b, 3, eps=eps)
        self.b2a, self.b2b = Unit(width_in, b2a, eps=eps), Unit(b2a, b2b, 3, eps=eps)
        self.b3b = Unit(width_in, b3b, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, t, h, w) -> (b, sum of widths, t, h, w)."""
        pooled = largest_neighbour(x)
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return channels_last(torch.cat(branches, dim=1))  # some kernels for single clips do not keep it


class I3D(nn.Module):
    """The network. New weights are random: ``build_extractor("i3d")`` loads the public ones.

    With the ``eps`` 1e-5 of BatchNorm it has the numbers of the ports that have it wrong.

    >>> sum(parameter.numel() for parameter in I3D().parameters())
    12689984
    """

    def __init__(self, *, eps: float = EPS) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, stride=2, eps=eps)
        self.Conv3d_2b_1x1 = Unit(64, 64, eps=eps)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3, eps=eps)
        self.Mixed_3b = Mixed(192, (64, 96, 128, 16, 32, 32), eps)
        self.Mixed_3c = Mixed(256, (128, 128, 192, 32, 96, 64), eps)
        self.Mixed_4b = Mixed(480, (192, 96, 208, 16, 48, 64), eps)
        self.Mixed_4c = Mixed(512, (160, 112, 224, 24, 64, 64), eps)
        self.Mixed_4d = Mixed(512, (128, 128, 256, 24, 64, 64), eps)
        self.Mixed_4e = Mixed(512, (112, 144, 288, 32, 64, 64), eps)
        self.Mixed_4f = Mixed(528, (256, 160, 320, 32, 128, 128), eps)
        self.Mixed_5b = Mixed(832, (256, 160, 320, 32, 128, 128), eps)
        self.Mixed_5c = Mixed(832, (384, 192, 384, 48, 128, 128), eps)
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, NUM_CLASSES, 1)})

    def pool(self, video: Tensor) -> Tensor:
        """Features before the last layer, averaged over time: (b, 3, t, 224, 224) in [-1, 1] -> (b, 1024)."""
        if video.ndim != 5 or video.shape[1::2] != (3, SIDE) or video.shape[4] != SIDE or video.shape[2] < MIN_FRAMES:
            raise ValueError(
                f"got video {tuple(video.shape)}; expected (b, 3, t, {SIDE}, {SIDE}) with t >= {MIN_FRAMES}; resize it,"
                " or take more frames"
            )
        size = CLIPS_AT_ONCE if video.device.type == "cpu" else len(video)
        x = channels_last(torch.cat([self.first_layers(clips) for clips in video.split(size)]))
        x = self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))))
        x = max_pool(x, (2, 2, 2), (2, 2, 2))
        x = self.Mixed_5c(self.Mixed_5b(x))
        return F.avg_pool3d(x, (2, 7, 7), 1).mean((2, 3, 4))

    def first_layers(self, video: Tensor) -> Tensor:
        """The layers with most of the memory and few of the weights: (b, 3, t, 224, 224) -> (b, 480, t / 4, 14, 14)."""
        x = self.Conv3d_1a_7x7(channels_last(video))
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self.Mixed_3c(self.Mixed_3b(x))
        return max_pool(x, (3, 3, 3), (2, 2, 2))

    def forward(self, video: Tensor) -> Tensor:
        """(b, 3, t, 224, 224) in [-1, 1], t >= 9 -> logits (b, 400)."""
        x = self.pool(video)[..., None, None, None]
        return self.logits["conv3d"](x).flatten(1)

"""A flexified transformer over several devices: FSDP2, ``strategy: ModelParallelStrategy`` in the configuration.

Native weights are sharded, a group a block, gathered when the block runs. What is new is small and trained, and its
layers answer from anywhere in the network: every device holds all of it, and gradients are averaged as in DDP.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from flexivid.pretrained.flexify import NATIVE, adapter_parameters, blocks_of, set_mode


def refuse_shards(strategy: Any) -> None:
    """Refuse checkpoints in shards: they hold new weights only, and to load them Lightning asks for all.

    Raises:
        ValueError: If the strategy would write such.
    """
    if getattr(strategy, "_save_distributed_checkpoint", False):
        raise ValueError(
            f"got {type(strategy).__name__} with save_distributed_checkpoint; expected false, for checkpoints hold the"
            " new weights only and are small; set trainer.strategy.init_args.save_distributed_checkpoint to false"
        )


def shard(network: Any, mesh: DeviceMesh, device: torch.device) -> None:
    """Shard in place, in the native mode; native parameters become ``DTensor``.

    Weights in another precision than most, which diffusers keeps in float32, stay whole too: a group has but one.

    Args:
        network: Transformer that went through ``flexify``.
        mesh: One axis of devices.
        device: This process's own.
    """
    set_mode(network, NATIVE)
    sizes: Counter[torch.dtype] = Counter()
    for parameter in network.parameters():
        sizes[parameter.dtype] += 0 if parameter.requires_grad else parameter.numel()
    (most, _), *_ = sizes.most_common()
    apart = {parameter for parameter in network.parameters() if parameter.requires_grad or parameter.dtype != most}
    for tensor in (*apart, *network.buffers()):
        tensor.data = tensor.data.to(device)
    for part in (*blocks_of(network), network):
        fully_shard(part, mesh=mesh, ignored_params=apart)


@torch.no_grad()
def average_gradients(network: nn.Module, mesh: DeviceMesh) -> None:
    """Mean over the devices of the gradients of what is new; once more changes nothing."""
    gradients: list[Tensor] = [p.grad for p in adapter_parameters(network) if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat, group=mesh.get_group())
    flat /= mesh.size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))

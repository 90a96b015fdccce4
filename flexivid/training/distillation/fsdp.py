"""Shards a flexified transformer over several devices: FSDP2, ``strategy: ModelParallelStrategy`` in the configuration.

Native weights are sharded, one group per block, and gathered when the block runs. Adapter weights are few and used all
over the network: every device holds all of them, and gradients are averaged as in DDP.
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
    """Refuse sharded checkpoints: ours hold adapter weights only, and Lightning loads shards of all weights only."""
    if getattr(strategy, "_save_distributed_checkpoint", False):
        raise ValueError(
            f"got {type(strategy).__name__} with save_distributed_checkpoint; expected false, for checkpoints hold the"
            " new weights only and are small; set trainer.strategy.init_args.save_distributed_checkpoint to false"
        )


def shard(network: Any, mesh: DeviceMesh, device: torch.device) -> None:
    """Shard a flexified transformer over a mesh of one axis, in the native mode; native parameters become ``DTensor``.

    Weights that diffusers keeps in another precision than most (float32) are not sharded: a group has one precision.
    """
    set_mode(network, NATIVE)
    sizes: Counter[torch.dtype] = Counter()
    for parameter in network.parameters():
        sizes[parameter.dtype] += 0 if parameter.requires_grad else parameter.numel()
    (most, _), *_ = sizes.most_common()
    unsharded = {parameter for parameter in network.parameters() if parameter.requires_grad or parameter.dtype != most}
    for tensor in (*unsharded, *network.buffers()):
        tensor.data = tensor.data.to(device)
    for part in (*blocks_of(network), network):
        fully_shard(part, mesh=mesh, ignored_params=unsharded)


@torch.no_grad()
def average_gradients(network: nn.Module, mesh: DeviceMesh) -> None:
    """Average the gradients of the adapter over the devices; calling it again changes nothing."""
    gradients: list[Tensor] = [p.grad for p in adapter_parameters(network) if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat, group=mesh.get_group())
    flat /= mesh.size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))

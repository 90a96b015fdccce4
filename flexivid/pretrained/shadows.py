"""Let one module answer in the place of another without touching what is registered. Knows PyTorch modules only.

Python looks for an attribute in the instance before it asks ``nn.Module`` for a registered submodule. A module put into
the instance's dictionary therefore answers to ``model.proj_out(...)``, while names, state dict, hooks and offloading of
the registered module stay what they were; taking it away leaves no trace. A ``ModuleList`` is indexed, not asked by
name: the whole list is shadowed by a copy.
"""

from __future__ import annotations

from torch import nn


def registered(root: nn.Module, path: str) -> nn.Module:
    """The submodule registered under ``path``, shadowed or not.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3))
        >>> registered(net, "0").out_features
        3
    """
    module = root
    for name in filter(None, path.split(".")):
        module = module._modules[name]  # type: ignore[assignment]
    return module


def _place(root: nn.Module, path: str) -> tuple[nn.Module, str, str]:
    """Who is asked for ``path``: its parent, the attribute asked for, and the index where that is a list."""
    above, _, name = path.rpartition(".")
    parent = registered(root, above)
    if isinstance(parent, nn.ModuleList):
        above, _, attribute = above.rpartition(".")
        return registered(root, above), attribute, name
    return parent, name, ""


def shadow(root: nn.Module, path: str, module: nn.Module) -> None:
    """Let ``module`` answer where ``path`` is registered.

    Example:
        >>> net = nn.TransformerEncoderLayer(8, 2)
        >>> shadow(net, "linear1", nn.Linear(8, 5))
        >>> net.linear1.out_features, net.state_dict()["linear1.bias"].numel()
        (5, 2048)
        >>> reveal(net, "linear1")
        >>> net.linear1.out_features
        2048
    """
    owner, name, index = _place(root, path)
    if not index:
        vars(owner)[name] = module
        return
    if name not in vars(owner):
        vars(owner)[name] = nn.ModuleList(owner._modules[name])  # type: ignore[arg-type]
    vars(owner)[name][int(index)] = module


def reveal(root: nn.Module, path: str) -> None:
    """Take the shadow of ``path`` away, if there is one (of the whole list where it is one)."""
    owner, name, _ = _place(root, path)
    vars(owner).pop(name, None)

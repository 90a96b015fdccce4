"""Let modules answer in the place of registered ones for the time of a ``with`` block. Knows PyTorch modules only.

Python looks for an attribute in the instance before it asks ``nn.Module`` for a registered submodule. A module put into
the instance's dictionary therefore answers to ``model.proj_out(...)``, while names, state dict, hooks and offloading of
the registered module stay as they are. A ``ModuleList`` is indexed by number, so a copy of the list answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Registered(dict[str, nn.Module]):
    """The submodules of a model by path, each looked up once; ``ValueError`` for a path that it does not have."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__({"": root})

    def __missing__(self, path: str) -> nn.Module:
        above, _, name = path.rpartition(".")
        module = getattr(self[above], name, None)
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"got a {type(self['']).__name__} without {path}; expected the modules that it had when it was"
                " flexified; use the native mode, or call unflexify before you wrap or replace parts of it"
            )
        self[path] = module
        return module


class Shadows:
    """Modules that answer where others are registered, by path, while the ``with`` block lasts.

    ``lists`` holds copies of lists from earlier blocks, by path: compiled code has to see the same objects again.

    Example:
        >>> net = nn.TransformerEncoderLayer(8, 2)
        >>> with Shadows(Registered(net), {"linear1": nn.Linear(8, 5)}, {}):
        ...     net.linear1.out_features, net.state_dict()["linear1.bias"].numel()
        (5, 2048)
        >>> net.linear1.out_features
        2048
    """

    def __init__(
        self, registered: Registered, modules: Mapping[str, nn.Module], lists: dict[str, nn.ModuleList]
    ) -> None:
        self.slots: list[tuple[nn.Module, str, nn.Module]] = []  # owner, its attribute, the module that answers there
        self.before: list[tuple[dict[str, Any], str, Any]] = []
        indexed: dict[str, dict[int, nn.Module]] = {}
        for path, module in modules.items():
            above, _, name = path.rpartition(".")
            owner = registered[above]
            if isinstance(owner, nn.ModuleList):
                indexed.setdefault(above, {})[int(name)] = module
            else:
                self.slots.append((owner, name, module))
        for path, items in indexed.items():
            above, _, name = path.rpartition(".")
            natives: Any = registered[path]
            mixed = [items.get(index, native) for index, native in enumerate(natives)]
            self.slots.append((registered[above], name, _copy_with(mixed, lists, path)))

    @torch.compiler.disable
    def __enter__(self) -> Shadows:
        for owner, name, module in self.slots:
            attributes = vars(owner)
            self.before.append((attributes, name, attributes.get(name)))
            attributes[name] = module
        return self

    @torch.compiler.disable
    def __exit__(self, *error: object) -> None:
        while self.before:
            attributes, name, module = self.before.pop()
            if module is None:
                attributes.pop(name, None)
            else:
                attributes[name] = module


def _copy_with(items: list[nn.Module], lists: dict[str, nn.ModuleList], path: str) -> nn.ModuleList:
    """The copy of the list at a path, with these items; the same copy each time."""
    copy = lists.get(path)
    if copy is None or len(copy) != len(items):
        copy = lists[path] = nn.ModuleList(items)
    for index, (old, new) in enumerate(zip(copy, items, strict=True)):
        if old is not new:
            copy[index] = new
    return copy

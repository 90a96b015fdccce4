"""A flexified model and its twin that never saw flexivid, to which users do the same things in random order.

Every operation of a user is done to both. What plain PyTorch, diffusers or peft refuse must be refused for both; what
flexivid refuses must be one clear line.
"""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.hooks import remove_hook_from_submodules
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from flexivid.pipelines.budget import apply_budget
from flexivid.pretrained.adapter import fingerprint, load_adapter, save_adapter
from flexivid.pretrained.flexify import current_mode, flexi_of, flexify, set_mode
from flexivid.pretrained.merged import merge_lora, unmerge_lora
from tests.pretrained.families import CASES, Case, build, call, disturb, output
from tests.pretrained.pipelines import PIPELINES

CPU = torch.device("cpu")


class StopRunError(Exception):
    """Of a user's callback."""


class Walk:
    """The pair, and what was done to it."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        self.rng, self.folder, self.done = random.Random(seed), folder, list[str]()
        self.case: Case = next(case for case in CASES if case.name == name)
        self.pipe: Any = None
        self.budget: Any = None
        family = name.removesuffix("2.1")
        if family in PIPELINES:
            self.pipe = PIPELINES[family][0]()
            self.pipe.set_progress_bar_config(disable=True)
            self.settings = PIPELINES[family][1] | {"height": 32 * (1 + (family == "ltx")), "width": 64}
        self.ours = self.pipe.transformer if self.pipe else build(self.case)
        self.plain = build(self.case)
        self.native = fingerprint(self.plain)
        flexify(self.ours, self.case.modes[:2], rank=2, skip=True)
        disturb(self.ours)
        self.dtype, self.is_offloaded, self.is_compiled, self.changes_weights = torch.float32, False, False, False

    def both(self, change: Callable[[nn.Module], Any]) -> None:
        """Do something to both. Where the plain one refuses, ours must."""
        results = []
        for model in (self.plain, self.ours):
            try:
                change(model)
                results.append(None)
            except (ValueError, RuntimeError, TypeError, KeyError, NotImplementedError, AttributeError) as error:
                results.append(type(error))
        assert results[0] == results[1], (self.done, results)

    def check(self) -> None:
        """The native mode is the twin's, bit for bit; so is all that others find in the model."""
        for kind in ("state_dict", "named_parameters", "named_buffers", "named_modules"):
            names = [list(dict(getattr(model, kind)())) for model in (self.plain, self.ours)]
            assert names[0] == names[1], (self.done, kind)
        before = current_mode(self.ours)
        set_mode(self.ours, "native")
        arguments = call(self.case, self.case.even, dtype=self.dtype)
        expected, found = output(self.plain, arguments), output(self.ours, arguments)
        assert torch.equal(found, expected), (self.done, (found - expected).abs().max())
        refused(lambda: set_mode(self.ours, before))

    def step(self, operations: list[Callable[[Walk], None]]) -> None:
        operation = self.rng.choice(operations)
        self.done.append(f"{operation.__name__} in {current_mode(self.ours)}")
        operation(self)
        self.check()


def refused(change: Callable[[], Any]) -> bool:
    """Whether something is refused; if so, in one clear line."""
    told = ""
    try:
        change()
    except ValueError as error:
        told = str(error)
    assert not told or (told.startswith("got ") and "expected" in told and "\n" not in told), told
    return bool(told)


def choose_mode(walk: Walk) -> None:
    refused(lambda: set_mode(walk.ours, walk.rng.choice(["native", *flexi_of(walk.ours).modes])))


def call_in_mode(walk: Walk) -> None:
    arguments = call(walk.case, walk.case.odd, dtype=walk.dtype)
    refused(lambda: output(walk.ours, arguments))


def interrupted_call(walk: Walk) -> None:
    error = walk.rng.choice([KeyboardInterrupt, StopRunError, GeneratorExit, SystemExit])

    def stop(*_: object) -> None:
        raise error

    layers = [module for module in walk.ours.modules() if isinstance(module, nn.Linear)]
    hook = layers[-1 - len(layers) // 3].register_forward_pre_hook(stop)
    with suppress(error, RuntimeError):  # the latter in compiled code
        refused(lambda: output(walk.ours, call(walk.case, walk.case.even, dtype=walk.dtype)))
    hook.remove()


def backward(walk: Walk) -> None:
    """In a weak mode; a native one has nothing to learn."""
    if walk.is_compiled or walk.is_offloaded or current_mode(walk.ours) == "native":
        return
    arguments = call(walk.case, walk.case.even, dtype=walk.dtype)
    if hasattr(walk.ours, "enable_gradient_checkpointing") and walk.rng.random() < 0.5:
        walk.both(lambda model: model.enable_gradient_checkpointing())

    def learn() -> None:
        made = walk.ours(**arguments)
        (made if torch.is_tensor(made) else made[0]).float().square().mean().backward()

    refused(learn)
    walk.both(lambda model: model.zero_grad())


def load_lora(walk: Walk) -> None:
    if walk.is_offloaded or walk.is_compiled:
        return
    seed = walk.rng.randrange(1000)
    targets = walk.rng.choice(["all-linear", r".*(to_q|to_v|attention\.q|proj_out|mlp_in)"])
    config = LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False)

    def load(model: nn.Module) -> None:
        torch.manual_seed(seed)
        if hasattr(model, "add_adapter"):
            model.add_adapter(config, adapter_name=f"style{seed}")
        elif not any(isinstance(module, LoraLayer) for module in model.modules()):
            inject_adapter_in_model(config, model, adapter_name="style")

    walk.both(load)


def _layers(model: nn.Module) -> list[tuple[str, LoraLayer]]:
    return [(path, module) for path, module in model.named_modules() if isinstance(module, LoraLayer)]


def unload_lora(walk: Walk) -> None:
    def unload(model: nn.Module) -> None:
        if hasattr(model, "unload_lora"):
            model.unload_lora()
            return
        for path, layer in _layers(model):
            above, _, name = path.rpartition(".")
            setattr(model.get_submodule(above), name, layer.base_layer)

    if not (walk.is_offloaded or walk.is_compiled):
        walk.both(unload)


def fuse_lora(walk: Walk) -> None:
    def fuse(model: nn.Module) -> None:
        if hasattr(model, "fuse_lora"):
            model.fuse_lora()
            return
        for _, layer in _layers(model):
            layer.merge()

    if not (walk.is_offloaded or walk.is_compiled):
        walk.changes_weights = True
        walk.both(fuse)


def unfuse_lora(walk: Walk) -> None:
    def unfuse(model: nn.Module) -> None:
        for _, layer in _layers(model):
            layer.unmerge()

    if not (walk.is_offloaded or walk.is_compiled):
        walk.both(unfuse)


def fuse_projections(walk: Walk) -> None:
    if walk.is_offloaded or walk.is_compiled or not hasattr(walk.ours, "fuse_qkv_projections"):
        return
    walk.both(lambda model: model.fuse_qkv_projections())
    if walk.rng.random() < 0.7:
        refused(lambda: output(walk.ours, call(walk.case, walk.case.even, dtype=walk.dtype)))
        walk.both(lambda model: model.unfuse_qkv_projections())


def cast(walk: Walk) -> None:
    if walk.is_offloaded or walk.is_compiled:
        return
    walk.dtype, walk.changes_weights = walk.rng.choice([torch.bfloat16, torch.float32, torch.float64]), True
    walk.both(lambda model: model.to(walk.dtype))


def offload(walk: Walk) -> None:
    if walk.is_compiled:
        return
    if walk.is_offloaded:
        walk.both(lambda model: remove_hook_from_submodules(model))
    else:
        start = walk.rng.choice([accelerate.cpu_offload, accelerate.cpu_offload_with_hook])
        walk.both(lambda model: start(model, execution_device=CPU))
    walk.is_offloaded = not walk.is_offloaded


def copy_deeply(walk: Walk) -> None:
    if walk.is_offloaded or walk.is_compiled:
        return
    walk.plain = copy.deepcopy(walk.plain)
    if walk.pipe is not None and walk.rng.random() < 0.5:
        walk.pipe = copy.deepcopy(walk.pipe)
        walk.budget = vars(walk.pipe).get("flexivid_budget")
        walk.ours = walk.pipe.transformer
        return
    walk.ours = copy.deepcopy(walk.ours)
    if walk.pipe is not None:
        walk.pipe.transformer = walk.ours


def save_and_load(walk: Walk) -> None:
    """State of one into the other, both whole as a file where they can be, and modes as an adapter."""
    if walk.is_offloaded or walk.is_compiled:
        return
    walk.plain.load_state_dict(walk.ours.state_dict())
    walk.ours.load_state_dict(walk.plain.state_dict())
    if not getattr(walk.plain, "is_gradient_checkpointing", False):  # a local function of diffusers
        file = io.BytesIO()
        torch.save(walk.ours, file)
        file.seek(0)
        walk.ours = torch.load(file, weights_only=False)
        if walk.pipe is not None:
            walk.pipe.transformer = walk.ours
    folder = walk.folder / str(len(walk.done))
    if not refused(lambda: save_adapter(walk.ours, folder)):
        if not walk.changes_weights:
            assert not refused(lambda: load_adapter(build(walk.case), folder)), walk.done
        refused(lambda: load_adapter(walk.ours, folder))


def merge(walk: Walk) -> None:
    refused(lambda: merge_lora(walk.ours) if walk.rng.random() < 0.5 else unmerge_lora(walk.ours))


def budget(walk: Walk) -> None:
    if walk.pipe is None:
        return
    if walk.budget is None:
        walk.budget = apply_budget(walk.pipe, walk.rng.choice([0.5, 0.8, 1.0]))
    else:
        walk.budget.remove()
        walk.budget = None


def run(walk: Walk) -> None:
    """A run of the pipeline, which a callback may end early."""
    if walk.pipe is None or walk.dtype != torch.float32:
        return
    error = walk.rng.choice([None, None, KeyboardInterrupt, StopRunError, "interrupt"])

    def callback(pipe: Any, *_: object) -> dict:
        if error == "interrupt":
            pipe._interrupt = True
        elif error is not None:
            raise error
        return {}

    refused(lambda: set_mode(walk.ours, "native"))
    ends = suppress(error) if isinstance(error, type) else nullcontext()
    with ends:
        refused(lambda: walk.pipe(num_inference_steps=2, callback_on_step_end=callback, **walk.settings))
    assert current_mode(walk.ours) == "native"


def compile_in_place(walk: Walk) -> None:
    """Once: it costs seconds a mode."""
    if not (walk.is_offloaded or walk.is_compiled):
        torch._dynamo.reset()
        walk.is_compiled = True
        walk.both(lambda model: model.compile(backend="eager"))


OPERATIONS = [
    *(choose_mode, choose_mode, call_in_mode, call_in_mode, interrupted_call, backward, load_lora, unload_lora),
    *(fuse_lora, unfuse_lora, fuse_projections, cast, offload, copy_deeply, save_and_load, merge, budget, run),
]

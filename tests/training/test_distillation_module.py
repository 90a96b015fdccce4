"""Distillation lowers the error of every weak mode and touches nothing else, whatever its samples come from."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from flexivid.model.recipe import Recipe
from flexivid.patching.shapes import PatchMode
from flexivid.pipelines.record import record_calls
from flexivid.pretrained.adapter import load_adapter
from flexivid.pretrained.flexify import adapter_parameters, current_mode, flexify, set_mode
from flexivid.pretrained.signature import random_call
from flexivid.training.bad_steps import BadSteps, DivergedError
from flexivid.training.distillation.ema import AdapterEMA
from flexivid.training.distillation.module import DistillationTimes, FlexiDistillation, Walk, distance
from flexivid.training.distillation.recorded_data import CallArrays, Rows
from flexivid.training.modes import Phase
from flexivid.training.optimizer import OptimizerSettings
from tests.pretrained.families import CASES, build, call, output
from tests.pretrained.pipelines import PIPELINES

MODES = ["1x4x4", "2x2x2"]
FAST = OptimizerSettings(learning_rate=3e-3, warmup_steps=1, final_fraction=1.0)
WAN = CASES[0]


def module(case=WAN, modes=MODES, detail=False, **changes):
    network = flexify(build(case), modes, rank=4, detail=detail)
    settings = {"times": DistillationTimes(), "walk": Walk((2, 4, 4), num_steps=4), "optimizer": FAST}
    return FlexiDistillation.of(network, **(settings | changes))


def arrays(folder, case=WAN, latents=True, rows=6):
    """A folder of latents and texts, or of texts alone, for the model of a case."""
    model = build(case)
    given = random_call(model, (2, 4, 4), batch=rows, text_tokens=6)
    folder.mkdir()
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and name not in ("hidden_states", "timestep"):
            np.save(folder / f"{name}.npy", value.numpy())
    if latents:
        np.save(folder / "latent.npy", torch.randn(rows, model.config.in_channels, 2, 4, 4).numpy())
    return folder


def fit(distillation, data, folder, steps, *callbacks, ckpt_path=None, **changes):
    settings = {"max_steps": steps, "max_epochs": -1, "accelerator": "cpu", "logger": False, "limit_val_batches": 0}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": bool(callbacks)}
    trainer = Trainer(**settings, callbacks=list(callbacks), default_root_dir=folder, **changes)
    trainer.fit(distillation, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def errors(distillation, case=WAN):
    arguments = call(case, (2, 4, 4), batch=4)
    with torch.no_grad():
        target = output(distillation.network, arguments)
        return [distance(distillation.network, m, arguments, target)[0].item() for m in distillation.weak_modes]


@pytest.mark.parametrize("latents", [True, False], ids=["latents", "data-free"])
def test_every_mode_comes_nearer_and_native_stays(tmp_path, latents) -> None:
    seed_everything(0)
    distillation = module()
    arguments = call(WAN, WAN.odd)
    native = output(distillation.network, arguments)
    frozen = {k: v.clone() for k, v in distillation.network.state_dict().items() if not k.startswith("flexi.")}
    before = errors(distillation)
    fit(distillation, CallArrays(str(arrays(tmp_path / "rows", latents=latents)), batch_size=4), tmp_path, 60)

    set_mode(distillation.network, "native")
    after = errors(distillation)
    assert all(new < 0.95 * old for new, old in zip(after, before, strict=True)), (before, after)
    set_mode(distillation.network, "native")
    assert torch.equal(output(distillation.network, arguments), native)
    now = distillation.network.state_dict()
    assert all(torch.equal(now[name], value) for name, value in frozen.items())


def test_gradient_checkpointing_changes_no_gradient() -> None:
    given = {"latent": torch.randn(2, 4, 2, 4, 4), "encoder_hidden_states": torch.randn(2, 6, 16)}
    found = []
    for checkpointing in (True, False):
        distillation = module(gradient_checkpointing=checkpointing)
        distillation.log = lambda *args, **kwargs: None
        distillation.training_step(given, 0).backward()
        assert current_mode(distillation.network) == str(distillation.mode_at(0))
        found.append([p.grad for p in adapter_parameters(distillation.network) if p.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_an_answer_of_the_teacher_serves_several_steps(tmp_path) -> None:
    seed_everything(0)
    distillation, asked = module(reuse=4), []
    distillation.network.register_forward_pre_hook(lambda model, args: asked.append(current_mode(model)))
    before = errors(distillation)
    asked.clear()
    fit(distillation, CallArrays(str(arrays(tmp_path / "rows")), batch_size=4), tmp_path, 80)
    assert (asked.count("native"), len(asked)) == (20, 100)
    set_mode(distillation.network, "native")
    after = errors(distillation)
    assert all(new < 0.95 * old for new, old in zip(after, before, strict=True)), (before, after)
    with pytest.raises(ValueError, match="got reuse=0; expected 1 or more"):
        module(reuse=0)


FLEXIDIT = next(case for case in CASES if case.name == "flexidit")


@torch.no_grad()
def flexidit_error(distillation, batch) -> float:
    """Relative error of 1x4x4 on the noise of validation."""
    call, _ = distillation.call_of(batch, (-1, 0, 0))
    error, scale = distance(
        distillation.network, PatchMode("1x4x4"), call, output(set_mode(distillation.network, "native"), call)
    )
    set_mode(distillation.network, "native")
    return float(error / scale)


@pytest.mark.parametrize("process", [{"path": "flow", "target": "x0"}, {"path": "cosine", "target": "noise"}])
def test_modes_of_flexify_are_distilled_into_a_flexidit(process, tmp_path) -> None:
    seed_everything(0)
    network = build(FLEXIDIT)
    network.recipe = Recipe(process=process)
    arguments = call(FLEXIDIT, FLEXIDIT.even)
    native = output(network, arguments)
    folder = network.save_pretrained(tmp_path / "flexidit")
    distillation = FlexiDistillation(
        str(folder), ["1x4x4"], rank=4, weights="fp32", optimizer=FAST, walk=Walk((4, 8, 8))
    )
    batch = {"latent": torch.randn(4, 4, 4, 8, 8), "label": torch.tensor([0, 3, -1, 9])}
    distillation.configure_model()
    before = flexidit_error(distillation, batch)
    fit(distillation, DataLoader([batch] * 60, batch_size=None), tmp_path / "run", 60, AdapterEMA(decay=0.5))
    assert flexidit_error(distillation, batch) < 0.9 * before
    assert torch.equal(output(distillation.network, arguments), native)
    adapter = next(tmp_path.rglob("1x4x4.safetensors")).parent
    loaded = load_adapter(build(FLEXIDIT), adapter)
    assert torch.equal(output(loaded, arguments), native)
    weak = output(set_mode(distillation.network, "1x4x4"), arguments)
    assert torch.equal(output(set_mode(loaded, "1x4x4"), arguments), weak)


def test_labels_of_a_flexidit_are_classes_or_none() -> None:
    distillation = FlexiDistillation.of(flexify(build(FLEXIDIT), ["1x4x4"], rank=1))
    latent, labels = torch.zeros(200, 4, 1, 2, 2), torch.arange(200) % 11 - 1  # of 10 classes; -1 is none
    arguments, is_walk = distillation.call_of({"latent": latent, "label": labels}, (0, 0))
    assert not is_walk
    shown = arguments["condition"].label
    assert shown[labels < 0].unique().tolist() == [10]
    is_dropped = shown[labels >= 0] == 10
    assert torch.equal(shown[labels >= 0][~is_dropped], labels[labels >= 0][~is_dropped])
    assert 0.02 < is_dropped.float().mean() < 0.2
    with pytest.raises(ValueError, match=r"got labels from . to 30; expected 0 to 9"):
        distillation.call_of({"latent": latent[:31], "label": torch.arange(31)}, (0, 0))
    with pytest.raises(ValueError, match="got a batch without videos or latents for a FlexiDiT; expected some"):
        distillation.call_of({"label": labels}, (0, 0))


def test_the_mode_depends_on_seed_and_step_alone() -> None:
    one, other = module(seed=3), module(seed=3)
    other.total_steps = 77
    drawn = [one.mode_at(step) for step in range(40)]
    assert drawn == [other.mode_at(step) for step in range(40)]
    assert set(drawn) == {PatchMode(mode) for mode in MODES}


@pytest.mark.parametrize("index", [1, 2], ids=["ltx", "hunyuan"])
def test_other_flows_train_without_data(tmp_path, index) -> None:
    case = CASES[index]
    distillation = module(case, list(case.modes))
    fit(distillation, CallArrays(str(arrays(tmp_path / "rows", case, latents=False)), batch_size=2), tmp_path, 3)
    positions = distillation.walk.position
    assert len(set(positions.tolist())) == 2
    assert all(0 <= place < 1 for place in positions.tolist())


def test_a_walk_ends_where_the_solver_would() -> None:
    """With the velocity of a straight path, its end is the data, for steps of any length."""
    network, data = build(WAN), torch.randn(2, 4, 2, 4, 4)
    walk = module().walk
    source, inputs = torch.Generator().manual_seed(0), {"encoder_hidden_states": torch.zeros(2, 6, 16)}
    for _ in range(20):
        before = walk.call(network, inputs, source)["hidden_states"]
        time = walk.time.view(-1, 1, 1, 1, 1)
        walk.advance((before - data) / time, before, source)
        ended = walk.position == 0
        torch.testing.assert_close(walk.latent[ended], data[ended])
        if ended.any():
            return
    raise AssertionError("no path ended")


def test_videos_are_encoded_and_take_the_text_of_their_class(tmp_path) -> None:
    arrays(tmp_path / "texts", latents=False, rows=3)
    network = flexify(WAN.build(in_channels=3, out_channels=3).eval(), MODES, rank=2)
    times = DistillationTimes(shift=0.05)  # hardly any noise
    distillation = FlexiDistillation.of(network, times=times, texts=str(tmp_path / "texts"))
    batch = {"video": torch.zeros(2, 3, 2, 4, 4, dtype=torch.uint8), "label": torch.tensor([2, 0])}
    found, is_walk = distillation.call_of(batch, (0, 0, 0, 0))
    assert not is_walk
    assert torch.equal(found["encoder_hidden_states"], distillation.texts["encoder_hidden_states"][[2, 0]])
    assert (found["hidden_states"].flatten(1).mean(1) < 0).all()  # black is -1
    with pytest.raises(ValueError, match=r"expected model\.texts"):
        FlexiDistillation.of(network).call_of(batch, (0, 0, 0, 0))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_calls_of_a_real_pipeline(tmp_path, dtype) -> None:
    make, arguments, weak = PIPELINES["ltx"]
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 3, **arguments}
    del settings["prompt"]
    record_calls(pipe, tmp_path / "rows", ["a cat"], per_prompt=2, **settings)
    distillation = FlexiDistillation.of(flexify(pipe.transformer.to(dtype), [weak], rank=2), optimizer=FAST)
    before = [p.clone() for p in adapter_parameters(distillation.network)]
    data, settings = CallArrays(str(tmp_path / "rows"), batch_size=2), {"gradient_clip_val": 0.02}
    fit(distillation, data, tmp_path, 2, precision="bf16-mixed", **settings)
    assert any((p != q).any() for p, q in zip(before, adapter_parameters(distillation.network), strict=True))


def test_averages_are_written_and_checkpoints_hold_new_weights_only(tmp_path) -> None:
    distillation, data = module(), CallArrays(str(arrays(tmp_path / "rows")), batch_size=2)
    saves = ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, every_n_train_steps=1)
    fit(distillation, data, tmp_path, 4, AdapterEMA(0.9), saves)
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    assert state
    assert all(name.startswith("network.flexi.") for name in state)
    assert any((state[f"network.flexi.{k}"] != v).any() for k, v in distillation.network.flexi.state_dict().items())
    (folder,) = {path.parent for path in tmp_path.rglob("flexivid.json")}
    loaded = load_adapter(build(WAN), folder)
    for ours, theirs in zip(adapter_parameters(distillation.network), adapter_parameters(loaded), strict=True):
        assert torch.equal(ours, theirs)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path) -> None:
    """In mid-epoch: six rows in batches of four."""
    data = CallArrays(str(arrays(tmp_path / "rows")), batch_size=4)
    whole, begun, resumed = module(), module(), module()
    fit(whole, data, tmp_path, 5, AdapterEMA(0.9))
    saves = ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, every_n_train_steps=1)
    fit(begun, data, tmp_path, 2, AdapterEMA(0.9), saves)
    trainer = fit(resumed, data, tmp_path, 5, AdapterEMA(0.9), ckpt_path=tmp_path / "last.ckpt")
    assert trainer.global_step == 5
    for ours, theirs in zip(adapter_parameters(resumed.network), adapter_parameters(whole.network), strict=True):
        assert torch.equal(ours, theirs)


def test_hidden_files_are_no_arrays(tmp_path) -> None:
    np.save(tmp_path / "latent.npy", np.zeros((3, 2)))
    (tmp_path / "._latent.npy").write_bytes(b"written by macOS")
    assert list(Rows(tmp_path).arrays) == ["latent"]


def test_rows_of_an_epoch_once_for_any_number_of_ranks(tmp_path) -> None:
    folder = str(arrays(tmp_path / "rows", rows=12))
    rows = Rows(folder)
    for world_size in (1, 2, 3):
        seen = []
        for rank in range(world_size):
            data = CallArrays(folder, batch_size=2)
            data.trainer = SimpleNamespace(
                global_rank=rank, world_size=world_size, accumulate_grad_batches=1, global_step=0, max_steps=-1,
                max_epochs=1,
            )  # fmt: skip
            loader = data.train_dataloader()
            assert len(loader) == 12 // (2 * world_size)
            seen += [latent for batch in loader for latent in batch["latent"]]
        where = [next(i for i in range(12) if torch.equal(rows[i]["latent"], latent)) for latent in seen]
        assert sorted(where) == list(range(12))
        assert where != sorted(where)


def test_checkpoints_in_shards_are_refused(tmp_path) -> None:
    """They would lack the native weights, which resuming asks for."""
    distillation = module()
    distillation.trainer = SimpleNamespace(strategy=ModelParallelStrategy())
    with pytest.raises(ValueError, match="got ModelParallelStrategy with save_distributed_checkpoint; expected false"):
        distillation.setup("fit")


def test_wrong_modes_and_folders_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"without rows in \.npy"):
        CallArrays(str(tmp_path)).train_dataloader()
    with pytest.raises(ValueError, match="expected the network's modes"):
        module(phases=[Phase(1.0, {"4x4x4": 1})])


def run_two(script, *words):
    """Run a script that starts a second process like itself."""
    alone = {"OMP_NUM_THREADS": "1", "PL_GLOBAL_SEED": "", "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    environment = {name: value for name, value in {**os.environ, **alone}.items() if value}
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


TWO = """
import hashlib, json, sys
from pathlib import Path
import torch
from tests.training.test_distillation_module import arrays, fit, module
from flexivid.training.distillation.recorded_data import CallArrays
from flexivid.runtime.distributed import leave_group
torch.set_num_threads(1)
folder = Path(sys.argv[1])
distillation = module()
trainer = fit(
    distillation, CallArrays(str(folder / "rows"), batch_size=2), folder, 4, devices=2,
    strategy="ddp_find_unused_parameters_true",
)
weights = b"".join(p.detach().numpy().tobytes() for p in distillation.network.flexi.parameters())
digest = hashlib.sha256(weights).hexdigest()
told = {"weights": digest, "mode": str(distillation.mode_at(3)), "steps": trainer.global_step}
(folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(told))
leave_group()
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path) -> None:
    arrays(tmp_path / "rows", rows=12)
    script = tmp_path / "two.py"
    script.write_text(TWO)
    run_two(script, str(tmp_path))
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["steps"] == 4


SHARDED = """
import json, sys
from pathlib import Path
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from flexivid.pretrained.flexify import flexify
from flexivid.training.distillation.recorded_data import CallArrays
from flexivid.training.distillation.ema import AdapterEMA
from flexivid.runtime.distributed import leave_group
from flexivid.training.distillation.module import FlexiDistillation
from tests.pretrained.families import build
from tests.training.test_distillation_module import FAST, MODES, WAN, fit
torch.set_num_threads(1)
folder, kind, dtype = Path(sys.argv[1]), sys.argv[2], getattr(torch, sys.argv[3])
network = flexify(build(WAN, dtype), MODES, rank=4)
distillation = FlexiDistillation.of(network, optimizer=FAST)
strategies = {
    "ddp": "ddp_find_unused_parameters_true",
    "fsdp": ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False),
}
trainer = fit(
    distillation, CallArrays(str(folder / "rows"), batch_size=2), folder / kind, int(sys.argv[4]), AdapterEMA(0.5),
    ModelCheckpoint(dirpath=folder / sys.argv[4], every_n_train_steps=1, save_last=True, save_top_k=0), devices=2,
    strategy=strategies[kind], gradient_clip_val=0.02,
    precision="32-true" if dtype == torch.float32 else "bf16-mixed",
    ckpt_path=sys.argv[5] if len(sys.argv) > 5 else None,
)
kinds = {type(p).__name__ for p in distillation.network.parameters()}
(folder / f"{kind}{trainer.global_rank}.json").write_text(json.dumps(sorted(kinds)))
leave_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 1e-2)])
def test_sharded_training_is_the_same(tmp_path, dtype, tolerance) -> None:
    """FSDP2 over two processes writes the adapter that DDP does."""
    arrays(tmp_path / "rows", rows=12)
    (tmp_path / "two.py").write_text(SHARDED)
    adapters = {}
    for kind, parameters in (("ddp", ["Parameter"]), ("fsdp", ["DTensor", "Parameter"])):
        run_two(tmp_path / "two.py", str(tmp_path), kind, dtype, "4")
        assert json.loads((tmp_path / f"{kind}1.json").read_text()) == parameters
        (file,) = (tmp_path / kind).rglob("1x4x4.safetensors")
        adapters[kind] = load_file(file)
    assert adapters["ddp"].keys() == adapters["fsdp"].keys()
    for name, value in adapters["ddp"].items():
        torch.testing.assert_close(adapters["fsdp"][name], value, atol=tolerance, rtol=tolerance)


@pytest.mark.slow
def test_sharded_training_is_resumed(tmp_path) -> None:
    """FSDP2 over two processes, cut in two, writes the adapter of an uninterrupted run.

    Once every mode was trained: what PyTorch loads a state for without one to load, it counts as stepped once.
    """
    arrays(tmp_path / "rows", rows=12)
    (tmp_path / "two.py").write_text(SHARDED)
    assert {str(module().mode_at(step)) for step in range(6)} == set(MODES)
    adapters = []
    for parts in ([["8"]], [["6"], ["8", str(tmp_path / "6" / "last.ckpt")]]):
        for words in parts:
            run_two(tmp_path / "two.py", str(tmp_path), "fsdp", "float32", *words)
        adapters.append({mode: load_file(next((tmp_path / "fsdp").rglob(f"{mode}.safetensors"))) for mode in MODES})
    for mode, values in adapters[0].items():
        for name, value in values.items():
            torch.testing.assert_close(adapters[1][mode][name], value, atol=0, rtol=0)


@pytest.mark.slow
def test_the_recipe_runs_and_goes_on(tmp_path) -> None:
    """The program as users start it; its checkpoint holds plain data only."""
    build(WAN).save_pretrained(tmp_path / "wan")
    arrays(tmp_path / "prompts", latents=False)
    recipe = Path(__file__).resolve().parents[2] / "conf" / "distill_wan.yaml"
    words = [sys.executable, "-m", "flexivid.train", "fit", "--config", recipe, "--model.transformer", tmp_path / "wan"]
    words += ["--model.modes", "[1x4x4]", "--model.walk.size", "[2,4,4]", "--trainer.accelerator", "cpu"]
    words += ["--data.init_args.folder", tmp_path / "prompts", "--trainer.accumulate_grad_batches", "1"]
    environment = {**os.environ, "PYTHONPATH": str(recipe.parents[1])}
    for steps, more in ((2, []), (4, ["--ckpt_path", "last"])):
        command = [*map(str, words), "--trainer.max_steps", str(steps), *more]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        last = torch.load(tmp_path / "runs/distill_wan/version_0/checkpoints/last.ckpt", weights_only=True)
        assert last["global_step"] == steps
        assert f"{steps}/{steps}" in done.stdout + done.stderr  # the bar
    assert "UserWarning" not in done.stderr
    assert "warning: " not in done.stderr


@pytest.mark.parametrize(("latents", "reuse", "accumulate"), [(True, 1, 1), (True, 3, 1), (False, 1, 1), (True, 1, 2)])
def test_bad_rows_cost_their_steps_alone(tmp_path, latents, reuse, accumulate) -> None:
    """Their answers are used no more, their paths begin anew, and what is averaged stays finite."""
    folder = arrays(tmp_path / "rows", latents=latents, rows=40)
    name = folder / ("latent.npy" if latents else "encoder_hidden_states.npy")
    values = np.load(name)
    for row in range(0, 40, 8):
        values[row].flat[3] = np.nan
    np.save(name, values)
    seed_everything(0)
    patient = OptimizerSettings(learning_rate=3e-3, warmup_steps=1, bad_steps=BadSteps(in_a_row=20, share=1.0))
    distillation, average = module(reuse=reuse, optimizer=patient), AdapterEMA(0.5)
    fit(distillation, CallArrays(str(folder), batch_size=2), tmp_path, 20 // accumulate, average,
        accumulate_grad_batches=accumulate)  # fmt: skip
    assert distillation.record.bad
    assert distillation.record.good >= 10 // accumulate
    assert average.count == distillation.record.good
    assert all(weight.isfinite().all() for weight in (*adapter_parameters(distillation.network), *average.average))
    assert (tmp_path / "adapter" / "flexivid.json").is_file()


def test_rows_that_are_never_finite_stop_the_run(tmp_path) -> None:
    folder = arrays(tmp_path / "rows", rows=40)
    np.save(folder / "latent.npy", np.full((40, 4, 2, 4, 4), np.inf, np.float32))
    with pytest.raises(DivergedError, match=r"got 10 bad steps in a row until step 10; expected finite losses"):
        fit(module(), CallArrays(str(folder), batch_size=2), tmp_path, 30, AdapterEMA(0.5))
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": ["1x4x4"]}, r"got a checkpoint with modes=\['1x4x4', '2x2x2'\] for a run with modes=\['1x4x4'\]"),
        ({"case": CASES[1]}, "got a checkpoint with native_sha256=.*; change model.transformer or --ckpt_path"),
        ({"detail": True}, "got a checkpoint with detail=False for a run with detail=True; expected the same"),
    ],
)
def test_new_weights_of_something_else_are_not_gone_on_with(tmp_path, changes, message) -> None:
    saves = ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, every_n_train_steps=1)
    fit(module(), CallArrays(str(arrays(tmp_path / "rows")), batch_size=2), tmp_path, 2, saves)
    rows = arrays(tmp_path / "others", case=changes.get("case", WAN))
    with pytest.raises(ValueError, match=message):
        fit(module(**changes), CallArrays(str(rows), batch_size=2), tmp_path, 4, ckpt_path=tmp_path / "last.ckpt")


def test_the_rate_of_now_takes_effect(tmp_path) -> None:
    saves = ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, every_n_train_steps=1)
    rows = CallArrays(str(arrays(tmp_path / "rows")), batch_size=2)
    fit(module(), rows, tmp_path, 2, saves)
    slow = OptimizerSettings(learning_rate=1e-5, betas=(0.5, 0.6), warmup_steps=1, final_fraction=1.0)
    trainer = fit(module(optimizer=slow), rows, tmp_path, 4, ckpt_path=tmp_path / "last.ckpt")
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-5
    assert trainer.optimizers[0].param_groups[0]["betas"] == (0.5, 0.6)

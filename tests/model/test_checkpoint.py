"""What is saved comes back exactly; what is damaged or does not fit is refused in one line."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from flexivid import load
from flexivid.model.checkpoint import fingerprint, newest_run, save
from flexivid.model.flexidit import FlexiDiT
from flexivid.model.recipe import Recipe


def same(first, second):
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def write_ckpt(path, current, averaged=None):
    """What Lightning writes, as far as sampling needs it; with the EMA, state_dict holds the averaged weights."""

    def prefixed(model):
        return {"network." + name: tensor for name, tensor in model.state_dict().items()}

    content = {"state_dict": prefixed(averaged or current), "optimizer_states": []}
    if averaged is not None:
        content["current_model_state"] = prefixed(current)
    content["flexivid"] = {"model": current.config.to_dict(), "recipe": current.recipe.to_dict(), "plans": [[0, 1]]}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.fixture
def averaged(build_model):
    model = build_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    return model


@pytest.mark.parametrize("changes", [{}, {"attention": "factorised", "mlp_ratio": 2.0}, {"num_classes": 0}])
def test_roundtrip(build_model, tmp_path, changes):
    model = build_model(**changes)
    loaded = load(save(model, tmp_path / "deep" / "model"))
    assert same(loaded, model)
    assert (loaded.config, loaded.recipe) == (model.config, model.recipe)
    assert not loaded.training
    x, time = torch.randn(2, 3, 4, 8, 8), torch.tensor([0.2, 0.7])
    for mode in model.config.modes:
        assert torch.equal(loaded(x, time, mode=mode), model(x, time, mode=mode))


def test_saving_again_replaces_whole_files(model, averaged, tmp_path):
    save(model, tmp_path)
    save(averaged, tmp_path, recipe=Recipe(size=(1, 2, 3)))
    assert same(load(tmp_path), averaged)
    assert load(tmp_path).recipe == Recipe(size=(1, 2, 3))
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_files_are_open_formats(model, tmp_path):
    save(model, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model"]["modes"] == ["1x2x2", "2x4x4"]
    assert content["recipe"] == model.recipe.to_dict()
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()


@pytest.mark.parametrize("modes", [("1x2x2", "2x4x4"), ("1x2x2", "1x8x8")])
def test_a_model_saved_before_the_choice_of_resize_is_the_same_function(build_model, tmp_path, modes):
    model = build_model(modes=modes, resize="bilinear")
    save(model, tmp_path)
    assert "resize" not in json.loads((tmp_path / "config.json").read_text())["model"]
    loaded, (x, time) = load(tmp_path), (torch.randn(1, 3, 4, 8, 8), torch.tensor([0.2]))
    assert fingerprint(loaded) == fingerprint(model)
    assert all(torch.equal(loaded(x, time, mode=mode), model(x, time, mode=mode)) for mode in modes)


@pytest.mark.parametrize("place", ["last.ckpt", "checkpoints/last.ckpt"])
def test_ckpt_gives_averaged_weights_by_default(model, averaged, tmp_path, place):
    file = write_ckpt(tmp_path / place, model, averaged)
    for path in (file, tmp_path):
        assert same(load(path), averaged)
        assert same(load(path, ema=False), model)
    assert load(file).recipe == model.recipe


def test_ckpt_without_ema_has_one_set_of_weights(model, tmp_path):
    file = write_ckpt(tmp_path / "last.ckpt", model)
    assert same(load(file), model)
    assert same(load(file, ema=False), model)


def test_run_folder_has_both(model, averaged, tmp_path):
    write_ckpt(tmp_path / "checkpoints" / "last.ckpt", model, averaged)
    save(averaged, tmp_path)
    assert same(load(tmp_path), averaged)
    assert same(load(tmp_path, ema=False), model)


def test_export_without_ckpt_has_no_current_weights(model, tmp_path):
    save(model, tmp_path)
    with pytest.raises(ValueError, match=r"got --no-ema for .*; expected a .ckpt, which keeps both weights; point to"):
        load(tmp_path, ema=False)


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_no_checkpoint(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"got checkpoint .*; expected a folder with config.json .*; check the"):
        load(tmp_path / name)


DAMAGE = {
    "cut header": ("model.safetensors", lambda data: data[:100]),
    "cut weights": ("model.safetensors", lambda data: data[:-1000]),
    "empty weights": ("model.safetensors", lambda data: b""),
    "cut config": ("config.json", lambda data: data[:100]),
    "no model": ("config.json", lambda data: b"{}"),
    "a list": ("config.json", lambda data: b"[1, 2]"),
    "no text": ("config.json", lambda data: b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files(model, tmp_path, kind):
    name, damage = DAMAGE[kind]
    file = save(model, tmp_path) / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"got .* with damaged files \(.*\); expected what flexivid wrote; export the"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_ckpt_of_something_else(tmp_path, content):
    file = tmp_path / "last.ckpt"
    if content is None:
        torch.save({"state_dict": {}}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"got .*last.ckpt, which cannot be read as a flexivid checkpoint"):
        load(file)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("width", 64, "of another shape"),
        ("depth", 3, r"[1-9]\d* missing, 0 unknown"),
        ("depth", 1, r"0 missing, [1-9]\d* unknown"),
        ("num_classes", 5, "1 of another shape, e.g. conditioning.label.weight"),
    ],
)
def test_config_that_does_not_fit_the_weights(model, tmp_path, key, value, reason):
    change_config(save(model, tmp_path), lambda config: {**config, key: value})
    with pytest.raises(ValueError, match=rf"got weights at .*\W{reason}.*; expected the pair that was saved together;"):
        load(tmp_path)


def test_misspelt_config_key_names_the_nearest(model, tmp_path):
    change_config(save(model, tmp_path), lambda config: {**config, "widht": 32})
    with pytest.raises(ValueError, match=r"got model setting 'widht'; expected one of .*; did you mean 'width'\?"):
        load(tmp_path)


def change_config(folder, change):
    content = json.loads((folder / "config.json").read_text())
    content["model"] = change(content["model"])
    (folder / "config.json").write_text(json.dumps(content))


def test_fingerprint_tells_weights_and_configs_apart(model, averaged, build_model, tmp_path):
    prints = {fingerprint(m) for m in (model, averaged, build_model(modes=("1x2x2", "2x2x4")))}
    assert len(prints) == 3
    assert fingerprint(load(save(model, tmp_path))) == fingerprint(model)


def test_newest_run(model, tmp_path):
    old, new = save(model, tmp_path / "a" / "version_0"), write_ckpt(tmp_path / "b" / "last.ckpt", model)
    os.utime(old / "model.safetensors", (1, 1))
    (tmp_path / "b" / "._last.ckpt").write_bytes(b"written by macOS")
    assert newest_run(tmp_path) == new
    os.utime(new, (0, 0))
    assert newest_run(tmp_path) == old


def test_a_last_checkpoint_of_the_same_step_is_the_run(model, tmp_path):
    run = save(model, tmp_path / "version_0", recipe=replace(model.recipe, global_step=7))
    file = write_ckpt(run / "checkpoints" / "last.ckpt", model)
    os.utime(run / "model.safetensors", (1, 1))
    content = torch.load(file, weights_only=True)
    torch.save(content | {"global_step": 7}, file)
    assert newest_run(tmp_path) == run  # with its plans
    torch.save(content | {"global_step": 8}, file)
    assert newest_run(tmp_path) == file


def test_no_run_yet(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no trained model below .*; expected .*; run `make train-video`"):
        newest_run(tmp_path)


def test_from_pretrained_and_save_pretrained_are_a_round_trip(model, tmp_path):
    model.recipe = replace(model.recipe, fps=12.5)
    loaded = FlexiDiT.from_pretrained(model.save_pretrained(tmp_path / "deep" / "model"))
    assert (loaded.config, loaded.recipe, loaded.training) == (model.config, model.recipe, False)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert fingerprint(load(tmp_path / "deep" / "model")) == fingerprint(loaded) == fingerprint(model)


def test_from_pretrained_takes_names_of_shipped_models_and_checkpoints(model, tmp_path):
    assert FlexiDiT.from_pretrained("moving_digits").recipe.size == (8, 32, 32)
    assert FlexiDiT.from_pretrained(write_ckpt(tmp_path / "last.ckpt", model)).recipe == model.recipe
    with pytest.raises(FileNotFoundError, match="got checkpoint nowhere, which does not exist"):
        FlexiDiT.from_pretrained("nowhere")


def test_an_old_file_without_a_recipe_has_all_defaults(model, tmp_path):
    file = save(model, tmp_path) / "config.json"
    content = json.loads(file.read_text())
    del content["recipe"]
    file.write_text(json.dumps(content))
    assert load(tmp_path).recipe == Recipe()


def test_a_recipe_of_another_kind_is_refused_in_one_line(model, tmp_path):
    file = save(model, tmp_path) / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "recipe": {**content["recipe"], "fps": "fast"}}))
    with pytest.raises(ValueError, match="got a recipe with fps='fast'; expected a number above 0; correct"):
        load(tmp_path)

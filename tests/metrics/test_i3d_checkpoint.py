"""All layouts give the same tensors; damaged, foreign and wrong files are told apart. With the first eight tensors."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flexivid.metrics.extractors import i3d_checkpoint
from flexivid.metrics.extractors.crc32c import crc32c, masked
from flexivid.metrics.extractors.i3d import I3D
from flexivid.metrics.extractors.i3d_checkpoint import DATA_FILE, read_checkpoint, tensor_table

FEW = tensor_table()[:8]
FEW_OF_IMAGENET = tensor_table("rgb_imagenet")[:8]


def write_data_file(path, arrays, table=FEW):
    path.write_bytes(b"".join(arrays[entry.source].tobytes() for entry in table))
    return path


@pytest.fixture
def use_tables(monkeypatch):
    """Puts other tables in the place of DeepMind's; without ``right`` and ``wrong``, their first eight tensors."""

    def use(right=FEW, wrong=FEW_OF_IMAGENET):
        tables = {"rgb_scratch": right, "rgb_imagenet": wrong}
        monkeypatch.setattr(i3d_checkpoint, "tensor_table", lambda checkpoint="rgb_scratch": tables[checkpoint])

    return use


@pytest.fixture
def seeded_table(seeded_arrays):
    """The seeded weights in the place of the right ones; some checksums masked, as TensorFlow does."""
    crcs = [crc32c(seeded_arrays[entry.source]) for entry in FEW]
    return [e._replace(crc32c=masked(crc) if i % 2 else crc) for i, (e, crc) in enumerate(zip(FEW, crcs, strict=True))]


@pytest.fixture
def state(seeded_state):
    return {entry.name: seeded_state[entry.name] for entry in FEW}


def as_data_file(folder, state, arrays):
    return write_data_file(folder / DATA_FILE, arrays)


def as_port(folder, state, arrays):
    gammas = {name.replace("running_mean", "weight"): torch.ones(len(v)) for name, v in state.items() if "mean" in name}
    counts = {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in state if "mean" in name}
    torch.save({**state, **gammas, **counts}, folder / "i3d.pt")
    return folder / "i3d.pt"


def as_wrapped_port(folder, state, arrays):
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": v for name, v in state.items()}}, folder / "i3d.pth")
    return folder / "i3d.pth"


def as_safetensors(folder, state, arrays):
    save_file(state, folder / "i3d.safetensors")
    return folder / "i3d.safetensors"


def as_named_by_tensorflow(folder, state, arrays):
    save_file({e.source: torch.from_numpy(arrays[e.source]) for e in FEW}, folder / "tf.safetensors")
    return folder / "tf.safetensors"


LAYOUTS = [as_data_file, as_port, as_wrapped_port, as_safetensors, as_named_by_tensorflow]


@pytest.mark.parametrize("write", LAYOUTS)
def test_all_layouts_give_the_same_tensors(write, tmp_path, state, seeded_arrays, use_tables, seeded_table):
    use_tables(seeded_table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_checkpoint(write(tmp_path, state, seeded_arrays))
    assert list(found) == list(state)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_the_whole_file_fits_the_network(tmp_path, seeded_arrays, seeded_state, use_tables):
    path = write_data_file(tmp_path / DATA_FILE, seeded_arrays, tensor_table())
    use_tables([entry._replace(crc32c=crc32c(seeded_arrays[entry.source])) for entry in tensor_table()])
    network = I3D()
    network.load_state_dict(read_checkpoint(path))
    assert all(torch.equal(tensor, seeded_state[name]) for name, tensor in network.state_dict().items())


def test_the_table_is_two_whole_files():
    for checkpoint in ("rgb_scratch", "rgb_imagenet"):
        table = tensor_table(checkpoint)
        assert [entry.offset for entry in table] == np.cumsum([0, *(e.num_bytes for e in table[:-1])]).tolist()
        assert all(entry.num_bytes == 4 * np.prod(entry.shape) for entry in table)


@pytest.mark.parametrize("write", [as_data_file, as_wrapped_port])
def test_a_damaged_tensor_is_named(write, tmp_path, state, seeded_arrays, use_tables, seeded_table):
    use_tables(seeded_table)
    name = "Conv3d_1a_7x7.conv3d.weight"
    damaged = {**seeded_arrays, FEW[3].source: seeded_arrays[FEW[3].source] + 1}
    path = write(tmp_path, {**state, name: state[name] + 1}, damaged)
    with pytest.raises(
        ValueError, match=f"1 of 8 tensors have a wrong checksum \\(first {name}\\).*fetch the file again"
    ):
        read_checkpoint(path)


def test_the_wrong_checkpoint_warns(tmp_path, state, seeded_arrays, use_tables, seeded_table):
    use_tables(wrong=seeded_table)
    path = as_data_file(tmp_path, state, seeded_arrays)
    with pytest.warns(UserWarning, match="with the weights rgb_imagenet: published FVD is computed with rgb_scratch"):
        read_checkpoint(path)


def test_weights_of_ones_own_warn(tmp_path, state, seeded_arrays, use_tables):
    use_tables()
    path = as_safetensors(tmp_path, state, seeded_arrays)
    with pytest.warns(UserWarning, match=r"weights that are not known: .* cannot be compared"):
        read_checkpoint(path)


def test_noise_of_the_right_length_is_refused(tmp_path, use_tables):
    use_tables()
    path = tmp_path / DATA_FILE
    path.write_bytes(np.random.default_rng(0).bytes(sum(entry.num_bytes for entry in FEW)))
    with pytest.raises(ValueError, match="no tensor has its checksum"):
        read_checkpoint(path)


@pytest.mark.parametrize("write", LAYOUTS)
def test_half_a_file_is_refused(write, tmp_path, state, seeded_arrays, use_tables):
    use_tables()
    path = write(tmp_path, state, seeded_arrays)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"got {path}.*expected .*fetch it again"):
        read_checkpoint(path)


def test_other_networks_are_refused(tmp_path, state, use_tables):
    use_tables()
    for name, content in {
        "missing": {"fc.weight": torch.zeros(2)},
        "shape": {**state, "Conv3d_1a_7x7.bn.bias": torch.zeros(3)},
        "list": [1, 2],
        "gamma": {**state, "Conv3d_1a_7x7.bn.weight": torch.full((64,), 2.0)},
    }.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(ValueError, match=r"is no I3D with 400 classes.*choose another file"):
            read_checkpoint(tmp_path / f"{name}.pt")

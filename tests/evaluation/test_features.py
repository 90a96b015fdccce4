"""Blocks in files: whole or not at all, and never those of another evaluation."""

import torch

from flexivid.evaluation.features import BlockFolder, BlockMemory
from flexivid.evaluation.samples import SampleBlock, SampleStore, Task
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Sampling


def task_of(model, extractor, *, num_videos=4, seed=0, labels=None, **sampling):
    settings = Sampling(**{"num_inference_steps": 2, **sampling}).filled(model)
    plans = (plan_for(model, settings, 1.0),)
    return Task(model, plans, settings, conditions_for(model, num_videos, labels=labels), extractor, seed)


def block(*indices):
    count = len(indices)
    likeness = torch.full((count, 3), torch.nan, dtype=torch.float64)
    return SampleBlock(
        0,
        torch.tensor(indices),
        torch.randn(count, 6),
        likeness,
        0.25,
        70,
        torch.zeros(0, 4, 8, 8, 3, dtype=torch.uint8),
    )


def test_a_block_is_read_as_it_was_written(tmp_path, model, extractor):
    task, made = task_of(model, extractor), block(0, 1)
    SampleStore(tmp_path, task).write(made)
    found = SampleStore(tmp_path, task).read(0, [0, 1])
    assert (found.seconds, found.macs, found.plan) == (0.25, 70, 0)
    assert torch.equal(found.features, made.features)
    assert found.frames.shape == made.frames.shape


def test_nothing_of_another_evaluation_is_read(tmp_path, model, extractor):
    SampleStore(tmp_path, task_of(model, extractor)).write(block(0, 1))
    others = [{"seed": 1}, {"labels": [2]}, {"guidance_scale": 2.0}, {"num_inference_steps": 3}, {"precision": "bf16"}]
    for changes in others:
        assert SampleStore(tmp_path, task_of(model, extractor, **changes)).read(0, [0, 1]) is None, changes
    assert SampleStore(tmp_path, task_of(model, extractor, num_videos=3)).read(0, [0, 1]) is not None
    extractor.fingerprint = "1" * 16
    assert SampleStore(tmp_path, task_of(model, extractor)).read(0, [0, 1]) is None
    extractor.fingerprint = "0" * 16
    with torch.no_grad():
        next(iter(model.parameters())).add_(1)
    assert SampleStore(tmp_path, task_of(model, extractor)).read(0, [0, 1]) is None


def test_a_block_of_other_indices_is_not_taken_for_it(tmp_path):
    blocks = BlockFolder(tmp_path, {})
    blocks.write([4, 5], {"features": torch.ones(2, 1)})
    assert blocks.has([4, 5, 6])
    assert blocks.read([4, 5, 6]) is None
    blocks.write([4, 5, 6], {"features": torch.ones(3, 1)})
    assert len(blocks.read([4, 5, 6])["features"]) == 3


def test_a_damaged_file_is_made_again(tmp_path):
    blocks = BlockFolder(tmp_path, {})
    blocks.write([0], {"features": torch.ones(1, 1)})
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    assert blocks.read([0]) is None
    blocks.write([0], {"features": torch.ones(1, 1)})
    assert blocks.read([0]) is not None
    assert [file.suffix for file in tmp_path.rglob("*") if file.is_file()] == [".safetensors"]


def test_blocks_in_memory_are_those_in_files(tmp_path):
    stores = BlockMemory(), BlockFolder(tmp_path, {})
    for store in stores:
        assert (store.has([0, 1]), store.read([0, 1])) == (False, None)
        store.write([0, 1], {"features": torch.ones(2, 3)})
        store.share()
        assert store.has([0, 1])
        assert store.read([0]) is None
    first, second = (store.read([0, 1]) for store in stores)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_samples_in_memory_are_those_in_files(tmp_path, model, extractor):
    task, samples = task_of(model, extractor), block(0, 1)
    for root in (None, tmp_path):
        store = SampleStore(root, task)
        store.write(samples)
        assert str(store.read(0, [0, 1])) == str(samples)
        assert not store.has(0, [2])

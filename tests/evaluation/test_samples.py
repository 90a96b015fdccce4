"""Features of a block depend on nothing but the block; what is finished is not made again; bad input is refused."""

import math

import pytest
import torch

from flexivid.budget.schedule import Schedule, schedule_macs
from flexivid.budget.table import ErrorTable
from flexivid.evaluation import samples as evaluation
from flexivid.evaluation.features import blocks_of, extract
from flexivid.evaluation.rivals import with_rivals
from flexivid.evaluation.samples import SampleStore, Task, evaluate_features, score_budgets
from flexivid.media.pixels import to_bytes, to_unit
from flexivid.metrics.bootstrap import paired_difference
from flexivid.metrics.scores import score
from flexivid.model.checkpoint import fingerprint
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.generate import generate
from flexivid.sampling.plan import Amount, Plan, plan_for, table_settings
from flexivid.sampling.settings import Sampling, options_for

pytestmark = pytest.mark.filterwarnings("ignore:got .* videos. expected at least")  # distances of few are rough
SIZE = (4, 16, 16)


@pytest.fixture
def make_task(model, extractor):
    def make(num_videos=5, budgets=(0.5, 1.0), **sampling):
        settings = Sampling(**{"size": SIZE, "batch_size": 2, "num_inference_steps": 3, **sampling}).filled(model)
        plans = tuple(plan_for(model, settings, budget) for budget in budgets)
        return Task(model, plans, settings, conditions_for(model, num_videos), extractor, seed=3)

    return make


@pytest.fixture
def num_made(monkeypatch):
    """How often each global index was generated."""
    counts, real = {}, evaluation.generate_batches

    def watched(*args, indices, **kwargs):
        for index in indices:
            counts[index] = counts.get(index, 0) + 1
        return real(*args, indices=indices, **kwargs)

    monkeypatch.setattr(evaluation, "generate_batches", watched)
    return counts


def by_block(made):
    return {(one.plan, tuple(one.indices.tolist())): one for one in made}


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_the_same_blocks(world_size):
    shares = [blocks_of(11, 4, rank, world_size) for rank in range(world_size)]
    assert sorted(block for share in shares for block in share) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


@pytest.mark.parametrize("world_size", [2, 3])
def test_features_are_the_same_bit_for_bit_on_any_number_of_ranks(make_task, world_size):
    task = make_task()
    alone = by_block(evaluate_features(task, blocks_of(5, 2)))
    shared = {}
    for rank in range(world_size):
        shared |= by_block(evaluate_features(task, blocks_of(5, 2, rank, world_size)))
    assert alone.keys() == shared.keys()
    for key, one in alone.items():
        assert torch.equal(one.features, shared[key].features)
        assert torch.equal(one.frames, shared[key].frames)


def test_features_are_those_of_the_videos_as_written(make_task, model, extractor):
    task = make_task(3, (1.0,), batch_size=3)
    (made,) = evaluate_features(task, blocks_of(3, 3))
    videos = generate(
        model, num_videos=3, labels=task.conditions.labels, seed=3, size=SIZE, num_inference_steps=3, batch_size=3
    ).videos
    assert torch.equal(made.features, extractor(to_unit(to_bytes(videos))))
    assert torch.equal(made.frames, to_bytes(videos).permute(0, 2, 3, 4, 1))
    assert made.macs == 3 * generate(model, size=SIZE, num_inference_steps=3).measured_macs
    assert made.seconds > 0


def test_every_block_has_all_budgets_before_the_next_and_full_compute_first(make_task):
    order = [(int(one.indices[0]), one.plan) for one in evaluate_features(make_task(), blocks_of(5, 2))]
    assert order == [(first, plan) for first in (0, 2, 4) for plan in (1, 0)]


def test_fidelity_is_to_the_full_compute_sample_of_the_same_seed(make_task, extractor):
    task = make_task(2, (1.0, 0.5))
    full, weak = evaluate_features(task, blocks_of(2, 2))
    assert full.fidelity.isnan().all()
    distance = (full.features - weak.features).double().norm(dim=1)
    assert torch.allclose(weak.fidelity[:, 2], distance)
    error = (full.frames.double() - weak.frames.double()).square().flatten(1).mean(1)
    assert torch.allclose(weak.fidelity[:, 0], 10 * torch.log10(255**2 / error), atol=1e-3)
    rows = score_budgets(task, [full, weak], torch.randn(8, extractor.num_features))
    assert rows[0].fidelity is None
    assert rows[1].fidelity.psnr == pytest.approx(weak.fidelity[:, 0].mean().item())


def test_without_full_compute_there_is_no_fidelity(make_task, extractor):
    task = make_task(4, (0.5,))
    made = list(evaluate_features(task, blocks_of(4, 2)))
    assert score_budgets(task, made, torch.randn(8, extractor.num_features))[0].fidelity is None


def test_scores_do_not_depend_on_the_order_of_blocks(make_task, extractor):
    task, real = make_task(), torch.randn(9, extractor.num_features, generator=torch.Generator().manual_seed(0))
    made = list(evaluate_features(task, blocks_of(5, 2)))
    rows = score_budgets(task, made, real)
    assert [row.budget for row in rows] == [0.5, 1.0]
    assert rows[0].macs < rows[1].macs
    assert str(rows) == str(score_budgets(task, made[::-1], real))


def test_what_is_finished_is_not_made_again(tmp_path, make_task, num_made):
    task = make_task()
    blocks = blocks_of(5, 2)
    first = by_block(evaluate_features(task, blocks, store=SampleStore(tmp_path, task)))
    assert num_made == dict.fromkeys(range(5), 2)
    again = by_block(evaluate_features(task, blocks, store=SampleStore(tmp_path, task)))
    assert num_made == dict.fromkeys(range(5), 2)
    for key, one in first.items():
        assert all(str(a) == str(b) for a, b in zip(one, again[key], strict=True))


def test_an_interrupted_evaluation_goes_on(tmp_path, make_task, num_made, monkeypatch):
    task = make_task()
    store, counted = SampleStore(tmp_path, task), evaluation.generate_batches

    def stop(*args, indices, **kwargs):
        if 2 in indices:
            raise KeyboardInterrupt
        return counted(*args, indices=indices, **kwargs)

    monkeypatch.setattr(evaluation, "generate_batches", stop)
    with pytest.raises(KeyboardInterrupt):
        list(evaluate_features(task, blocks_of(5, 2), store=store))
    monkeypatch.setattr(evaluation, "generate_batches", counted)
    assert store.has(0, [0, 1])
    assert not store.has(1, [2, 3])
    num_made.clear()
    interrupted = by_block(evaluate_features(task, blocks_of(5, 2), store=store))
    assert num_made == {2: 2, 3: 2, 4: 2}
    whole = by_block(evaluate_features(task, blocks_of(5, 2)))
    assert all(torch.equal(interrupted[key].features, one.features) for key, one in whole.items())


def test_a_budget_can_be_added_later(tmp_path, make_task, num_made):
    small, large = make_task(4, (1.0, 0.5)), make_task(4, (1.0, 0.25, 0.5))
    for task in (small, large):
        made = by_block(evaluate_features(task, blocks_of(4, 2), store=SampleStore(tmp_path, task)))
    assert num_made == dict.fromkeys(range(4), 4)  # full compute once more, for the fidelity of the new one
    alone = by_block(evaluate_features(large, blocks_of(4, 2)))
    assert all(torch.equal(made[key].fidelity, one.fidelity) for key, one in alone.items() if key[0])


def test_samples_that_are_not_finite_are_named(make_task, model):
    task = make_task(3, (1.0,))
    with torch.no_grad():
        next(iter(model.parameters())).fill_(math.nan)
    with pytest.raises(ValueError, match=r"got values that are not finite in sample 0 at budget 1; expected .*; try"):
        list(evaluate_features(task, blocks_of(3, 2)))


def test_too_little_is_refused(make_task):
    with pytest.raises(ValueError, match=r"got 1 videos; expected at least 2 .*; raise num_videos"):
        make_task(1).check()
    with pytest.raises(ValueError, match=r"got videos of 1 frames; expected at least 2 for metric fake; raise num_fr"):
        make_task(size=(1, 16, 16)).check()


def test_native_steps_alone_stand_beside_each_budget(make_task, model, extractor):
    task = make_task(6, (1.0, 0.5))
    task = task._replace(plans=with_rivals(model, task.settings, task.plans))
    real = torch.randn(9, extractor.num_features, generator=torch.Generator().manual_seed(0))
    made = list(evaluate_features(task, blocks_of(6, 2)))
    full, weak = score_budgets(task, made[::-1], real)
    assert (full.rival, full.difference) == (None, None)
    assert (weak.rival.schedule, weak.rival.macs, weak.rival.budget) == ("1x1x2x2", full.macs // 3, 0.333)
    videos = generate(
        model, labels=task.conditions.labels, seed=3, size=SIZE, num_inference_steps=1, batch_size=2, num_videos=6
    ).videos
    fewer = extractor(to_unit(to_bytes(videos)))
    assert weak.rival.scores == score(fewer, real, seed=3)  # the same noises and classes
    own = torch.cat([one.features for one in made if one.plan == 1])
    assert weak.difference == paired_difference(own, fewer, real, seed=3)
    assert weak.difference.difference == pytest.approx(weak.scores.fvd - weak.rival.scores.fvd, rel=1e-6)
    assert weak.rival.fidelity.psnr > 0
    assert score_budgets(task._replace(rivals=False), made, real)[1].rival is None


def test_full_compute_is_sampled_once_and_the_rival_of_a_better_budget_1(make_task, model, extractor, num_made):
    task = make_task(4, (0.5,))
    better = Plan(1.0, Schedule.parse("1x2x4x4,3x1x2x2"))
    task = task._replace(plans=with_rivals(model, task.settings, [better, *task.plans]))
    assert task.rows == [0, 1]
    assert str(task.plans[task.full].schedule) == "3x1x2x2"
    made = list(evaluate_features(task, blocks_of(4, 2)))
    assert num_made == dict.fromkeys(range(4), 4)  # two budgets, one native step, full compute
    first, _ = score_budgets(task, made, torch.randn(8, extractor.num_features))
    assert first.rival.schedule == "3x1x2x2"
    assert first.rival.fidelity is None
    assert first.fidelity.psnr > 0  # held against native samples


def test_full_compute_is_found_among_the_plans(make_task):
    task = make_task(budgets=(0.5, 1.0))
    assert task.full == 1
    assert task._replace(plans=task.plans[:1]).full is None
    assert task._replace(plans=(Plan(0.9, task.plans[1].schedule),)).full == 0


def test_features_lie_on_the_cpu_in_single_precision(extractor):
    features = extract(extractor, torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint8))
    assert (features.dtype, features.device.type, tuple(features.shape)) == (
        torch.float32,
        "cpu",
        (2, extractor.num_features),
    )


def test_samples_that_choose_their_own_schedules_cost_what_they_chose(tmp_path, model, extractor, num_made):
    settings = Sampling(size=SIZE, batch_size=2, num_inference_steps=5, planner="adaptive").filled(model)
    options = tuple(options_for(model, settings))
    changes = [[]] * 3 + [[0.1, 0.3]] * 2
    known = {"model": fingerprint(model), "settings": table_settings(settings), "protocol": {}}
    table = ErrorTable(options=options, errors=[[0.0, 1.0]] * 5, changes=changes, **known)
    plan = plan_for(model, settings, Amount(0.7), tables=[table])
    task = Task(model, (plan,), settings, conditions_for(model, 4), extractor)
    made = list(evaluate_features(task, blocks_of(4, 2), store=SampleStore(tmp_path, task)))
    own = [schedule_macs(plan.adaptive.followed[i], model.config, SIZE) for i in range(4)]
    assert [one.macs for one in made] == [sum(own[:2]), sum(own[2:])]
    assert score_budgets(task, made, torch.randn(8, extractor.num_features))[0].macs == round(sum(own) / 4)
    fresh = plan_for(model, settings, Amount(0.7), tables=[table])
    again = list(evaluate_features(task._replace(plans=(fresh,)), blocks_of(4, 2), store=SampleStore(tmp_path, task)))
    assert [one.macs for one in again] == [one.macs for one in made]
    assert num_made == dict.fromkeys(range(4), 1)

"""FVD against compute while training: what is logged, when, from which weights, and what happens when it fails."""

from __future__ import annotations

import io
import json
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from flexivid import load
from flexivid.evaluation import run
from flexivid.evaluation.result import Evaluation
from flexivid.training.callbacks import FVDVsBudget, SampleVideos

VALIDATE = {"limit_val_batches": 1, "val_check_interval": 3, "check_val_every_n_epoch": None}
TAGS = ["val/fvd/budget_1", "val/fvd/budget_0.5", "val/fvd_auc"]
RIVAL = "val/fvd_fewer_steps/budget_0.5"


@pytest.fixture
def make_fvd():
    def make(**changes):
        settings = {"budgets": [1.0, 0.5], "num_videos": 6, "num_inference_steps": 2, "batch_size": 2}
        return FVDVsBudget(**{**settings, **changes})

    return make


def events_of(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def evaluations_of(folder):
    files = sorted((folder / "evaluations").glob("*.json"))
    return {file.name: Evaluation.from_json(json.loads(file.read_text())) for file in files}


def heard(trainer, *arguments):
    """The warnings of a training."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(*arguments)
    return [str(warning.message) for warning in caught]


def test_tensorboard_reads_what_is_logged(tmp_path, capsys, make_data, noisy_module, make_trainer, make_fvd):
    make_trainer(tmp_path, 4, make_fvd(), **VALIDATE).fit(noisy_module, make_data())
    events, kept = events_of(tmp_path), evaluations_of(tmp_path)
    assert list(kept) == ["step_000003.json", "step_000004.json"]
    last = kept["step_000004.json"]
    for tag, value in zip(TAGS, [*(row.scores.fvd for row in last.rows), last.fvd_auc], strict=True):
        assert [event.step for event in events.Scalars(tag)] == [3, 4]  # with the validation, and at the end
        assert events.Scalars(tag)[-1].value == pytest.approx(value, rel=1e-6)
    assert all(event.value > 0 for event in events.Scalars("perf/fvd_seconds"))
    (curve,) = [event for event in events.Images("val/fvd_vs_compute") if event.step == 4]
    with Image.open(io.BytesIO(curve.encoded_image_string)) as picture:
        assert (picture.width, picture.height) == (curve.width, curve.height)
        assert picture.width > 400
    for tag in ("samples/budget_1", "samples/budget_0.5"):  # SampleVideos is not there to do it
        with Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string)) as picture:
            assert (picture.format, picture.n_frames) == ("GIF", 4)
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts["fvd[motion]6_4f"] == TAGS[:2]
    assert charts["fvd[motion]6_4f, fewer steps"] == [RIVAL]
    assert events.Scalars(RIVAL)[-1].value == pytest.approx(last.rows[1].rival.scores.fvd, rel=1e-6)
    assert last.rows[1].rival.schedule == "1x2x4x4"  # of two steps
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    assert (
        "| metric | fvd[motion] |"
        in events.Tensors("val/fvd_protocol/text_summary")[0].tensor_proto.string_val[0].decode()
    )
    text = capsys.readouterr().out
    assert "fvd[motion]6_4f at step 4" in text
    assert last.rows[1].difference.verdict in text


def test_the_protocol_tells_how_it_was_measured(tmp_path, make_data, make_module, make_trainer, make_fvd):
    make_trainer(tmp_path, 1, make_fvd(reference="val", seed=3)).fit(make_module(), make_data())
    (evaluation,) = evaluations_of(tmp_path).values()
    protocol = evaluation.protocol
    assert (evaluation.global_step, evaluation.metric) == (1, "fvd[motion]6_4f")
    assert (protocol.num_frames, protocol.height, protocol.width) == (4, 16, 16)
    assert (protocol.num_videos, protocol.num_reference, protocol.reference_split) == (6, 6, "held_out")
    assert protocol.seed == 3
    assert [row.budget for row in evaluation.rows] == [1.0, 0.5]
    assert evaluation.rows[1].macs <= 0.5 * evaluation.rows[0].macs


@pytest.mark.parametrize(("every_n_steps", "steps"), [(None, [2, 4, 5]), (0, [5]), (3, [4, 5])])
def test_when(tmp_path, make_data, make_module, make_trainer, make_fvd, every_n_steps, steps):
    fvd = make_fvd(every_n_steps=every_n_steps, budgets=[1.0], num_videos=2)
    make_trainer(tmp_path, 5, fvd, **{**VALIDATE, "val_check_interval": 2}).fit(make_module(), make_data())
    assert list(evaluations_of(tmp_path)) == [f"step_{step:06d}.json" for step in steps]


def test_nothing_is_evaluated_twice(tmp_path, make_data, make_module, make_trainer, make_fvd):
    make_trainer(tmp_path, 3, make_fvd(budgets=[1.0], num_videos=2), **VALIDATE).fit(make_module(), make_data())
    assert [event.step for event in events_of(tmp_path).Scalars("val/fvd_auc")] == [3]  # a validation, and the end


def test_averaged_weights_are_evaluated(tmp_path, make_data, make_module, make_trainer, make_fvd, monkeypatch):
    real, seen = run.evaluate_features, []

    def watch(task, blocks, **options):
        seen.append((task.model.training, {name: tensor.clone() for name, tensor in task.model.state_dict().items()}))
        return real(task, blocks, **options)

    monkeypatch.setattr(run, "evaluate_features", watch)
    make_trainer(tmp_path, 3, make_fvd(), **VALIDATE).fit(make_module(), make_data())
    averaged = load(tmp_path / "checkpoints" / "last.ckpt").state_dict()
    for training, weights in seen:
        assert not training
        assert all(torch.equal(weights[name], averaged[name]) for name in averaged)
    assert seen


def test_training_does_not_notice(tmp_path, make_data, make_module, make_trainer, make_fvd):
    start = make_module().state_dict()
    for name, callbacks in (("with", [make_fvd()]), ("without", [])):
        module = make_module()
        module.load_state_dict(start)
        make_trainer(tmp_path / name, 5, *callbacks, **VALIDATE).fit(module, make_data())
    watched, alone = (load(tmp_path / name / "checkpoints" / "last.ckpt", ema=False) for name in ("with", "without"))
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))


@pytest.mark.parametrize(
    ("reference", "num_videos", "split"),
    [("auto", 6, "held_out"), ("auto", 11, "train"), ("train", 6, "train"), ("val", 6, "held_out")],
)
def test_held_out_clips_are_the_reference_where_there_are_enough(
    tmp_path, make_data, make_module, make_trainer, make_fvd, caplog, reference, num_videos, split
):
    fvd = make_fvd(reference=reference, num_videos=num_videos, budgets=[0.5])
    with caplog.at_level("INFO", "lightning.pytorch"):  # of 20 training clips and 10 held-out ones
        make_trainer(tmp_path, 1, fvd).fit(make_module(), make_data())
    (evaluation,) = evaluations_of(tmp_path).values()
    assert evaluation.protocol.reference_split == split
    assert f"FVD of {num_videos} videos at each budget against {num_videos} clips ({split})" in caplog.text


def test_rivals_can_be_left_out(tmp_path, capsys, make_data, make_module, make_trainer, make_fvd):
    make_trainer(tmp_path, 1, make_fvd(rivals=False)).fit(make_module(), make_data())
    (evaluation,) = evaluations_of(tmp_path).values()
    assert [row.rival for row in evaluation.rows] == [None, None]
    assert not [tag for tag in events_of(tmp_path).Tags()["scalars"] if "fewer_steps" in tag]
    assert "PSNR" in capsys.readouterr().out


def test_the_best_checkpoint_can_be_chosen_by_it(tmp_path, make_data, make_module, make_trainer, make_fvd):
    best = ModelCheckpoint(tmp_path / "best", monitor="val/fvd/budget_0.5", save_top_k=1)
    make_trainer(tmp_path, 6, make_fvd(), best, **VALIDATE).fit(make_module(), make_data())
    values = [one.rows[1].scores.fvd for one in evaluations_of(tmp_path).values()]
    assert float(best.best_model_score) == pytest.approx(min(values), rel=1e-6)


def test_samples_are_shown_once(tmp_path, make_data, make_module, make_trainer, make_fvd):
    shown = SampleVideos(budgets=[1.0], num_videos=1, num_inference_steps=2)
    make_trainer(tmp_path, 1, shown, make_fvd()).fit(make_module(), make_data())
    events = events_of(tmp_path)
    assert [len(events.Images(f"samples/budget_{budget}")) for budget in ("1", "0.5")] == [1, 1]


def test_a_resumed_run_draws_the_earlier_lines_too(
    tmp_path, make_data, make_module, make_trainer, make_fvd, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        "flexivid.training.callbacks.fvd_vs_budget.curve_figure",
        lambda evaluations: drawn.append([one.global_step for one in evaluations]) or real(evaluations),
    )
    from flexivid.evaluation.curve import curve_figure as real

    make_trainer(tmp_path, 2, make_fvd()).fit(make_module(), make_data())
    last = tmp_path / "checkpoints" / "last.ckpt"
    make_trainer(tmp_path, 4, make_fvd()).fit(make_module(), make_data(), ckpt_path=last)
    make_trainer(tmp_path, 5, make_fvd(seed=1)).fit(make_module(), make_data(), ckpt_path=last)
    assert drawn == [[2], [2, 4], [5]]  # the last one is of other videos


def test_a_validation_is_of_the_step_of_its_checkpoint(tmp_path, make_data, make_module, make_trainer, make_fvd):
    """Lightning's own step stays 0 then, so that results would come before all others of the run."""
    make_trainer(tmp_path / "run", 2).fit(make_module(), make_data())
    callbacks = (SampleVideos(budgets=[1.0], num_videos=1), make_fvd())
    trainer = make_trainer(tmp_path / "later", 2, *callbacks, limit_val_batches=1)
    trainer.validate(make_module(), make_data(), ckpt_path=tmp_path / "run" / "checkpoints" / "last.ckpt")
    later = tmp_path / "later"
    assert [file.name for file in (later / "evaluations").glob("*.json")] == ["step_000002.json"]
    assert sorted(file.name for file in (later / "samples").iterdir()) == ["step_000002.mp4", "step_000002.png"]
    events = EventAccumulator(str(later), size_guidance={"images": 0}).Reload()
    assert {event.step for event in events.Images("samples/budget_1")} == {2}
    assert {event.step for event in events.Scalars("val/fvd_auc")} == {2}


def test_as_many_videos_as_there_is_time_for(tmp_path, make_data, make_module, make_trainer, make_fvd):
    fvd = make_fvd(max_seconds=1e-6, num_videos=10)
    make_trainer(tmp_path, 4, fvd, **VALIDATE).fit(make_module(), make_data())
    found = evaluations_of(tmp_path).values()
    assert [(one.metric, one.protocol.num_videos) for one in found] == [("fvd[motion]2_4f", 2)] * 2
    assert all(row.scores.num_generated == 2 for one in found for row in one.rows)


def test_a_budget_that_cannot_be_met_is_left_out(tmp_path, make_data, make_module, make_trainer, make_fvd):
    trainer = make_trainer(tmp_path, 1, make_fvd(budgets=[1.0, 0.01]))
    said = heard(trainer, make_module(), make_data())
    assert any("budget 0.01 is left out: got budget 0.01; expected at least" in line for line in said)
    (evaluation,) = evaluations_of(tmp_path).values()
    assert [row.budget for row in evaluation.rows] == [1.0]


FAILURES = {
    "no budget": ({"budgets": [0.01]}, "no FVD at step 2: got no budget that can be met: got budget 0.01; expected"),
    "no weights": ({"extractor": "nowhere.safetensors"}, "there will be no FVD: got "),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_does_not_end_the_training(tmp_path, make_data, make_module, make_trainer, make_fvd, kind):
    changes, message = FAILURES[kind]
    trainer = make_trainer(tmp_path, 2, make_fvd(**changes))
    said = heard(trainer, make_module(), make_data())
    assert any(line.startswith(message) and "Training goes on" in line for line in said), said
    assert trainer.global_step == 2
    assert not evaluations_of(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_videos": 1}, "got num_videos=1; expected at least 2; change FVDVsBudget.num_videos"),
        ({"every_n_steps": -1}, "got every_n_steps=-1; expected at least 0; "),
        ({"batch_size": 0}, "got batch_size=0; expected at least 1; "),
        ({"max_seconds": 0}, "got max_seconds=0; expected more than 0; change FVDVsBudget.max_seconds"),
        ({"reference": "test"}, "got reference='test'; expected auto, train or val; change FVDVsBudget.reference"),
        ({"budgets": [0.5, 0.5]}, r"got budgets=\[0.5, 0.5\]; expected different ones in \(0, 1\]; change"),
    ],
)
def test_refusals(make_fvd, changes, message):
    with pytest.raises(ValueError, match=message):
        make_fvd(**changes)


def test_evaluation_before_the_average_is_refused(tmp_path, make_data, make_module, make_trainer, make_fvd):
    trainer = make_trainer(tmp_path, 2, callbacks=[make_fvd(), EMAWeightAveraging(use_buffers=False, decay=0.9)])
    with pytest.raises(ValueError, match="got FVDVsBudget before EMAWeightAveraging; expected it after, "):
        trainer.fit(make_module(), make_data())

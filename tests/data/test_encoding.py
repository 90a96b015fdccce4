"""Clips and captions coded once: what is read back is what coding them in training gives, and nothing is mixed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flexivid.data import VideoDataModule
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.encode_request import EncodeRequest
from flexivid.data.encoded.clips import EncodedClips, EncodedLoader, open_if_encoded, open_shard
from flexivid.data.encoded.decode import decoded, real_clips_of
from flexivid.data.encoded.folder import Shard, read_encoded
from flexivid.data.encoded.work import failures_of, share
from flexivid.data.encoding import encode_collection
from flexivid.data.sources.layout import Collection
from flexivid.dataset import main
from flexivid.latents.codec import build_codec
from flexivid.latents.settings import CodecSettings, TextSettings
from flexivid.latents.text_encoder import TextEncoder
from flexivid.media.pixels import to_unit
from flexivid.runtime.ranks import Ranks
from tests.latents.codecs import save_network
from tests.latents.test_text_encoder import SHAPES, tokenizer

CLIPS = ClipSettings(num_frames=5, size=(16, 24), windows="uniform")
CAPTIONS = [["a cat", "waves on the beach"], ["a cat"], ["the beach"], ["a cat", "the cat waves", "waves"], ["beach"]]
CPU, ALONE = torch.device("cpu"), Ranks(0, 1)


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """A folder with two autoencoders and two text encoders, all tiny."""
    folder = tmp_path_factory.mktemp("networks")
    save_network("CausalAutoencoder", folder / "vae")
    save_network("AutoencoderTiny", folder / "image_vae")
    for name in ("t5", "bert"):
        network, shape = SHAPES[name]
        network(shape).save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    return folder


@pytest.fixture
def root(tmp_path, make_video):
    """Five videos of two classes, some with several captions, and a held-out one."""
    rows = []
    for i, captions in enumerate([*CAPTIONS, ["a cat"]]):
        path = make_video(tmp_path / "v" / f"{i}.mp4", 12 + 5 * i, first=10 * i, step=3)
        rows.append(
            {"path": path.name, "label": "ab"[i % 2], "caption": captions, "split": "val" if i == 5 else "train"}
        )
    (tmp_path / "v" / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "v" / "list.jsonl"


@pytest.fixture
def request_for(root, networks, tmp_path):
    def make(**changes) -> EncodeRequest:
        options = {
            **{"source": Collection(str(root)), "output": str(tmp_path / "out"), "clips": CLIPS, "num_workers": 1},
            **{"codec": CodecSettings(str(networks / "vae")), "text": TextSettings(str(networks / "t5"))},
        }
        return EncodeRequest(**options | changes)

    return make


def encode(request):
    return encode_collection(request, CPU, ALONE)


def batches_of(data, part, step=0, steps=6):
    """The batches of a run that resumes at a step."""
    data.trainer = SimpleNamespace(
        **{"global_rank": 0, "world_size": 1, "accumulate_grad_batches": 1, "global_step": step, "max_steps": steps},
        **{"max_epochs": -1, "val_check_interval": None, "overfit_batches": 0, "log_dir": None},
    )
    data.setup()
    loader = data.train_dataloader() if part == "train" else data.val_dataloader()
    batches = list(loader)
    data.teardown()
    return batches


@pytest.mark.parametrize("part", ["train", "val"])
def test_batches_are_those_of_training_on_the_videos(request_for, root, networks, part):
    """Latents bit for bit, over two epochs of clips, the same captions drawn, and features of these captions."""
    encode(request_for())
    settings = {"batch_size": 4, "seed": 3}
    clips = {"num_frames": 5, "size": (16, 24), "windows": "uniform", "cache_gib": 0}
    videos = VideoDataModule(str(root), **settings, **clips)
    encoded = VideoDataModule(request_for().output, **settings)
    codec, encoder = build_codec(str(networks / "vae")), TextEncoder(TextSettings(str(networks / "t5")))
    pairs = list(zip(batches_of(videos, part), batches_of(encoded, part), strict=True))
    assert len(pairs) == {"train": 6, "val": 2}[part]
    for of_videos, of_latents in pairs:
        assert torch.equal(codec.encode(to_unit(of_videos["video"])), of_latents["latent"])
        assert torch.equal(of_videos["label"], of_latents["label"])
        assert of_videos["caption"] == of_latents["caption"]
        rows = zip(of_latents["caption"], of_latents["text_features"], of_latents["text_mask"], strict=True)
        for caption, features, mask in rows:
            assert torch.equal(features[mask], encoder.encode([caption]).features[0])
            assert not features[~mask].any()
    if part == "train":
        assert {caption for batch, _ in pairs for caption in batch["caption"]} == {c for each in CAPTIONS for c in each}


def test_a_run_resumes_at_the_exact_batch(request_for):
    encode(request_for())
    data = VideoDataModule(request_for().output, batch_size=3)
    whole, rest = batches_of(data, "train"), batches_of(data, "train", step=2, steps=4)
    assert len(rest) == 4
    for before, after in zip(whole[2:], rest, strict=True):
        assert before["caption"] == after["caption"]
        assert all(torch.equal(before[key], after[key]) for key in ("latent", "label", "text_features", "text_mask"))


def test_what_the_data_module_says(request_for, root, networks):
    encode(request_for())
    data = VideoDataModule(request_for().output)
    videos = VideoDataModule(str(root), num_frames=5, size=(16, 24), windows="uniform", cache_gib=0)
    videos.setup()
    for name in ("class_names", "num_classes", "has_captions", "clip_size", "num_clips", "fps"):
        assert getattr(data, name) == getattr(videos, name), name
    assert data.clip_size == (5, 16, 24)
    assert (data.latent_codec, videos.latent_codec) == (CodecSettings(str(networks / "vae")), None)
    assert (data.latent_size, videos.latent_size) == ((4, 2, 2, 3), None)
    assert data.codec_fingerprint == build_codec(str(networks / "vae")).fingerprint
    encoder = TextEncoder(TextSettings(str(networks / "t5")))
    assert (data.text_encoder, data.text_channels) == (encoder.settings, 16)
    assert data.text_fingerprint == encoder.fingerprint()
    assert (videos.text_encoder, videos.text_fingerprint, videos.text_channels) == (None, None, 0)


def test_training_loads_no_autoencoder_no_text_encoder_and_starts_no_process(request_for):
    encode(request_for())
    code = """
import sys, torch, gc
from pathlib import Path
from flexivid.runtime.start import swift_imports
with swift_imports():  # as the training program: Lightning would load all that it could use
    from flexivid.data.module import VideoDataModule
data = VideoDataModule(sys.argv[1], batch_size=4)
data.setup()
batches = [*data.train_dataloader(), *data.val_dataloader()]
assert len(batches) > 3
loaded = {"diffusers", "transformers.modeling_utils"} & set(sys.modules)  # Lightning loads a part
networks = [item for item in gc.get_objects() if isinstance(item, torch.nn.Module)]
children = Path("/proc/thread-self/children")
print(loaded, networks, children.read_text() if children.exists() else "")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, request_for().output], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["set()", "[]"]


def test_captions_without_an_encoder_stay_texts(request_for):
    encode(request_for(text=None))
    batch = batches_of(VideoDataModule(request_for().output, batch_size=4), "train")[0]
    assert set(batch) == {"latent", "label", "caption"}


def test_captions_that_are_too_long_are_cut_and_counted(request_for, networks):
    with pytest.warns(UserWarning, match=r"got a caption of 5 tokens .* expected at most 3; .*likewise 1 others"):
        encode(request_for(text=TextSettings(str(networks / "t5"), max_length=3)))


def test_a_finished_folder_is_left_alone_and_nothing_is_mixed(request_for, networks, root, make_video):
    assert "finished already" not in encode(request_for())
    before = {path: path.stat().st_mtime_ns for path in Path(request_for().output).rglob("*.safetensors")}
    assert "is finished already: 20 clips (train) and 7 clips (held_out)" in encode(request_for())
    for name, changes in {
        "codec": {"codec": CodecSettings(str(networks / "image_vae"))},
        "text_encoder": {"text": TextSettings(str(networks / "bert"))},
        "text_encoder max_length": {"text": TextSettings(str(networks / "t5"), max_length=4)},
        "clips stride": {"clips": CLIPS._replace(stride=2)},
        "dtype": {"dtype": "bf16"},
    }.items():
        with pytest.raises(ValueError, match=rf"got {name}.*which holds clips with .*; encode into another folder"):
            encode(request_for(**changes))
    make_video(root.parent / "0.mp4", 12, first=77)
    with pytest.raises(ValueError, match=r"got contents .*which holds clips with contents"):
        encode(request_for())
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("options", [[], ["class_captions"], ["allow_missing_captions"]])
def test_videos_without_a_caption(request_for, root, options):
    rows = [json.loads(line) for line in root.read_text().splitlines()]
    rows[1]["caption"] = None
    root.write_text("\n".join(map(json.dumps, rows)))
    request = replace(request_for(), **dict.fromkeys(options, True))
    if not options:
        with pytest.raises(ValueError, match=r"got 1 videos without a caption, such as .*1\.mp4, and --text-encoder"):
            encode(request)
        return
    encode(request)
    clips = open_if_encoded(request.output).part("train")
    number = next(clip for clip in range(len(clips)) if clips.label(clip) == 1)
    text = clips.text(clips.caption_number(number))
    assert clips.caption(number) == {"class_captions": "b", "allow_missing_captions": ""}[options[0]]
    assert len(text) == {"class_captions": 2, "allow_missing_captions": 0}[options[0]]
    if not len(text):
        data = VideoDataModule(request.output, batch_size=len(clips))
        batch = batches_of(data, "train")[0]
        empty = [not caption for caption in batch["caption"]]
        assert (~batch["text_mask"].any(1)).tolist() == empty
        assert any(empty)


def test_sizes_that_the_codec_does_not_divide(request_for):
    with pytest.raises(ValueError, match=r"got 5 frames of 20x24 .*expected multiples of 8 pixels"):
        encode(request_for(clips=CLIPS._replace(size=(20, 24))))
    assert not Path(request_for().output).exists()
    with pytest.warns(UserWarning, match="got clips of 6 frames; expected 9"):
        encode(request_for(clips=CLIPS._replace(num_frames=6)))


def test_half_the_room(request_for, tmp_path):
    encode(request_for())
    encode(replace(request_for(), output=str(tmp_path / "half"), dtype="bf16"))
    full, half = (open_if_encoded(str(tmp_path / name)).part("train") for name in ("out", "half"))
    for clip in range(len(full)):
        assert half.latent(clip).dtype == torch.bfloat16
        assert torch.equal(half.latent(clip), full.latent(clip).bfloat16())
    batch = batches_of(VideoDataModule(str(tmp_path / "half")), "train")[0]
    assert batch["latent"].dtype == batch["text_features"].dtype == torch.float32


def test_a_clip_that_cannot_be_decoded_is_recorded_and_replaced(request_for, root):
    videos = VideoDataModule(str(root), num_frames=5, size=(16, 24), windows="uniform")
    videos._load()  # the file is good when it is looked at, and bad when it is read
    gone = root.parent / "2.mp4"
    status, content = gone.stat(), gone.read_bytes()
    gone.write_bytes(content[:600] + bytes(len(content) - 600))
    os.utime(gone, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ValueError, match=r"got 1 of 6 files .* that cannot be decoded .*--max-bad-fraction"):
        encode(request_for())
    assert not (Path(request_for().output) / "finished.json").exists()
    with pytest.raises(ValueError, match=r"where \d+ of \d+ shards are encoded; expected all; go on"):
        VideoDataModule(request_for().output)
    assert "cannot be decoded" in encode(request_for(max_bad_fraction=0.5))
    out = Path(request_for().output)
    assert json.loads((out / "bad_videos.jsonl").read_text())["path"] == str(gone)
    encoded = open_if_encoded(str(out))
    dataset = videos._load().train
    missing = [clip for clip in range(len(dataset)) if dataset.row(clip) == 2]
    assert encoded.end.missing == {"train": missing, "held_out": []}
    data = VideoDataModule(str(out), batch_size=len(dataset))
    assert data.skipped == {"bad": 1, "too_short": 0}
    with pytest.warns(UserWarning, match=f"got {len(missing)} clips without a latent"):
        latents = batches_of(data, "train")[0]["latent"]
    replacement = encoded.part("train").latent(missing[-1] + 1)
    assert sum(torch.equal(latent, replacement) for latent in latents) == len(missing) + 1


def test_where_no_clip_has_a_latent_training_ends_with_an_error(request_for):
    """And validation has no batches."""
    encode(request_for(text=None))
    file = Path(request_for().output, "finished.json")
    end = json.loads(file.read_text())
    file.write_text(json.dumps(end | {"missing": {"train": list(range(20)), "held_out": list(range(7))}}))
    data = VideoDataModule(request_for().output, batch_size=2)
    with pytest.warns(UserWarning, match="got 27 clips without a latent"):
        assert batches_of(data, "val") == []
    with pytest.raises(ValueError, match=r"none of the 20 clips \(train\) has a latent; expected .*; replace"):
        batches_of(data, "train")


def test_a_rank_whose_held_out_clips_have_no_latent_takes_another(request_for):
    encode(request_for(text=None))
    all_clips = open_if_encoded(request_for().output).part("held_out")
    clips = EncodedClips(all_clips.folder, all_clips.encoded, "held_out", seed=0, missing=[1, 3, 4])
    batches = [[(1, 0), (3, 0)], [(4, 0)]]
    assert clips.without_missing([[(0, 0), (1, 0)], *batches, [(5, 0)]]) == [[(0, 0)], [(5, 0)]]
    (batch,) = EncodedLoader(clips, clips.without_missing(batches))
    assert torch.equal(batch["latent"], all_clips.latent(2)[None].float())


def test_settings_that_cannot_apply_are_refused(request_for):
    encode(request_for(text=None))
    assert VideoDataModule(request_for().output, num_frames=5, size=(16, 24), windows="uniform").num_clips == 20
    changes = {"num_frames": 9, "size": 48, "flip": True, "stride": 2, "windows": "all", "crop": "random"}
    for name, value in changes.items():
        message = rf"got data\.{name}=.* whose clips were encoded with {name}=.*leave data\.{name} out"
        with pytest.raises(ValueError, match=message):
            VideoDataModule(request_for().output, **{name: value})


def test_other_mistakes_are_one_error(request_for, root, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"got data\.latents=l; expected data\.root .*dataset encode"):
        VideoDataModule(str(root), latents="l")
    with pytest.raises(ValueError, match=r"with 0\.mp4 in it; expected a new folder"):
        replace(request_for(), output=str(root.parent)).check()
    encode(request_for(text=None))
    with pytest.raises(ValueError, match="which is encoded already; expected videos"):
        replace(request_for(), source=Collection(request_for().output), output="x").check()
    with pytest.raises(ValueError, match=r"got data\.buckets for .*whose clips have one shape"):
        VideoDataModule(request_for().output, buckets=[[5, 16, 24], [9, 16, 24]])
    words = ["encode", str(root), str(tmp_path / "x"), "--codec", "pixel", "--num-frames", "5"]
    for wrong in (["--windows", "random"], ["--dtype", "fp16"], ["--codec", "nothing"], ["--size", "1", "2", "3"]):
        with pytest.raises(SystemExit):
            main([*words, *wrong])
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: got ")


def test_real_clips_are_those_of_the_source_or_decoded(request_for, root, tmp_path):
    """The pixel codec decodes to the frames themselves."""
    encode(request_for(codec=CodecSettings("pixel"), text=None, clips=CLIPS._replace(stride=2)))
    out = request_for().output
    real = real_clips_of(out)
    assert (real.collection.root, real.settings.stride, real.note) == (str(root), 2, "")
    videos = VideoDataModule(str(root), num_frames=5, size=(16, 24), windows="uniform", stride=2)
    before = batches_of(videos, "val")[0]["video"]
    shutil.rmtree(root.parent)
    real = VideoDataModule(out).real_clips()
    assert real.note == "held_out, decoded latents"
    again = VideoDataModule(real.collection.root, layout="flat", **subset(real.settings))
    clips = again._load()
    names = sorted(clips.train.videos.path(row) for row in range(len(clips.train.videos)))
    assert len(names) + len(clips.val.videos) == len(before)
    frames = np.stack([clips.train[i, 0]["video"].numpy() for i in range(len(clips.train))])
    numbers = [int(Path(clips.train.videos.path(i)).name) for i in range(len(clips.train))]
    assert np.array_equal(frames, before[numbers].numpy())
    assert [number for number, _ in decoded(open_if_encoded(out).part("held_out"), [1])] == [1]


def subset(settings):
    return {name: getattr(settings, name) for name in ("num_frames", "size", "stride", "fps", "windows")}


def test_check_and_preview(request_for, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode(request_for())
    with pytest.raises(SystemExit) as stop:
        main(["check", "out"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert "out is encoded: 20 clips (train) and 7 clips (held_out), 5 frames of 24x16" in printed
    main(["preview", "out", "--num-videos", "2", "--split", "val"])
    assert (tmp_path / "preview" / "clips.html").read_text().count("<figure>") == 2
    with pytest.raises(SystemExit):
        main(["stats", "out"])
    assert "got out, which holds encoded clips; expected videos" in capsys.readouterr().err
    shard = read_encoded("out").shards("train")[1].name
    (tmp_path / "out" / shard).write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        main(["check", "out"])
    assert stop.value.code == 1
    assert f"damaged: {shard}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_step_does_not_wait_for_its_data(request_for):
    """Batches of 32 latents of 384 KiB each and texts, in steps of a fifth of a second."""
    encode(request_for(codec=CodecSettings("pixel"), clips=CLIPS._replace(size=(128, 128), num_frames=2)))
    data = VideoDataModule(request_for().output, batch_size=32)
    data.setup()
    data.trainer = SimpleNamespace(
        **{"global_rank": 0, "world_size": 1, "accumulate_grad_batches": 1, "global_step": 0, "max_steps": 20},
        **{"max_epochs": -1, "val_check_interval": None, "overfit_batches": 0},
    )
    waits, batches = [], iter(data.train_dataloader())
    for _ in range(20):
        begin = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - begin)
        time.sleep(0.2)
        assert batch["latent"].nbytes == 32 * 384 << 10
    assert float(np.median(waits)) < 0.02 * 0.2


def count_shards(folder, rank, queue, barrier):
    shards = [Shard("train", number, number, 1) for number in range(12)]

    def make(shard):
        time.sleep(0.02)
        queue.put((shard.number, rank))
        (folder / shard.name).write_bytes(b"")

    barrier.wait()  # a process that starts late would find nothing left
    assert len(list(share(folder, shards, make, rank=rank, size=3))) == len(shards)


def test_processes_share_the_work_and_none_is_done_twice(tmp_path):
    context = get_context("fork")
    queue, barrier = context.SimpleQueue(), context.Barrier(3)
    processes = [context.Process(target=count_shards, args=(tmp_path, rank, queue, barrier)) for rank in range(3)]
    for process in processes:
        process.start()
    made = [queue.get() for _ in range(12)]
    for process in processes:
        process.join()
    assert sorted(number for number, _ in made) == list(range(12))
    assert {rank for _, rank in made} == {0, 1, 2}
    assert queue.empty()


def slow_encode(request):
    """As the program does, with a codec slow enough to be interrupted."""
    from flexivid.latents import codec

    calls = codec.AutoencoderCodec.encode
    codec.AutoencoderCodec.encode = lambda self, video: time.sleep(0.12) or calls(self, video)
    torch.set_num_threads(1)
    encode(request)


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_repeat_nothing(request_for, tmp_path, make_video):
    for i in range(6, 12):
        make_video(tmp_path / "v" / f"{i}.mp4", 60, first=5 * i, step=2)
    request = request_for(source=Collection(str(tmp_path / "v"), "flat"), text=None)
    (tmp_path / "v" / "list.jsonl").unlink()
    out, rng, kills = Path(request.output), random.Random(0), 0
    seen: dict[Path, int] = {}
    while not (out / "finished.json").exists():
        process = get_context("fork").Process(target=slow_encode, args=(request,))
        process.start()
        process.join(timeout=rng.uniform(0.2, 0.9) if kills < 20 else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        shards = {path: path.stat().st_ino for path in out.glob("latents/*/*.safetensors")}
        assert seen.items() <= shards.items(), "a shard was lost or made again"
        seen = shards
    assert kills == 20
    encoded = read_encoded(out)
    assert {str(path.relative_to(out)) for path in seen} == {shard.name for shard in encoded.latent_shards}
    assert not [*out.rglob("*.part"), *out.rglob("*.lock")]
    encode(replace(request, output=str(tmp_path / "at_once")))
    for shard in encoded.latent_shards:
        files = [open_shard(str(folder / shard.name)).get_tensor("latents") for folder in (out, tmp_path / "at_once")]
        assert torch.equal(*files)
        assert failures_of(out, shard) == []

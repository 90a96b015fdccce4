"""Bad files count over all ranks, which stop together, and are listed once."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flexivid.data.bad_files import BATCHES_APART, BadFiles
from flexivid.data.index.build import BadVideo

ROOT = Path(__file__).resolve().parents[2]

RANK = """
    import json, sys, torch.distributed as distributed
    from flexivid.data.bad_files import BATCHES_APART, BadFiles
    from flexivid.data.index.build import BadVideo
    folder, rank = sys.argv[1], int(sys.argv[2])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    bad = BadFiles("v", num_files=8, max_fraction=0.4, folder=folder)
    for name in ("both.mp4", f"{rank}.mp4"):
        assert bad.report(BadVideo(name, "damaged"))
        assert not bad.report(BadVideo(name, "damaged"))
    for _ in range(BATCHES_APART):
        assert len(bad.by_path) == 0
        bad.count_batch()
    found = sorted(bad.by_path)
    bad.end(is_first=rank == 0)
    distributed.barrier()
    listed = [json.loads(line)["path"] for line in open(f"{folder}/bad_videos.jsonl")]
    distributed.barrier()
    if rank:
        bad.report(BadVideo("last.mp4", "damaged"))
    try:
        bad.meet()
    except ValueError as error:
        print(json.dumps([found, sorted(listed), str(error)]))
"""


def test_a_single_rank_stops_at_once(tmp_path):
    bad = BadFiles("v", num_files=10, max_fraction=0.1, folder=tmp_path)
    assert bad.report(BadVideo("a.mp4", "damaged"))
    assert not bad.report(BadVideo("a.mp4", "damaged"))
    for _ in range(BATCHES_APART):
        bad.count_batch()
    with pytest.raises(ValueError, match="got 2 of 10 files"):
        bad.report(BadVideo("b.mp4", "damaged"))
    assert [json.loads(line)["path"] for line in (tmp_path / "bad_videos.jsonl").open()] == ["a.mp4", "b.mp4"]


@pytest.mark.slow
def test_two_ranks_count_together(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(RANK), str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for rank in range(2)]
    for rank in ranks:
        found, listed, error = json.loads(rank.communicate(timeout=240)[0])
        assert found == listed == ["0.mp4", "1.mp4", "both.mp4"]
        assert error.startswith("got 4 of 8 files in v")

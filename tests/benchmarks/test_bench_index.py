"""The benchmark of the index makes an index of today's columns."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_index.py"


def test_a_large_index_is_written_opened_and_touched(tmp_path):
    spec = importlib.util.spec_from_file_location("bench_index", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    large = benchmark.memory(tmp_path, 2000)
    assert large["gib"] * 2**30 == (tmp_path / "large.arrow").stat().st_size
    assert 0 < large["imports"] <= large["opened"] <= large["touched"]

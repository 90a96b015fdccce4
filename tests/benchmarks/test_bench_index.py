"""The benchmark of the index makes an index of today's columns."""


def test_a_large_index_is_written_opened_and_touched(load_script, tmp_path):
    large = load_script("benchmarks/bench_index.py").memory(tmp_path, 2000)
    assert large["gib"] * 2**30 == (tmp_path / "large.arrow").stat().st_size
    assert 0 < large["imports"] <= large["opened"] <= large["touched"]

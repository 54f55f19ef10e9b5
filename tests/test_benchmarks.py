"""Benchmarks that no machine here can run in full still run."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_what_measures_a_gpu_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    gpu.main(["--device", "cpu", "--tiny", "--out", str(tmp_path / "gpu.md")])
    record = (tmp_path / "gpu.md").read_text()
    assert all(f"\n## {name}\n" in record for name in gpu.SECTIONS)
    assert "Failed" not in record

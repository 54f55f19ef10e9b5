"""Traces of updates: those behind the warm-up, and of runs that end before."""

import json
from pathlib import Path

import pytest
import torch

from lvae.train.devices.device import Device
from lvae.train.loop.profiling import TABLE, TRACE, WARM_UP, Profiler, count_launches


@pytest.mark.parametrize(("asked", "made", "traced"), [(2, 7, 2), (9, 5, 2), (1, WARM_UP, 0), (0, 5, 0)])
def test_so_many_updates_are_traced_behind_the_warm_up(asked: int, made: int, traced: int, tmp_path: Path) -> None:
    profiler, tables = Profiler(tmp_path / "profile", asked, Device()), []
    for number in range(made):
        profiler.before(number)
        torch.ones(3).square_()
        tables.append(profiler.after(number + 1))
    profiler.finish()
    assert [number for number, one in enumerate(tables, 1) if one] == ([WARM_UP + 2] if asked == 2 else [])
    assert all(one.launches is None for one in tables if one)  # a CPU launches nothing
    assert (tmp_path / "profile").exists() == bool(traced)
    if traced:
        events = json.loads((tmp_path / "profile" / TRACE).read_text())["traceEvents"]
        assert [event["name"] for event in events].count("aten::square_") == traced
        assert "aten::square_" in (tmp_path / "profile" / TABLE).read_text()


def test_launches_are_those_of_kernels_and_of_graphs() -> None:
    calls = [("cudaLaunchKernel", 40), ("cuLaunchKernelEx", 7), ("cudaLaunchKernelExC", 2), ("cudaGraphLaunch", 1)]
    others = [("aten::mm", 30), ("cudaMemcpyAsync", 5), ("cudaStreamSynchronize", 3), ("void gemm_kernel<1>", 40)]
    assert count_launches([*calls, *others]) == 50
    assert count_launches(others) == 0

from pathlib import Path

import pytest

from lvae.encode.feeding import cores as module
from lvae.encode.feeding.cores import cores, read_quota


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_container_with_a_quota_starts_as_many_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docker's --cpus=4 on a machine of 128 cores."""
    write(tmp_path, {"membership": "0::/\n", "groups/cpu.max": "400000 100000\n"})
    monkeypatch.setattr(module, "PROC", tmp_path / "membership")
    monkeypatch.setattr(module, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(128)))
    assert cores() == 4
    write(tmp_path, {"groups/cpu.max": "50000 100000\n"})
    assert cores() == 1
    write(tmp_path, {"groups/cpu.max": "max 100000\n"})
    assert cores() == 128


V1 = "4:memory:/a\n3:cpu,cpuacct:/a/b\n1:name=systemd:/a\n"


@pytest.mark.parametrize(
    ("membership", "files", "granted"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 50000"}, 3.0),  # that of a group around it
        ("0::/host/only\n", {"cpu.max": "200000 100000"}, 2.0),
        (V1, {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000"}, 2.5),
        (V1, {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_quotas_of_both_versions_are_read(
    membership: str, files: dict[str, str], granted: float | None, tmp_path: Path
) -> None:
    write(tmp_path, {"membership": membership})
    assert read_quota(tmp_path / "membership", write(tmp_path / "groups", files)) == granted


def test_other_systems_have_no_quota(tmp_path: Path) -> None:
    assert read_quota(tmp_path / "nothing", tmp_path) is None

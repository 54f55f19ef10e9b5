from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvae.manifests.errors import LvaeError
from lvae.manifests.publishing.publish import drop_raw
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.verify.recompute import regenerated
from tests.manifests.dataset_examples import Contents, build, encode, resign

KINDS: dict[str, tuple[Contents, dict[str, Any]]] = {
    "channel": (Contents(), {}),
    "scalar in tars": (Contents(), {"normalization": "scalar", "format": "webdataset"}),
    "float32": (Contents(), {"dtype": "float32", "split": {"val": "20%"}}),
    "moments": (Contents(store="moments"), {"limit": 40}),
    "bytes": (Contents(pixels=True), {"dtype": "uint8"}),
    "selection": (Contents(), {"only_classes": ["猫", "cat"], "limit": 30}),
    "unlabelled": (Contents(classes=None), {}),
}
kinds = pytest.mark.parametrize("name", KINDS)


@kinds
def test_statistics_from_raw_parts_agree_with_the_manifest(tmp_path: Path, name: str) -> None:
    build(tmp_path, KINDS[name][0], **KINDS[name][1])
    found = regenerated(str(tmp_path))
    assert found.computed_from == "raw" and found.largest_difference() <= 1e-12
    found.require_agreement()


@kinds
def test_statistics_from_shards_agree_with_the_manifest(tmp_path: Path, name: str) -> None:
    example = build(tmp_path, KINDS[name][0], **KINDS[name][1])
    drop_raw(example.folder)
    found = regenerated(str(tmp_path))
    assert found.computed_from == "shards"
    found.require_agreement()


@pytest.mark.parametrize("dropped", [False, True], ids=["raw", "shards"])
@pytest.mark.parametrize(("field", "change"), [("mean", 0.01), ("std", -0.01)])
def test_edited_statistics_are_refused(tmp_path: Path, field: str, change: float, dropped: bool) -> None:
    example = build(tmp_path)
    if dropped:
        drop_raw(example.folder)

    def edit(content: dict[str, Any]) -> None:
        content["statistics"][field][1] += change * content["statistics"]["std"][1]

    resign(tmp_path, edit)
    found = regenerated(str(tmp_path))
    assert found.largest_difference() == pytest.approx(0.01, rel=0.1)
    with pytest.raises(LvaeError, match=r"standard deviations off those of the .*lvae verify --deep"):
        found.require_agreement()


def test_statistics_by_class_are_those_of_its_latents(tmp_path: Path) -> None:
    example = build(tmp_path, only_classes=["猫", "cat"], split={"val": "5"})
    found = regenerated(str(tmp_path)).by_class
    labels = np.array([example.rows[row].label for row in example.stored_rows])
    assert [name for name, _ in found] == ["猫", "cat"]
    for (_, moments), label in zip(found, (2, 0), strict=True):
        expected = ChannelMoments.of(example.means[labels == label])
        assert moments.count == expected.count
        np.testing.assert_allclose(moments.std, expected.std, rtol=1e-12)
        np.testing.assert_allclose(moments.mean, expected.mean, rtol=0, atol=1e-12 * float(expected.std.max()))


def test_unlabelled_latents_are_a_class_of_their_own(tmp_path: Path) -> None:
    build(tmp_path / "some")
    assert [name for name, _ in regenerated(str(tmp_path / "some")).by_class] == ["(unlabelled)", "cat", "dog", "猫"]
    build(tmp_path / "all", Contents(classes=None))
    [(name, moments)] = regenerated(str(tmp_path / "all")).by_class
    assert name == "(unlabelled)" and moments.count == 144 * 4


@pytest.mark.parametrize("dropped", [False, True], ids=["raw", "shards"])
def test_a_table_and_a_record_show_every_channel(tmp_path: Path, dropped: bool) -> None:
    example = build(tmp_path)
    if dropped:
        drop_raw(example.folder)
    found = regenerated(str(tmp_path))
    assert len(found.table(by_class=False).splitlines()) == 2 + 4 + 1
    assert found.table(by_class=True).startswith(found.table(by_class=False))
    record = found.as_dict(by_class=True)
    assert len(record["mean"]) == len(record["std"]) == 4 and record["values"] == 144 * 4
    assert record["manifest"]["std"] == example.manifest.statistics.std


def test_what_is_no_finished_dataset_is_refused(tmp_path: Path) -> None:
    encode(tmp_path / "unfinished")
    for name in ("unfinished", "nothing"):
        with pytest.raises(LvaeError, match=f"{name}: is not a finished dataset"):
            regenerated(str(tmp_path / name))

"""Two passes of the shuffle give the bytes of one, go on where they were, and refuse what is damaged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import permute, unpermute
from lvae.manifests.storage.object_store import RemoteFolder
from lvae.manifests.views import mixing, order
from lvae.manifests.views.gather import shard_content, write_shard
from lvae.manifests.views.mixing import (
    Mixing,
    begin_mixing,
    bundles_of,
    finished_window,
    mix_window,
    plan_mixing,
    write_mixed_shards,
)
from lvae.manifests.views.view import ViewPlan, write_view
from tests.manifests.dataset_examples import (
    Contents,
    Example,
    build,
    encode,
    files_of,
    pending_shards,
    planned,
    settings_of,
)

SMALL = 3000  # bytes of a window: several windows and bundles of the little datasets


@given(count=st.integers(1, 5000), seed=st.integers(0, 9))
def test_the_way_back_of_a_permutation(count: int, seed: int) -> None:
    places = permute(np.arange(count), count, seed, "order/train")
    np.testing.assert_array_equal(unpermute(places, count, seed, "order/train"), np.arange(count))


def begin(root: Path, contents: Contents, **changes: Any) -> tuple[Example, ViewPlan, Mixing]:
    example = encode(root, contents)
    _, view = planned(example, settings_of(example, **changes))
    write_view(example.folder, view)
    plan = plan_mixing(view, example.folder)
    begin_mixing(example.folder, view, plan)
    return example, view, plan


def mix(example: Example, view: ViewPlan, plan: Mixing) -> None:
    for window in range(plan.windows):
        mix_window(example.folder, example.plan, view, plan, window)
    for bundle in range(len(bundles_of(view, plan))):
        write_mixed_shards(example.folder, example.plan, view, plan, bundle)


def shards_in(root: Path) -> dict[str, bytes]:
    once = ("jsonl", "zarr.json", "view.json")  # written with the view
    return {
        name: data for name, data in files_of(root).items() if name.startswith("shards") and not name.endswith(once)
    }


@pytest.mark.parametrize(
    ("contents", "changes"),
    [
        (Contents(), {}),
        (Contents(store="moments"), {"split": {"val": "10"}}),
        (Contents(pixels=True), {"dtype": "uint8", "format": "webdataset", "split": {"val": "20%", "test": "20%"}}),
        (Contents(), {"format": "webdataset", "limit": 40}),
    ],
    ids=str,
)
def test_two_passes_write_the_bytes_of_one(
    contents: Contents, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "MEMORY_BYTES", SMALL)
    one = build(tmp_path / "one", contents, **changes)
    two, view, plan = begin(tmp_path / "two", contents, **changes)
    mix(two, view, plan)
    assert plan.windows > 1 and len(bundles_of(view, plan)) > 1
    assert shards_in(two.root) == shards_in(one.root)


def test_what_is_mixed_is_not_mixed_again_for_this_view_and_is_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "MEMORY_BYTES", SMALL)
    example, view, plan = begin(tmp_path, Contents())
    mix_window(example.folder, example.plan, view, plan, 0)
    begin_mixing(example.folder, view, plan)
    assert finished_window(example.folder, view, 0) is not None
    _, other = planned(example, settings_of(example, seed=1))
    begin_mixing(example.folder, other, plan_mixing(other, example.folder))
    assert [path.name for path in (tmp_path / "mixing").iterdir()] == [other.name]


def test_a_damaged_block_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "MEMORY_BYTES", SMALL)
    example, view, plan = begin(tmp_path, Contents())
    for window in range(plan.windows):
        mix_window(example.folder, example.plan, view, plan, window)
    for path in tmp_path.glob("mixing/*/*/*.blocks"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(LvaeError, match="other bytes than were written"):
        write_mixed_shards(example.folder, example.plan, view, plan, 0)


class Store(RemoteFolder):
    """Keeps the names of what was asked for."""

    def __init__(self, url: str):
        self.whole, self.pieces = list[str](), list[str]()
        super().__init__(url)

    def _fetch(self, name: str, path: Path) -> None:
        self.whole.append(name)
        super()._fetch(name, path)

    def read(self, name: str) -> bytes:
        self.whole.append(name)
        return super().read(name)

    def read_pieces(self, pieces: Sequence[tuple[str, int, int]]) -> list[bytes]:
        self.pieces += [name for name, _, _ in pieces]
        return super().read_pieces(pieces)


@pytest.mark.parametrize("passes", ["one", "two"])
def test_keys_of_tars_on_a_store_come_with_the_order(
    passes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from rows/, which are not even there any more; and of few images far apart in pieces."""
    monkeypatch.setattr(mixing, "MEMORY_BYTES", SMALL)
    example, view, plan = begin(tmp_path, Contents(), format="webdataset", split={"val": "10"})
    filled = RemoteFolder("memory://travelling/keys")
    filled._files.put(str(tmp_path), "/travelling/keys", recursive=True)
    for name in filled.names("rows"):
        filled.remove(name)
    store = Store("memory://travelling/keys")
    if passes == "two":
        for window in range(plan.windows):
            mix_window(store, example.plan, view, plan, window)
        store.whole, store.pieces = [], []
        for bundle in range(len(bundles_of(view, plan))):
            write_mixed_shards(store, example.plan, view, plan, bundle)
        assert not [name for name in (*store.whole, *store.pieces) if "/order/" in name]  # they lie in the blocks
    else:
        for split, number in pending_shards(store, view):
            write_shard(store, example.plan, view, split, number)
        monkeypatch.setattr(order, "GAP_BYTES", 1)
        some = Store("memory://travelling/keys")
        rows = np.array([0, 7])
        content = shard_content(some, example.plan, view, "train", 0, rows=rows)
        near = shard_content(example.folder, example.plan, view, "train", 0)
        assert content.keys == [near.keys[row] for row in rows]
        assert not [name for name in some.whole if name.endswith((".keys", ".key-ends"))]
        assert [name for name in some.pieces if name.endswith(".keys")]
    assert not [name for name in (*store.whole, *store.pieces) if name.startswith("rows")]
    for split, number in pending_shards(example.folder, view):
        write_shard(example.folder, example.plan, view, split, number)
    written = {name: data for name, data in files_of(tmp_path).items() if name.endswith(".tar")}
    assert written and {name: store.read(name) for name in written} == written
    filled._files.rm("/travelling", recursive=True)

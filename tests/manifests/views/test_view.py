from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Origin
from lvae.manifests.parts.receipts import receipt_name
from lvae.manifests.shards import layout as layouts
from lvae.manifests.shards.formats import codec
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.object_store import RemoteFolder
from lvae.manifests.views import order
from lvae.manifests.views.gather import shard_content, write_shard
from lvae.manifests.views.view import (
    ViewSettings,
    finished_shard,
    read_view,
    shard_receipt_name,
    view_file,
    view_id,
    write_view,
)
from tests.manifests.dataset_examples import (
    CLASSES,
    Contents,
    Example,
    build,
    encode,
    files_of,
    pending_shards,
    plan_of,
    planned,
    problems,
    rewrite_raw,
    settings_of,
    shard,
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return encode(tmp_path_factory.mktemp("views"))


def assert_complete(example: Example) -> None:
    """Every selected latent stands exactly once, with its own label, row and orientation, normalized."""
    labels = [row.label for row in example.rows]
    if example.settings.selection.only_classes is not None:
        assert example.contents.classes is not None
        names = example.settings.selection.only_classes
        numbers = {example.contents.classes.index(name): number for number, name in enumerate(names)}
        labels = [numbers.get(label, -1) for label in labels]
    place = {}  # (row, mirrored) -> index among the raw latents
    for index, row in enumerate(example.stored_rows):
        place[row, example.contents.mirrored and index % 2 == 1] = index
    raw, channels = np.concatenate(example.raw), example.plan.encoded().latent_shape[0]
    seen: list[tuple[int, bool]] = []
    for split in example.manifest.splits:
        dataset = example.open(split)
        pairs = list(zip(dataset.rows.tolist(), dataset.mirrored.tolist(), strict=True))
        seen += pairs
        here = raw[[place[pair] for pair in pairs]]
        assert dataset.labels.tolist() == [labels[row] for row, _ in pairs]
        dtype = example.settings.dtype
        normalization = dataset.normalization
        expected = here if dtype == "uint8" else normalization.normalize(here[:, :channels], dtype)
        np.testing.assert_array_equal(np.asarray(dataset.latents), expected)
        assert (dataset.log_variances is None) == (example.contents.store != "moments")
        if dataset.log_variances is not None:
            log_variances = normalization.normalize_log_variances(here[:, channels:], dtype)
            np.testing.assert_array_equal(np.asarray(dataset.log_variances), log_variances)
    assert len(set(seen)) == len(seen) == example.manifest.counts.selected
    if example.settings.selection.everything:
        assert sorted(seen) == sorted(place)


@pytest.mark.parametrize("shards", ["zarr", "webdataset"])
@pytest.mark.parametrize(
    ("contents", "changes"),
    [
        (Contents(), {}),
        (Contents(mirrored=False, classes=None), {"normalization": "scalar", "dtype": "float32"}),
        (Contents(store="moments"), {"split": {"val": "10"}, "seed": 3}),
        (Contents(store="sample"), {"only_classes": ["猫", "cat"], "normalization": "none"}),
        (Contents(pixels=True), {"dtype": "uint8", "split": {"val": "20%", "test": "20%"}}),
        (Contents(pixels=True), {"dtype": "float16"}),
        (Contents(), {"normalization": "given", "shift": (1.0, 2.0, 3.0, 4.0), "scale": (5.0,) * 4, "limit": 40}),
    ],
    ids=str,
)
def test_every_selected_latent_stands_once_where_it_belongs(
    tmp_path: Path, shards: str, contents: Contents, changes: dict[str, Any]
) -> None:
    assert_complete(build(tmp_path, contents, format=shards, **changes))


@settings(max_examples=10, deadline=None)
@given(
    images=st.integers(1, 90),
    part_size=st.integers(1, 40),
    mirrored=st.booleans(),
    rejected=st.sets(st.integers(0, 89), max_size=30),
    seed=st.integers(0, 9),
    shards=st.sampled_from(["zarr", "webdataset"]),
)
def test_parts_and_rejections_of_any_size_are_gathered(
    images: int, part_size: int, mirrored: bool, rejected: set[int], seed: int, shards: str
) -> None:
    here = frozenset(row for row in rejected if row < images - 1)
    contents = Contents(images=images, part_size=max(part_size, images // 8), mirrored=mirrored, rejected=here)
    with TemporaryDirectory() as root:
        assert_complete(build(Path(root), contents, format=shards, seed=seed))


def test_more_than_a_block_of_one_part_is_normalized(tmp_path: Path) -> None:
    contents = Contents(images=350, part_size=400, rejected=frozenset())
    assert_complete(build(tmp_path, contents, shard_size=8192))


def test_an_order_read_in_windows_gives_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = build(tmp_path / "a", split={"val": "10"})
    monkeypatch.setattr(order, "WINDOW_ENTRIES", 7)
    b = build(tmp_path / "b", split={"val": "10"})
    assert files_of(a.root) == files_of(b.root)


@pytest.mark.parametrize("contents", [Contents(), Contents(store="moments"), Contents(pixels=True)], ids=str)
def test_shards_gathered_from_a_store_are_those_of_this_machine(tmp_path: Path, contents: Contents) -> None:
    here = encode(tmp_path / "here", contents)
    there = RemoteFolder("memory://bucket/views")
    there._files.put(str(here.root), "/bucket/views", recursive=True)
    _, view = planned(here, here.settings)
    for split, number in pending_shards(here.folder, view):
        near = shard_content(here.folder, here.plan, view, split, number)
        far = shard_content(there, here.plan, view, split, number, order=here.folder)
        np.testing.assert_array_equal(near.latents, far.latents)
        assert (near.log_variances is None) == (far.log_variances is None)
        if near.log_variances is not None and far.log_variances is not None:
            np.testing.assert_array_equal(near.log_variances, far.log_variances)
    there._files.rm("/bucket", recursive=True)


def test_the_order_is_shuffled_and_decided_by_the_seed(tmp_path: Path) -> None:
    example = encode(tmp_path)
    orders = {}
    for seed in (0, 1, 0):
        dataset = shard(example, seed=seed).open()
        order = [row * 2 + mirror for row, mirror in zip(dataset.rows.tolist(), dataset.mirrored.tolist(), strict=True)]
        assert orders.setdefault(seed, order) == order
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    # In source order nearly every step leads to the next latent; in a random one 1 of 144 does.
    assert all((np.diff(order) == 1).sum() < 10 for order in orders.values())


def test_formats_hold_the_same_latents_in_the_same_order(tmp_path: Path) -> None:
    datasets = [build(tmp_path / shards, format=shards, split={"val": "10"}) for shards in ("zarr", "webdataset")]
    assert len({example.manifest.id for example in datasets}) == 1
    for split in ("train", "val"):
        a, b = (example.open(split) for example in datasets)
        for name in ("latents", "labels", "rows", "mirrored"):
            np.testing.assert_array_equal(np.asarray(getattr(a, name)), np.asarray(getattr(b, name)))


def test_a_view_is_the_same_bytes_in_any_folder_and_order_of_writing(tmp_path: Path) -> None:
    a = build(tmp_path / "a", split={"val": "10"})
    b = encode(tmp_path / "b")
    _, view = planned(b, a.settings)
    for layout in view.layouts.values():
        codec(view.settings.format).prepare(b.folder, view.name, layout)
    for split, number in reversed(pending_shards(b.folder, view)):
        write_shard(b.folder, b.plan, view, split, number)
    shard(b, split={"val": "10"})
    assert files_of(a.root) == files_of(b.root)


CHANGES: list[dict[str, Any]] = [
    {"normalization": "scalar"},
    {"normalization": "given", "shift": (0.0,) * 4, "scale": (1.0,) * 4},
    {"normalization": "given", "shift": (0.0,) * 4, "scale": (2.0,) * 4},
    {"format": "webdataset"},
    {"dtype": "float32"},
    {"shard_size": 128},
    {"seed": 1},
    {"limit": 50},
    {"only_classes": ["cat"]},
    {"only_classes": ["cat", "dog"]},
    {"only_classes": ["dog", "cat"]},
    {"without_keys": ["0/ü00000.png"]},
    {"split": {"val": "10"}},
    {"split": {"val": "10%"}},
]


def test_a_views_name_changes_with_every_setting(example: Example, tmp_path: Path) -> None:
    names = [settings_of(example, **change).name(example.plan) for change in ({}, *CHANGES)]
    other = plan_of(Folder(tmp_path), Contents(images=94))
    names.append(settings_of(example).name(other))
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)


def id_of(example: Example, **changes: Any) -> str:
    view_settings = settings_of(example, **changes)
    selected, view = planned(example, view_settings)
    return view_id(example.plan, view_settings, selected, view.normalization)


def test_the_id_does_not_depend_on_format_shard_size_or_place(example: Example, tmp_path: Path) -> None:
    ids = {id_of(example, **change) for change in ({}, {"format": "webdataset"}, {"shard_size": 8192})}
    ids.add(id_of(encode(tmp_path)))
    ids.add(id_of(replace(example, plan=replace(example.plan, origins=(Origin("/mnt/elsewhere", None, "source"),)))))
    assert len(ids) == 1


def test_the_id_depends_on_all_that_a_trainer_sees(example: Example, tmp_path: Path) -> None:
    changes = [change for change in CHANGES if change.keys() != {"format"} and change.keys() != {"shard_size"}]
    ids = [id_of(example, **change) for change in ({}, *changes)]
    ids.append(id_of(encode(tmp_path / "raw", seed=1)))  # other latents
    ids.append(id_of(encode(tmp_path / "rejected", rejected=frozenset({3, 7}))))
    ids.append(id_of(encode(tmp_path / "classes", classes=("cat", "dog", "cow"))))
    assert len(set(ids)) == len(ids)


def test_statistics_are_of_the_selected_rows_of_all_splits(tmp_path: Path) -> None:
    example = build(tmp_path, only_classes=["dog"], split={"val": "5"})
    labels = np.array([example.rows[row].label for row in example.stored_rows])
    expected = ChannelMoments.of(example.means[labels == 1])
    statistics = example.open().statistics
    assert statistics.count == example.manifest.counts.selected == (labels == 1).sum()
    np.testing.assert_allclose(statistics.std, expected.std, rtol=1e-12)
    np.testing.assert_allclose(statistics.mean, expected.mean, rtol=0, atol=1e-12 * float(expected.std.max()))
    assert statistics.min.tolist() == expected.minimum.tolist() and statistics.max.tolist() == expected.maximum.tolist()
    np.testing.assert_allclose(example.manifest.normalization.scale, statistics.std, rtol=0)


def test_normalized_latents_have_mean_zero_and_std_one(tmp_path: Path) -> None:
    dataset = build(tmp_path).open()
    moments = ChannelMoments.of(np.asarray(dataset.latents))
    # float16 rounds values up to 4 by 2^-10 at most, and 576 roundings a channel average out to some 1e-5
    assert (np.abs(moments.mean) < 2e-4).all() and (np.abs(moments.std - 1) < 2e-4).all()


def test_bytes_are_only_for_pixels(example: Example) -> None:
    with pytest.raises(LvaeError, match="only pixels are stored as bytes"):
        planned(example, settings_of(example, dtype="uint8"))


def test_latents_that_do_not_fit_half_precision_are_refused(tmp_path: Path) -> None:
    example = encode(tmp_path, offsets=(1e5,) * 4)
    with pytest.raises(LvaeError, match="do not fit float16"):
        shard(example, normalization="none")
    assert not example.folder.exists("manifest.json")
    assert_complete(shard(example))


# --- going on where an earlier job stopped ---------------------------------------------------------------------------


def test_a_shard_is_not_written_again(tmp_path: Path) -> None:
    example = build(tmp_path, split={"val": "10"})
    _, view = planned(example, example.settings)
    assert pending_shards(example.folder, view) == []
    example.folder.remove(shard_receipt_name(view.name, "train", 1))
    assert pending_shards(example.folder, view) == [("train", 1)]
    before = files_of(tmp_path)
    write_shard(example.folder, example.plan, view, "train", 1)
    assert pending_shards(example.folder, view) == []
    written = shard_receipt_name(view.name, "train", 1)
    assert {name: data for name, data in files_of(tmp_path).items() if name != written} == before


@pytest.mark.parametrize("damage", ["size", "missing", "receipt", "other shard"])
def test_a_damaged_shard_is_written_again(tmp_path: Path, damage: str) -> None:
    example = build(tmp_path)
    _, view = planned(example, example.settings)
    receipt = finished_shard(example.folder, view, "train", 1)
    assert receipt is not None and receipt.count == 64
    path = example.folder.local(receipt.files[0].path)
    names = [example.folder.local(shard_receipt_name(view.name, "train", number)) for number in (0, 1)]
    if damage == "size":
        path.write_bytes(path.read_bytes() + b"x")
    elif damage == "missing":
        path.unlink()
    else:
        names[1].write_bytes(b"{}" if damage == "receipt" else names[0].read_bytes())
    assert pending_shards(example.folder, view) == [("train", 1)]


@pytest.mark.parametrize("changed", ["raw", "rows", "classes"])
def test_shards_of_other_latents_are_never_taken(tmp_path: Path, changed: str) -> None:
    """The settings, and so the view's name, are the same; what was encoded is not."""
    example = build(tmp_path)
    before = planned(example, example.settings)[1]
    if changed == "raw":
        rewrite_raw(example.folder, example.contents, example.plan, 1, example.raw[1] + 1e-3)
    else:
        contents = replace(example.contents, rejected=frozenset({3, 7, 81}))
        encode(tmp_path, contents)
    view = planned(example, example.settings)[1]
    assert view.name == before.name and view.sha256 != before.sha256
    assert len(pending_shards(example.folder, view)) == sum(layout.shards for layout in view.layouts.values())


def test_a_view_is_read_as_it_was_planned(example: Example) -> None:
    for change in ({}, {"normalization": "scalar", "split": {"val": "10%"}}, {"format": "webdataset"}):
        view = planned(example, settings_of(example, **change))[1]
        write_view(example.folder, view)
        assert read_view(example.folder, view.name) == view


def test_a_view_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    example = build(tmp_path)
    path = example.folder.local(view_file(example.manifest.view.name))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LvaeError, match=r"view\.json: not valid JSON"):
        example.open().labels  # noqa: B018 (a property that reads)
    path.unlink()
    with pytest.raises(LvaeError, match=r"view\.json: is missing\. Run 'lvae encode' again"):
        example.open().labels  # noqa: B018


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "another shape"])
def test_a_raw_part_that_cannot_be_read_is_named_while_a_shard_is_written(tmp_path: Path, damage: str) -> None:
    example = encode(tmp_path)
    _, view = planned(example, settings_of(example))
    path = next(tmp_path.glob("raw/000000/part-000001.*.npy"))
    if damage == "missing":
        path.unlink()
    elif damage == "another shape":
        np.save(path, example.raw[1][1:])
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-5])
    with pytest.raises(LvaeError, match=f"{path.name}.*Run 'lvae encode' again"):
        write_shard(example.folder, example.plan, view, "train", 0)
    assert not list((tmp_path / "shards").glob("*/shard-*")) if (tmp_path / "shards").exists() else True
    assert example.folder.exists(receipt_name(1))


def test_defaults_are_what_the_documentation_says() -> None:
    assert ViewSettings() == ViewSettings("channel", None, None, "zarr", "float16", 8192, 0)
    assert CLASSES == ("cat", "dog", "猫")


@pytest.mark.parametrize("shards", ["zarr", "webdataset"])
def test_many_shards_lie_in_folders_of_few(shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "SHARDS_PER_FOLDER", 1)
    example = build(tmp_path, format=shards)
    assert_complete(example)
    receipts = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("shards/**/shard-*.json"))
    view = example.manifest.view.name
    names = [f"train/{number:06d}/shard-train-{number:06d}.json" for number in (1, 2)]
    assert receipts == sorted(f"shards/{view}/{name}" for name in ["shard-train-000000.json", *names])
    assert problems(tmp_path) == []

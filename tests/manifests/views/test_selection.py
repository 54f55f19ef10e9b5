import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.receipts import receipts
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.views.combine import Selected, regenerate
from lvae.manifests.views.order import Order
from lvae.manifests.views.selection import key_hash, resolve_selection
from tests.manifests import dataset_examples
from tests.manifests.dataset_examples import CLASSES, Contents, Example, encode, planned, settings_of


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return encode(tmp_path_factory.mktemp("selection"))


def chosen(example: Example, **selecting: object) -> tuple[Selected, dict[str, np.ndarray]]:
    """What a selection takes, and the entries of every split."""
    selected, _ = planned(example, settings_of(example, **selecting))
    order = Order(example.folder, example.contents.orientations)
    entries = {split: order.entries(split, np.arange(count)) for split, count in selected.counts.items()}
    return selected, entries


def rows_in(entries: np.ndarray) -> list[int]:
    return sorted(set(entries["row"].tolist()))


def good_rows(example: Example) -> list[int]:
    return [row for row in range(example.contents.images) if row not in example.contents.rejected]


def assert_statistics(example: Example, selected: Selected, entries: dict[str, np.ndarray]) -> None:
    """Those of exactly the chosen latents; folded in another order, so up to a few bits of float64."""
    latents = example.means[np.concatenate([found["raw"] for found in entries.values()])]
    expected = ChannelMoments.of(latents)
    assert selected.moments.count == expected.count
    assert (np.abs(selected.moments.mean - expected.mean) <= 1e-12 * expected.std).all()
    assert (np.abs(selected.moments.std / expected.std - 1) <= 1e-12).all()
    np.testing.assert_array_equal(selected.moments.minimum, expected.minimum)
    np.testing.assert_array_equal(selected.moments.maximum, expected.maximum)


def test_everything_is_taken_in_source_order(example: Example) -> None:
    selected, entries = chosen(example)
    train = entries["train"]
    assert train["raw"].tolist() == list(range(144)) and selected.classes == CLASSES
    assert train["row"].tolist() == example.stored_rows
    assert train["label"].tolist() == [example.rows[row].label for row in example.stored_rows]
    assert train["mirrored"].tolist() == [False, True] * 72
    assert selected.largest_label == 2
    assert_statistics(example, selected, entries)


def test_classes_are_renumbered_in_the_order_given(example: Example) -> None:
    selection = resolve_selection(CLASSES, ["猫", "cat"])
    assert selection.class_map == {"猫": 0, "cat": 1}
    selected, entries = chosen(example, only_classes=["猫", "cat"])
    train = entries["train"]
    assert selected.classes == ("猫", "cat") and selected.largest_label == 1
    assert rows_in(train) == [row for row in good_rows(example) if example.rows[row].label in (0, 2)]
    assert all(
        label == {2: 0, 0: 1}[example.rows[row].label] for row, label in zip(train["row"], train["label"], strict=True)
    )
    assert_statistics(example, selected, entries)


def test_keys_are_left_out_by_name(example: Example) -> None:
    left_out = [example.rows[row].key for row in (0, 20, 21, 94)]
    selection = resolve_selection(CLASSES, without_keys=[*left_out, "not there"])
    assert selection.without_keys is not None and key_hash(left_out[0]) in selection.without_keys
    selected, entries = chosen(example, without_keys=[*left_out, "not there"])
    assert rows_in(entries["train"]) == [row for row in good_rows(example) if row not in (0, 20, 21, 94)]
    assert_statistics(example, selected, entries)


def test_leaving_out_nothing_is_no_selection(example: Example) -> None:
    assert resolve_selection(CLASSES, without_keys=[]).everything


def test_the_order_of_the_keys_left_out_does_not_matter() -> None:
    assert resolve_selection(None, without_keys=["a", "b", "a"]) == resolve_selection(None, without_keys=["b", "a"])


@pytest.mark.parametrize("limit", [1, 2, 10, 71, 72, 1000])
def test_a_limit_takes_so_many_images_with_their_mirrors(example: Example, limit: int) -> None:
    selected, entries = chosen(example, limit=limit)
    assert len(rows_in(entries["train"])) == min(limit, 72) and selected.counts == {"train": 2 * min(limit, 72)}
    assert_statistics(example, selected, entries)


def test_a_larger_limit_only_adds_images(example: Example) -> None:
    taken = [set(rows_in(chosen(example, limit=limit)[1]["train"])) for limit in range(1, 73, 7)]
    assert all(small < large for small, large in itertools.pairwise(taken))


def test_a_limit_takes_a_fair_sample_of_parts_and_classes(tmp_path: Path) -> None:
    example = encode(tmp_path, Contents(images=2000, part_size=500, rejected=frozenset(), mirrored=False))
    rows = np.array(rows_in(chosen(example, limit=400)[1]["train"]))
    # A fifth of each: 100 of 500 a part, standard deviation 9; 133 of 667 a class, standard deviation 10
    assert (np.abs(np.bincount(rows // 500, minlength=4) - 100) < 45).all()
    assert (np.abs(np.bincount(rows % 3, minlength=3) - 133) < 50).all()


def test_a_split_by_number_is_exact(example: Example) -> None:
    selected, entries = chosen(example, split={"val": "10", "test": "5"})
    assert selected.counts == {"val": 20, "test": 10, "train": 114}
    sides = [set(rows_in(found)) for found in entries.values()]
    assert sorted(row for side in sides for row in side) == good_rows(example)
    assert_statistics(example, selected, entries)


@pytest.mark.parametrize("shares", [("10", "5"), ("20%", "10%")])
def test_a_split_does_not_depend_on_the_order_in_which_it_is_named(example: Example, shares: tuple[str, str]) -> None:
    """A manifest keeps names sorted, and what it says must give the same split again."""
    _, entries = chosen(example, split={"val": shares[0], "test": shares[1]})
    _, again = chosen(example, split={"test": shares[1], "val": shares[0]})
    assert {split: rows_in(found) for split, found in entries.items()} == {
        split: rows_in(found) for split, found in again.items()
    }


@pytest.mark.parametrize("split", [{"val": "10"}, {"val": "20%"}, {"val": "15%", "test": "30%"}])
def test_an_image_and_its_mirror_stand_on_one_side(example: Example, split: dict[str, str]) -> None:
    _, entries = chosen(example, split=split)
    for found in entries.values():
        rows, counts = np.unique(found["row"], return_counts=True)
        assert (counts == 2).all() and len(rows)
        for row in rows:
            assert found["mirrored"][found["row"] == row].tolist() == [False, True]


def test_rows_of_one_key_stand_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [ImageRow(f"same-{number // 4}.png", "", 0, 1, "", 0) for number in range(95)]
    monkeypatch.setattr(dataset_examples, "rows_of", lambda contents: rows)  # the builder's, not the product's
    example = encode(tmp_path)
    _, entries = chosen(example, split={"val": "30%"})
    val, train = ({row // 4 for row in rows_in(entries[split])} for split in ("val", "train"))
    assert val and train and not val & train


def test_a_share_is_about_that_share(tmp_path: Path) -> None:
    example = encode(tmp_path, Contents(images=2000, part_size=500, rejected=frozenset(), mirrored=False))
    counts = chosen(example, split={"val": "10%", "test": "25%"})[0].counts
    # 200 and 500 of 2,000 on average, standard deviations 13 and 19
    assert abs(counts["val"] - 200) < 65 and abs(counts["test"] - 500) < 95 and sum(counts.values()) == 2000


def test_a_split_by_share_does_not_move_when_rows_are_added(tmp_path: Path) -> None:
    def sides(images: int) -> dict[int, str]:
        example = encode(tmp_path / str(images), Contents(images=images, mirrored=False))
        entries = chosen(example, split={"val": "25%"})[1]
        return {row: split for split, found in entries.items() for row in rows_in(found)}

    before, after = sides(70), sides(95)
    assert len(after) > len(before) and all(after[row] == side for row, side in before.items())


def test_a_split_by_share_is_of_keys_whatever_else_is_selected(example: Example) -> None:
    everything = set(rows_in(chosen(example, split={"val": "25%"})[1]["val"]))
    some = set(rows_in(chosen(example, split={"val": "25%"}, only_classes=["dog"], limit=20)[1]["val"]))
    assert some and some < everything


def test_limit_classes_and_keys_work_together(example: Example) -> None:
    without = [example.rows[row].key for row in range(0, 30)]
    selected, entries = chosen(example, only_classes=["dog", "cat"], without_keys=without, limit=9, split={"val": "3"})
    rows = rows_in(np.concatenate(list(entries.values())))
    assert len(rows) == 9 and selected.counts == {"val": 6, "train": 12}
    assert all(row >= 30 and example.rows[row].label in (0, 1) for row in rows)
    assert_statistics(example, selected, entries)


@pytest.mark.parametrize("contents", [Contents(store="moments"), Contents(pixels=True)], ids=["moments", "pixels"])
def test_statistics_of_a_selection_are_those_of_what_was_stored(tmp_path: Path, contents: Contents) -> None:
    example = encode(tmp_path, contents)
    selected, entries = chosen(example, limit=30)
    raw = np.concatenate(example.raw)[entries["train"]["raw"]]
    expected = ChannelMoments.of(raw) if contents.pixels else ChannelMoments.of_posterior(raw[:, :4], raw[:, 4:])
    np.testing.assert_allclose(selected.moments.std, expected.std, rtol=1e-12)
    np.testing.assert_allclose(selected.moments.mean, expected.mean, rtol=0, atol=1e-12 * float(expected.std.max()))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    classes=st.none() | st.permutations(CLASSES).flatmap(lambda names: st.integers(1, 3).map(lambda n: names[:n])),
    without=st.none() | st.sets(st.integers(0, 94), max_size=40),
    limit=st.none() | st.integers(1, 80),
    split=st.none() | st.sampled_from([{"val": "3"}, {"val": "20%"}, {"a": "2", "b": "1"}]),
)
def test_any_selection_takes_what_it_says(
    example: Example,
    classes: list[str] | None,
    without: set[int] | None,
    limit: int | None,
    split: dict[str, str] | None,
) -> None:
    expected = [
        row
        for row in good_rows(example)
        if row not in (without or ()) and (classes is None or example.rows[row].label in map(CLASSES.index, classes))
    ]
    keys = None if without is None else [example.rows[row].key for row in without]
    try:
        selected, entries = chosen(example, only_classes=classes, without_keys=keys, limit=limit, split=split)
    except LvaeError:
        assert split is not None or not expected  # a split may be empty, or leave nothing to train on
        return
    rows = [row for found in entries.values() for row in rows_in(found)]
    assert len(rows) == len(set(rows)) == min(len(expected), limit or len(expected)) and set(rows) <= set(expected)
    assert_statistics(example, selected, entries)
    total, by_label = regenerate(
        example.folder,
        example.plan,
        resolve_selection(CLASSES, classes, keys, limit, split),
        lambda: receipts(example.folder, example.plan),
    )
    np.testing.assert_allclose(total.std, selected.moments.std, rtol=1e-12)
    assert sum(moments.count for moments in by_label.values()) == total.count == selected.moments.count


# --- what cannot be selected -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selecting",
    [
        {"only_classes": ["猫"], "without_keys": [f"{row % 3}/ü{row:05d}.png" for row in range(95)]},
        {"split": {"val": "72"}},
        {"split": {"val": "40", "test": "40"}},
        {"limit": 3, "split": {"val": "3"}},
        {"split": {"val": "0.0001%"}},
        {"split": {"val": "99.9999%"}},
    ],
    ids=str,
)
def test_a_selection_that_leaves_nothing_is_refused(example: Example, selecting: dict[str, object]) -> None:
    with pytest.raises(LvaeError, match=r"nothing|is empty"):
        chosen(example, **selecting)


def test_a_dataset_without_one_usable_image_is_refused(tmp_path: Path) -> None:
    example = encode(tmp_path, Contents(images=25, rejected=frozenset(range(25))))
    with pytest.raises(LvaeError, match="no image of the dataset could be used"):
        chosen(example)


@pytest.mark.parametrize(
    ("selecting", "message"),
    [
        ({"only_classes": ["wolf"]}, r"--only-classes: there is no class 'wolf'\. The dataset's classes: cat, dog, 猫"),
        ({"only_classes": ["cat", "cat"]}, "named twice"),
        ({"limit": 0}, "--limit: must be at least 1"),
        ({"split": {"val": "5", "test": "5%"}}, "not both"),
        ({"split": {"train": "5"}}, "--split train=5: train is what other splits leave"),
        ({"split": {"val": "0"}}, "cannot be read"),
        ({"split": {"val": "-3"}}, "cannot be read"),
        ({"split": {"val": "100%"}}, "leaves nothing to train on"),
        ({"split": {"val": "nan%"}}, "cannot be read"),
        ({"split": {"val": "2.5"}}, "cannot be read"),
        ({"split": {"../val": "5"}}, "cannot be read"),
        ({"split": {"val": "many"}}, "cannot be read"),
    ],
    ids=str,
)
def test_what_cannot_be_selected_is_refused_in_one_line(selecting: dict[str, object], message: str) -> None:
    with pytest.raises(LvaeError, match=message):
        resolve_selection(CLASSES, **selecting)  # type: ignore[arg-type]


def test_shares_that_add_up_to_everything_are_refused(example: Example) -> None:
    with pytest.raises(LvaeError, match="leave nothing to train on"):
        chosen(example, split={"a": "50%", "b": "50%"})


def test_classes_of_an_unlabelled_dataset_are_refused() -> None:
    with pytest.raises(LvaeError, match="The dataset's classes: none"):
        resolve_selection(None, ["cat"])


def test_a_selection_reads_only_the_parts_that_it_takes_in_part(tmp_path: Path) -> None:
    """A part taken whole gives its receipt's moments: no raw file is opened."""
    example = encode(tmp_path)
    for path in tmp_path.glob("raw/*/*.npy"):
        path.write_bytes(bytes(path.stat().st_size))
    selected, _ = planned(example, settings_of(example))
    assert selected.moments.std.all()


def test_a_class_is_found_in_either_unicode_form() -> None:
    classes = ("cafe\u0301", "caf\u00e9s", "u\u0308ber")
    chosen = resolve_selection(classes, only_classes=["\u00fcber", "caf\u00e9"])
    assert chosen.only_classes == ("u\u0308ber", "cafe\u0301")

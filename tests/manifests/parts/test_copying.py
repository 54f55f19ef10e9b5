import errno
import os
from pathlib import Path

import pytest

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.copying import repeated_keys, take, take_listing, take_parts, united
from lvae.manifests.parts.plan import erasing
from lvae.manifests.parts.receipts import receipts
from lvae.manifests.storage.folder import Folder
from tests.manifests.dataset_examples import build, encode, files_of


def test_a_file_is_linked_where_that_can_be_and_copied_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = Folder(tmp_path / "a"), Folder(tmp_path / "b")
    source.write("raw/x", b"content")
    take(source, "raw/x", target, "raw/y")
    assert source.local("raw/x").samefile(target.local("raw/y"))
    take(source, "raw/x", target, "raw/y")

    def no_links(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", no_links)
    take(source, "raw/x", target, "raw/z")
    assert target.read("raw/z") == b"content" and not source.local("raw/x").samefile(target.local("raw/z"))
    assert set(files_of(tmp_path / "b")) == {"raw/y", "raw/z"}


def test_parts_are_renumbered_and_their_latents_stay(tmp_path: Path) -> None:
    a, b = encode(tmp_path / "a"), encode(tmp_path / "b", seed=1, images=50, rejected=frozenset({2, 30}))
    b_plan = erasing(b.plan, [], "")
    plan = united([a.folder, b.folder], [a.plan, b_plan])
    target = Folder(tmp_path / "both")
    take_listing(a.folder, a.plan, target)
    take_listing(b.folder, b.plan, target, len(a.plan.listing.files))
    take_parts(a.folder, a.plan, target, plan)
    take_parts(b.folder, b.plan, target, plan, a.plan.listing.parts)
    found = list(receipts(target, plan))
    assert [receipt.first_row for receipt in found] == [0, 20, 40, 60, 80, 95, 115, 135]
    assert [rejection.row for receipt in found[5:] for rejection in receipt.rejected] == [97, 125]
    assert [receipt.raw.sha256 for receipt in found] == [
        receipt.raw.sha256 for one in (a, b) for receipt in receipts(one.folder, one.plan)
    ]


def test_keys_that_occur_twice_are_found_among_images_that_have_latents(tmp_path: Path) -> None:
    a, b = encode(tmp_path / "a"), encode(tmp_path / "b", images=50, rejected=frozenset({2, 30}))
    found = repeated_keys([a.folder, b.folder], [a.plan, b.plan])
    theirs = set(range(50)) - {2, 30} - a.contents.rejected  # the keys of both are numbered alike
    assert found == {95 + row: b.rows[row].key for row in sorted(theirs)}
    assert repeated_keys([a.folder], [a.plan]) == {}


def test_labels_without_names_do_not_join_labels_with_names(tmp_path: Path) -> None:
    from dataclasses import replace

    named, plain = encode(tmp_path / "a"), encode(tmp_path / "b")
    segment = replace(plain.plan.listing.segments[0], classes=None)
    listing = replace(plain.plan.listing, segments=(segment,))
    with pytest.raises(LvaeError, match="numbers without names"):
        united([named.folder, plain.folder], [named.plan, replace(plain.plan, listing=listing)])


def test_what_was_erased_stays_erased_in_the_merged_dataset(tmp_path: Path) -> None:
    a, b = build(tmp_path / "a"), build(tmp_path / "b")
    plan = united([a.folder, b.folder], [erasing(a.plan, [1], "x"), erasing(b.plan, [0, 94], "y")])
    assert [(one.first, one.stop) for one in plan.erased] == [(1, 2), (95, 96), (189, 190)]

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Origin, Plan
from lvae.manifests.parts.receipts import (
    dump_receipt,
    finished,
    moments_of_raw,
    orphans,
    raw_bytes,
    raw_name,
    read_raw,
    read_receipt,
    receipt_name,
    receipts,
)
from lvae.manifests.parts.rows import Listing
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.storage.folder import Folder
from tests.manifests.dataset_examples import (
    Contents,
    Example,
    encode,
    encoding_of,
    files_of,
    raw_of,
    receipts_record,
    rewrite_raw,
    write_raw,
)


def unfinished_parts(folder: Folder, plan: Plan) -> list[int]:
    return [part for part in range(plan.listing.parts) if finished(folder, plan, part) is None]


@pytest.fixture
def example(tmp_path: Path) -> Example:
    return encode(tmp_path)


def test_writing_a_part_twice_gives_the_same_bytes(example: Example) -> None:
    before = files_of(example.root)
    for part, raw in enumerate(example.raw):
        write_raw(example.folder, example.contents, example.plan, part, raw)
    assert files_of(example.root) == before


def test_a_receipt_says_what_became_of_its_part(example: Example) -> None:
    found = list(receipts(example.folder, example.plan))
    assert [receipt.first_row for receipt in found] == [0, 20, 40, 60, 80]
    assert [receipt.rows for receipt in found] == [20, 20, 20, 20, 15]
    assert [len(receipt.rejected) for receipt in found] == [2, 0, 20, 0, 1]
    assert [receipt.latents for receipt in found] == [36, 40, 0, 40, 28]
    assert [rejection.row for receipt in found for rejection in receipt.rejected] == sorted(example.contents.rejected)
    assert all(receipt.raw == example.folder.record(receipt.raw.path) for receipt in found)


@pytest.mark.parametrize("contents", [Contents(), Contents(store="moments"), Contents(pixels=True)], ids=str)
def test_raw_latents_are_read_as_they_were_written(tmp_path: Path, contents: Contents) -> None:
    example = encode(tmp_path, contents)
    for receipt, raw in zip(receipts(example.folder, example.plan), example.raw, strict=True):
        found = read_raw(example.folder, receipt, example.plan.encoded())
        assert found.dtype == raw.dtype
        np.testing.assert_array_equal(found, raw)
        np.testing.assert_array_equal(np.load(example.folder.local(receipt.raw.path)), raw)  # stock numpy


def test_a_receipts_moments_are_those_of_its_latents(example: Example) -> None:
    for receipt, raw in zip(receipts(example.folder, example.plan), example.raw, strict=True):
        if not len(raw):
            assert receipt.moments is None
            continue
        assert receipt.moments == ChannelMoments.of(raw).to_record()


def test_moments_of_kept_posteriors_are_those_of_draws() -> None:
    raw = np.random.default_rng(0).standard_normal((5, 8, 2, 2)).astype(np.float32)
    found = moments_of_raw(encoding_of(Contents(store="moments")), raw)
    assert found.to_record() == ChannelMoments.of_posterior(raw[:, :4], raw[:, 4:]).to_record()


# --- attempts --------------------------------------------------------------------------------------------------------

ATTEMPTS = """
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, {here!r})
from tests.manifests.dataset_examples import *
folder, contents = Folder(sys.argv[1]), Contents(seed=int(sys.argv[2]))
from lvae.manifests.parts.plan import read_plan
plan = read_plan(folder)
print("ready", flush=True)
sys.stdin.readline()
for attempt in range(40):
    write_raw(folder, contents, plan, 1, raw_of(contents, plan, 1))
"""


def test_two_unlike_attempts_at_once_leave_one_consistent_part(example: Example) -> None:
    example.folder.remove(receipt_name(1))
    script = ATTEMPTS.format(here=str(Path(__file__).parents[3]))
    commands = [[sys.executable, "-c", script, str(example.root), seed] for seed in ("1", "2")]
    processes = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in commands]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    receipt = finished(example.folder, example.plan, 1)
    assert receipt is not None
    assert example.folder.record(receipt.raw.path) == receipt.raw
    raw = read_raw(example.folder, receipt, example.plan.encoded())
    assert receipt.moments == ChannelMoments.of(raw).to_record()
    assert any(np.array_equal(raw, raw_of(Contents(seed=seed), example.plan, 1)) for seed in (1, 2))
    assert len(list(orphans(example.folder))) == 2  # the other attempt's, and the first one's


def test_an_attempt_that_comes_later_leaves_an_orphan_and_takes_the_first_receipt(example: Example) -> None:
    assert list(orphans(example.folder)) == []
    first = read_receipt(example.folder, 1)
    assert write_raw(example.folder, example.contents, example.plan, 1, example.raw[1] + 1) == first
    assert read_receipt(example.folder, 1) == first
    [late] = orphans(example.folder)
    assert late.startswith("raw/000000/part-000001.") and first is not None and late != first.raw.path
    example.folder.remove(receipt_name(3))
    (example.root / "raw/000000/part-000099.01234567.npy").write_bytes(b"")
    (example.root / "raw/000000/part-strange.npy").write_bytes(b"")
    assert [name[11:22] for name in orphans(example.folder)] == [
        "part-000001",
        "part-000003",
        "part-000099",
        "part-strang",
    ]


# --- finished --------------------------------------------------------------------------------------------------------


def test_all_parts_are_finished(example: Example) -> None:
    assert unfinished_parts(example.folder, example.plan) == []


def test_a_part_without_receipt_is_not_finished(example: Example) -> None:
    example.folder.remove(receipt_name(1))
    assert unfinished_parts(example.folder, example.plan) == [1]
    with pytest.raises(LvaeError, match=r"part 1 is not finished or damaged\. Run 'lvae encode' again"):
        list(receipts(example.folder, example.plan))


def test_a_part_whose_raw_file_is_gone_or_of_another_size_is_not_finished(example: Example) -> None:
    paths = [example.folder.local(receipt.raw.path) for receipt in receipts(example.folder, example.plan)]
    paths[0].unlink()
    paths[3].write_bytes(paths[3].read_bytes()[:-1])
    paths[4].write_bytes(paths[4].read_bytes() + b"x")
    assert unfinished_parts(example.folder, example.plan) == [0, 3, 4]


def test_a_damaged_receipt_is_no_receipt(example: Example) -> None:
    path = example.folder.local(receipt_name(1))
    for data in (b"", path.read_bytes()[:-10], b"[]", path.read_bytes().replace(b'"latents"', b'"Latents"')):
        path.write_bytes(data)
        assert finished(example.folder, example.plan, 1) is None
        with pytest.raises(LvaeError, match="part-000001"):
            read_receipt(example.folder, 1)


@pytest.mark.parametrize(
    "changes", [{"maximum": (1.0,)}, {"mean": ()}, {"count": -1}, {"count": 1 << 80}], ids=lambda changes: str(changes)
)
def test_a_receipt_whose_moments_are_of_other_latents_is_no_receipt(example: Example, changes: dict[str, Any]) -> None:
    receipt = read_receipt(example.folder, 1)
    assert receipt is not None and receipt.moments is not None
    moments = replace(receipt.moments, **changes)
    example.folder.local(receipt_name(1)).write_bytes(dump_receipt(replace(receipt, moments=moments)))
    assert unfinished_parts(example.folder, example.plan) == [1]


def test_parts_of_another_plan_are_not_finished(example: Example) -> None:
    encoding = example.plan.encoded()
    for other in (
        replace(example.plan, encoding=replace(encoding, seed=1)),
        replace(example.plan, listing=Listing((replace(example.plan.listing.segments[0], sha256="0" * 64),))),
    ):
        assert unfinished_parts(example.folder, other) == [0, 1, 2, 3, 4]
    assert unfinished_parts(example.folder, replace(example.plan, origins=(Origin("elsewhere", None, "source"),))) == []


def test_the_receipt_of_another_part_is_refused(example: Example) -> None:
    shutil.copy(example.folder.local(receipt_name(1)), example.folder.local(receipt_name(3)))
    with pytest.raises(LvaeError, match=r"part-000003\.json: is the receipt of another part"):
        read_receipt(example.folder, 3)
    assert unfinished_parts(example.folder, example.plan) == [3]


def test_a_raw_file_that_is_not_the_receipts_array_is_refused(example: Example) -> None:
    receipt = read_receipt(example.folder, 1)
    assert receipt is not None
    path = example.folder.local(receipt.raw.path)
    data = path.read_bytes()
    for other in (example.raw[1][1:], example.raw[1].astype("f8"), np.array([{}], object)):
        np.save(path, other, allow_pickle=True)
        with pytest.raises(LvaeError, match=path.name):
            read_raw(example.folder, receipt, example.plan.encoded())
    for damaged in (b"", data[:20], data[:-1], b"\x00" + data[1:], b"PK\x03\x04" + data[4:]):
        path.write_bytes(damaged)
        with pytest.raises(LvaeError, match=path.name):
            read_raw(example.folder, receipt, example.plan.encoded())


# --- receipts as one -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contents", [Contents(), Contents(store="moments"), Contents(pixels=True)], ids=str)
def test_raw_files_have_the_size_that_is_expected_of_them(tmp_path: Path, contents: Contents) -> None:
    example = encode(tmp_path, contents)
    for receipt in receipts(example.folder, example.plan):
        assert receipt.raw.bytes == raw_bytes(example.plan.encoded(), receipt.latents)


def test_receipts_are_recorded_as_one(tmp_path: Path) -> None:
    a, b = (encode(tmp_path / name) for name in "ab")
    record = receipts_record(a.folder, 5)
    assert record == receipts_record(b.folder, 5)
    assert record.bytes == sum(
        len(data) for name, data in files_of(a.root).items() if name.startswith("raw/") and name.endswith("json")
    )
    rewrite_raw(b.folder, b.contents, b.plan, 4, b.raw[4] + 1)
    assert record.sha256 != receipts_record(b.folder, 5).sha256


def test_rows_of_parts_cover_the_listing(example: Example) -> None:
    places = [example.plan.listing.place(part) for part in range(5)]
    assert [(place.first_row, place.rows) for place in places] == [(0, 20), (20, 20), (40, 20), (60, 20), (80, 15)]


def test_no_folder_holds_more_than_1024_parts() -> None:
    assert raw_name(7, "0123456789abcdef") == "raw/000000/part-000007.01234567.npy"
    assert [receipt_name(part) for part in (1023, 1024, 4_000_000)] == [
        "raw/000000/part-001023.json",
        "raw/000001/part-001024.json",
        "raw/003906/part-4000000.json",
    ]


def test_a_receipt_of_many_classes_is_no_larger(tmp_path: Path) -> None:
    few = encode(tmp_path / "few")
    many = encode(tmp_path / "many", classes=tuple(f"class {number}" for number in range(400)))
    assert len(few.folder.read(receipt_name(0))) == len(many.folder.read(receipt_name(0))) < 4096

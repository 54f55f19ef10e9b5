"""Arrays of pictures: what numpy writes is read, what is something else is said, and nothing is unpickled."""

import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.encode.images import ImageRejected, open_image
from lvae.encode.sources.open import open_reader, open_source
from tests.encode.source_examples import contents, listed, refused, survives

PICTURES = np.random.default_rng(0).integers(0, 256, (11, 5, 7, 3), np.uint8)


def opened(location: Path) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(open_image(data)) for data in contents(location).values()]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_of_pictures_and_labels(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "a.npz", PICTURES, np.arange(11) % 4)
    source, rows = listed(tmp_path / "a.npz")
    assert (source.kind, source.classes, source.counts) == ("npz", ("0", "1", "2", "3"), {})
    assert [(row.key, row.label) for row in rows[:5]] == [(f"{n:06}", n % 4) for n in range(5)]
    assert np.array_equal(opened(tmp_path / "a.npz"), PICTURES)
    assert bool(source.warnings) == (save is np.savez_compressed)


@pytest.mark.parametrize("grey", [PICTURES[..., :1], PICTURES[..., 0]])
def test_grey_pictures_may_leave_the_channel_out(tmp_path: Path, grey: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "a.npy", grey)
    source, rows = listed(tmp_path / "a.npy")
    assert (source.kind, source.classes, len(rows)) == ("npy", None, 11)
    assert np.array_equal(opened(tmp_path / "a.npy"), np.repeat(PICTURES[..., :1], 3, 3))


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u1", "<i2"])
def test_labels_of_any_whole_number(tmp_path: Path, dtype: str) -> None:
    np.savez(tmp_path / "a.npz", images=PICTURES, labels=np.arange(11).astype(dtype), other=np.zeros(3))
    assert [row.label for row in listed(tmp_path / "a.npz")[1]] == list(range(11))


def test_label_minus_one_is_unlabelled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", PICTURES, np.array([-1] + 10 * [2]))
    source, rows = listed(tmp_path / "a.npz")
    assert (rows[0].label, source.counts) == (-1, {"unlabelled": 1})
    assert [str(warning) for warning in source.warnings] == ["1 image has label -1 in a.npz: unlabelled"]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (PICTURES.transpose(0, 3, 1, 2), "channels first. Save images.transpose(0, 2, 3, 1)"),
        (PICTURES.astype(np.float32), "Pictures are uint8"),
        (np.zeros((2, 5, 7, 4), np.uint8), "of shape 2x5x7x4"),
        (np.zeros((4, 4), np.uint8), "of shape 4x4"),
        (np.asfortranarray(PICTURES), "Fortran's order"),
        (np.zeros((0, 5, 7, 3), np.uint8), "no images found"),
        (np.zeros((5, 0, 7, 3), np.uint8), "1 to"),
        (np.array([object()], dtype=object), "nothing is unpickled"),
        (np.zeros(3, [("a", "u1")]), "nothing is unpickled"),
    ],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_other_arrays_are_refused_in_one_line(
    tmp_path: Path, array: np.ndarray[Any, Any], said: str, name: str
) -> None:
    if array.dtype == object:
        array = np.array([Unpickled()], dtype=object)
    np.save(tmp_path / name, array) if name == "a.npy" else np.savez(tmp_path / name, array)
    assert said in refused(tmp_path / name)


class Unpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return (_trap, ())


def _trap() -> None:
    raise AssertionError("something was unpickled")


@pytest.mark.parametrize("labels", [np.arange(10), np.zeros((11, 3), int), np.arange(11) + 0.5, np.full(11, -2)])
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: np.ndarray[Any, Any]) -> None:
    np.savez(tmp_path / "a.npz", PICTURES, labels)
    assert "label" in refused(tmp_path / "a.npz")
    source = open_source(str(tmp_path / "a.npz"))
    source.reads_labels = False  # since they come from elsewhere
    assert {row.label for row in source.rows()} == {-1}


@pytest.mark.parametrize(
    "labels", [np.arange(11.0), np.arange(11).astype("U2"), np.arange(11).astype("S2"), np.arange(11.0).astype(str)]
)
def test_labels_may_be_whole_floats_or_text(tmp_path: Path, labels: np.ndarray[Any, Any]) -> None:
    np.savez(tmp_path / "a.npz", PICTURES, labels)
    assert [row.label for row in listed(tmp_path / "a.npz")[1]] == list(range(11))


def test_labels_may_be_names_booleans_or_missing(tmp_path: Path) -> None:
    for labels, classes, first in (
        (np.array(["dog", "cat"] + 9 * ["cat"]), ("cat", "dog"), [1, 0]),
        (np.array([True, False] + 9 * [False]), ("0", "1"), [1, 0]),
        (np.array([np.nan, 1.0] + 9 * [0.0]), ("0", "1"), [-1, 1]),
    ):
        np.savez(tmp_path / "a.npz", PICTURES, labels)
        source, rows = listed(tmp_path / "a.npz")
        assert (source.classes, [row.label for row in rows[:2]]) == (classes, first)


def test_labels_under_another_name_are_not_lost_without_a_word(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PICTURES, y=np.arange(len(PICTURES)))
    source = open_source(str(tmp_path / "a.npz"))
    assert {row.label for row in source.rows()} == {-1}
    assert "but y, which may hold labels" in str(source.warnings)


def test_an_npz_without_pictures_says_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.zeros(3))
    assert "has no arr_0 or images, but 'mu', 'sigma'" in refused(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("line\nbreak.npy", b"")
    refused(tmp_path / "b.npz")


def header(text: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 9, 9, 3)}", "its header promises"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 99999999, 99999999, 3)}", "Pictures have 1 to"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 9, 9, 3)}", "damaged"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (True, 9, 9, 3)}", "damaged"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': 9}", "damaged"),
        ("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (9,)}", "nothing is unpickled"),
        ("__import__('os').abort()", "damaged"),
        ("{" * 4000, "damaged"),
        ("[1]", "damaged"),
        ("x" * 5000, "too long"),
        ("", "damaged"),
    ],
)
def test_forged_headers_are_one_line_and_take_no_memory(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.npy").write_bytes(header(text, bytes(300)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", header(text, bytes(300)))
    tracemalloc.start()
    for name in ("a.npy", "a.npz"):
        assert said in refused(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_version_of_numpy_for_other_things_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "b.npy").write_bytes(header("{}", bytes(9), version=b"\3\0"))
    assert "version 3" in refused(tmp_path / "b.npy")


def test_a_compressed_member_that_is_damaged_is_an_image_rejected(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", np.random.default_rng(1).integers(0, 256, (99, 32, 32, 3), np.uint8))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data)
    source, rows = listed(tmp_path / "a.npz")
    reader = open_reader(source.kind, source.location)
    assert reader.read(rows[0])
    with pytest.raises(ImageRejected, match=r"damaged in its \.npz"):
        reader.read(rows[-1])
    reader.close()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_order_and_many_threads(tmp_path: Path, save: Callable[..., None]) -> None:
    many = np.random.default_rng(1).integers(0, 256, (200, 8, 8, 3), np.uint8)
    save(tmp_path / "a.npz", many)
    source, rows = listed(tmp_path / "a.npz")
    reader = pickle.loads(pickle.dumps(open_reader(source.kind, source.location)))  # noqa: S301  our own
    order = np.random.default_rng(2).permutation(200)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda index: reader.read(rows[index]), order))
    assert all(data.endswith(many[index].tobytes()) for data, index in zip(found, order, strict=True))
    reader.close()


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_with_any_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, save: Callable[..., None], changes: list[tuple[int, int]]
) -> None:
    buffer = io.BytesIO()
    save(buffer, PICTURES[:2], np.arange(2))
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(data)
    survives(path)

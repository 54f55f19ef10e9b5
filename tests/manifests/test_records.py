import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.manifests import records
from lvae.manifests.errors import LvaeError


@dataclass(frozen=True)
class Inner:
    name: str
    size: int


@dataclass(frozen=True)
class Outer:
    version: Literal[1]
    kind: Literal["a", "b"]
    count: int
    mean: float
    flag: bool
    maybe: str | None
    pair: tuple[float, float]
    many: tuple[Inner, ...]
    named: dict[str, Inner]
    anything: Any


GOOD: dict[str, Any] = {
    "version": 1,
    "kind": "a",
    "count": 3,
    "mean": 0.5,
    "flag": True,
    "maybe": None,
    "pair": [1.0, 2.0],
    "many": [{"name": "x", "size": 1}],
    "named": {"y": {"name": "ü", "size": 2}},
    "anything": {"free": [1, None, "text"]},
}

texts = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(Inner, texts, st.integers())
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=8,
)
outers = st.builds(
    Outer,
    version=st.just(1),
    kind=st.sampled_from(["a", "b"]),
    count=st.integers(),
    mean=floats,
    flag=st.booleans(),
    maybe=st.none() | texts,
    pair=st.tuples(floats, floats),
    many=st.lists(inners, max_size=3).map(tuple),
    named=st.dictionaries(texts, inners, max_size=3),
    anything=plain_json,
)


@given(outers)
def test_what_is_written_is_read(value: Outer) -> None:
    assert records.parse(Outer, records.dumps(value), "file") == value
    assert records.parse(Outer, records.line(value), "file") == value


@given(outers)
def test_equal_records_have_equal_bytes(value: Outer) -> None:
    data = records.dumps(value)
    again = records.parse(Outer, data, "file")
    assert records.dumps(again) == data and records.sha256_of(again) == records.sha256_of(value)


@given(outers, texts)
def test_the_hash_beside_a_field_is_that_of_the_record_without_it(value: Outer, text: str) -> None:
    data = records.dumps({**records.plain(value), "self": text})
    assert records.sha256_beside(data, "self") == records.sha256_of(value)


def test_bytes_do_not_depend_on_the_order_of_names() -> None:
    assert records.dumps({"b": 1, "a": 2}) == records.dumps({"a": 2, "b": 1}) == b'{\n "a": 2,\n "b": 1\n}\n'


def test_unicode_is_written_as_it_is() -> None:
    assert records.line({"key": "猫"}) == '{"key": "猫"}\n'.encode()


def test_a_line_is_one_line() -> None:
    assert records.line({"reason": "two\nlines\r\u2028"}).count(b"\n") == 1


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_field_is_named(name: str) -> None:
    content = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(LvaeError, match=f"^file: field '{name}' is missing"):
        records.parse(Outer, records.dumps(content), "file")


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(LvaeError, match=r"^file: unknown field 'new'"):
        records.parse(Outer, records.dumps(GOOD | {"new": 1}), "file")


def test_an_unknown_field_is_named_where_it_stands() -> None:
    with pytest.raises(LvaeError, match=r"^file\.many\[1\]: unknown field 'more'"):
        records.parse(Outer, records.dumps(GOOD | {"many": [GOOD["many"][0], {"more": 1}]}), "file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 2),
        ("version", True),
        ("version", 1.0),
        ("version", [1]),
        ("kind", "c"),
        ("kind", None),
        ("count", True),
        ("count", 3.0),
        ("count", "3"),
        ("count", None),
        ("mean", "0.5"),
        ("mean", False),
        ("mean", None),
        ("flag", 1),
        ("flag", None),
        ("maybe", 0),
        ("pair", [1.0]),
        ("pair", [1.0, 2.0, 3.0]),
        ("pair", {"0": 1.0, "1": 2.0}),
        ("pair", "ab"),
        ("many", {}),
        ("many", None),
        ("many", [None]),
        ("many", [{"name": 1, "size": 1}]),
        ("named", []),
        ("named", {"y": 1}),
    ],
)
def test_a_field_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(LvaeError, match=rf"^file\.{name}"):
        records.parse(Outer, json.dumps(GOOD | {name: value}).encode(), "file")


def test_a_whole_number_stands_for_a_float() -> None:
    mean = records.parse(Outer, records.dumps(GOOD | {"mean": 2}), "file").mean
    assert mean == 2.0 and type(mean) is float


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{} {}",
        '{"a": 1,}',
        "NaN",
        '{"a": NaN}',
        "[Infinity]",
        "[-Infinity]",
        '{"a": 1, "a": 1}',
        '[{"b": {"a": 1, "a": 2}}]',
        "[" * 100_000,
        "1" * 10_000,
    ],
    ids=lambda text: text[:12],
)
def test_what_is_not_strict_json_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(LvaeError, match=r"^file: not valid JSON \(.*\)\.$"):
        records.loads(text.encode(), "file")


@pytest.mark.parametrize("data", [b"\xff\xfe{\x00}\x00", b'"\xff"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}"])
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(LvaeError, match="not valid JSON"):
        records.loads(data, "file")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + 400 * "0"], ids=lambda number: number[:6])
def test_a_number_too_large_for_a_float_is_refused(number: str) -> None:
    text = records.dumps(GOOD).decode().replace('"mean": 0.5', f'"mean": {number}')
    with pytest.raises(LvaeError, match="file"):
        records.parse(Outer, text.encode(), "file")


def test_text_that_cannot_be_written_again_is_refused() -> None:
    text = records.dumps(GOOD).decode().replace('"maybe": null', r'"maybe": "\ud800"')
    with pytest.raises(LvaeError, match="file"):
        records.parse(Outer, text.encode(), "file")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")]])
def test_what_json_cannot_say_is_not_written(value: Any) -> None:
    for write in (records.dumps, records.line):
        with pytest.raises(ValueError, match="Out of range"):
            write({"value": value})


@dataclass(frozen=True)
class Grown:
    """A record that got a field after files of it were written."""

    name: str
    share: float = records.later(0.0)


def test_a_later_field_is_left_out_where_it_has_its_first_value() -> None:
    assert records.dumps(Grown("a")) == b'{\n "name": "a"\n}\n'
    assert records.parse(Grown, b'{"name": "a"}', "here") == Grown("a")
    assert records.parse(Grown, records.dumps(Grown("a", 0.5)), "here") == Grown("a", 0.5)
    with pytest.raises(LvaeError, match="name"):
        records.parse(Grown, b'{"share": 0.5}', "here")

"""Keys that a person wrote down are found however they are written, and never another one."""

from pathlib import Path

import pytest

from lvae.manifests.errors import LvaeError
from lvae.manifests.views.named_keys import find_keys, near_keys, read_key_lines, refuse_missing

ODD = ["plain/line\nbreak.png", "tab\t.png", "cr\r", "esc\x1b[31m/0.png", "\u202edrow.png", "a\\nb.png"]


@pytest.mark.parametrize("key", ODD)
def test_a_key_is_found_escaped_as_json_or_as_it_is(key: str, tmp_path: Path) -> None:
    import json

    escaped = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in key)
    for line in (escaped, json.dumps(key), json.dumps({"row": 3, "key": key, "reason": "x"})):
        (tmp_path / "keys").write_text(f"{line}\nplain.png\n")
        found = find_keys(read_key_lines(tmp_path / "keys"), [*ODD, "plain.png", "other.png"])
        assert (set(found.keys), found.missing) == ({key, "plain.png"}, ())


def test_a_key_as_it_is_goes_before_what_it_may_be_an_escape_of() -> None:
    assert find_keys(["a\\nb.png"], ["a\nb.png", "a\\nb.png"]).keys == ("a\\nb.png",)
    assert find_keys(["a\\nb.png"], ["a\nb.png"]).keys == ("a\nb.png",)


def test_line_ends_of_windows_and_a_mark_in_front_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbfa.png\r\n\r\nb.png")
    assert find_keys(read_key_lines(tmp_path / "keys"), ["a.png", "b.png", "c.png"]).keys == ("a.png", "b.png")


def test_keys_are_found_in_either_unicode_form() -> None:
    found = find_keys(["caf\u00e9.png", "u\u0308ber.png"], ["cafe\u0301.png", "\u00fcber.png"])
    assert found.keys == ("cafe\u0301.png", "\u00fcber.png")
    assert found.other_form == 2
    both = ["cafe\u0301.png", "caf\u00e9.png"]
    assert find_keys(["caf\u00e9.png"], both).keys == ("caf\u00e9.png",)
    with pytest.raises(LvaeError, match="Unicode form"):
        find_keys(["\u212bngstr\u00f6m.png"], ["A\u030angstro\u0308m.png", "\u00c5ngstr\u00f6m.png"])


def test_keys_that_name_nothing_are_told_with_what_is_near() -> None:
    keys = ["cat/0001.png", "cat/0002.png", "dog/0001.JPG"]
    found = find_keys(["cats/0002.png", "cat/0001.png"], keys)
    assert found.missing == ("cats/0002.png",)
    assert near_keys("cats/0002.png", keys) == ["cat/0002.png"]
    assert near_keys("0001", keys) == ["cat/0001.png", "dog/0001.JPG"]
    said = r"no image has 1 of these 2 keys, 'cats/0002\.png' for one\. Did you mean 'cat/"
    with pytest.raises(LvaeError, match=said):
        refuse_missing("--without-keys F", 2, found.missing, keys)
    refuse_missing("--without-keys F", 2, (), keys)


def test_bytes_that_are_not_utf8_are_read_as_keys_show_them(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"caf\xe9.png\n")
    assert find_keys(read_key_lines(tmp_path / "keys"), ["caf\\xe9.png", "caf\u00e9.png"]).keys == ("caf\\xe9.png",)


def test_a_line_of_deep_json_is_a_key_that_is_not_there() -> None:
    deep = '{"key":' * 100_000
    assert find_keys([deep], ["a.png"]).missing == (deep,)

"""Frozen dataclasses to strict JSON and back: what a file may say is what its dataclass declares, no more, no less."""

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from lvae.manifests.errors import LvaeError

T = TypeVar("T")
PLAIN = (str, int, float, bool)  # what is kept as it comes
SIGNATURE = "self_sha256"
LATER = "later"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # how JSON may spell what UTF-8 cannot say


class FormError(LvaeError):
    """A record that is as somebody wrote it, with a name in it that nobody may follow."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What a string may be, as `Annotated[str, Form(...)]`: one that becomes a path, above all.

    pattern: of the whole string. description: for a person.
    """

    pattern: str
    description: str

    def fits(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def check(self, value: str, where: str) -> None:
        if not self.fits(value):
            raise FormError(where, f"must be {self.description}, not {value!r:.200}", "Do not use these files.")


def later(default: Any) -> Any:
    """The default of a field that came after files were written: it is left out of them where it has this value."""
    return dataclasses.field(default=default, metadata={LATER: True})


def dumps(value: object) -> bytes:
    """Canonical JSON of a dataclass or of plain values: sorted keys, UTF-8, one spelling, no NaN."""
    text = json.dumps(plain(value), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def line(value: object) -> bytes:
    """The same on one line, for .jsonl files."""
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def sha256_of(value: object) -> str:
    return hashlib.sha256(dumps(value)).hexdigest()


def sha256_beside(data: bytes, name: str) -> str:
    """The hash of what `dumps` wrote, without the line of one of its fields (not the last) that holds no object."""
    return hashlib.sha256(re.sub(rb'\n "%b": [^\n]*' % name.encode(), b"", data, count=1)).hexdigest()


def plain(value: object) -> Any:
    """Dataclasses and tuples as dictionaries and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        unsaid = _later_fields(type(value))
        found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: plain(item) for name, item in found.items() if name not in unsaid or item != unsaid[name]}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def loads(data: bytes, where: str) -> Any:
    """Plain JSON without its traps, see `decode_json`. `where` names the file in errors."""
    try:
        text = data.decode()
        value = decode_json(text)
        if SURROGATE.search(text):
            dumps(value)  # half of a surrogate pair is no text: encoding it says so
        return value
    except (ValueError, RecursionError) as error:
        raise LvaeError(where, f"not valid JSON ({error})") from error


def decode_json(text: str | bytes, nan: bool = False) -> Any:
    """What JSON says. ValueError for a name twice in one object, and for NaN and infinity unless `nan`."""
    constant, number = (float, float) if nan else (_refuse_constant, _finite)
    return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=constant, parse_float=number)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"{twice!r:.60} stands twice")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _refuse_constant(text)
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def parse(cls: type[T], data: bytes, where: str) -> T:
    """A dataclass from its JSON bytes."""
    return from_plain(cls, loads(data, where), where)


def signed(value: object) -> bytes:
    """Canonical JSON of a dataclass with the hash of itself."""
    return dumps({**plain(value), SIGNATURE: sha256_of(value)})


def parse_signed(
    cls: type[T], data: bytes, where: str, advice: str = "", complete: Callable[[Any], None] = lambda _: None
) -> T:
    """A dataclass from what `signed` wrote. FormError where it is as somebody wrote it and names what it may not.

    complete: puts in what the content refers to, once its hash was taken.
    """
    content = loads(data, where)
    claimed = content.pop(SIGNATURE, None) if isinstance(content, dict) else None
    as_written = claimed == sha256_beside(data, SIGNATURE) or claimed == sha256_of(content)
    if as_written and isinstance(content, dict):
        complete(content)
    try:
        record = from_plain(cls, content, where)
    except FormError as error:
        if as_written:
            raise
        raise LvaeError(where, "has been changed or damaged", advice) from error
    if not as_written and claimed != sha256_of(record):
        raise LvaeError(where, "has been changed or damaged", advice)
    return record


def from_plain(cls: type[T], value: Any, where: str) -> T:
    """A dataclass from plain values; unknown, missing or mistyped fields raise LvaeError naming the field."""
    return typing.cast(T, _convert(cls, value, where))


def _convert(expected: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        return _convert(options[0], value, where) if len(options) == 1 else _first_that_fits(options, value, where)
    if origin is typing.Annotated:
        for form in arguments[1:]:
            found = _convert(arguments[0], value, where)
            form.check(found, where)
        return found
    if origin is typing.Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        raise LvaeError(where, f"{value!r} is none of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise LvaeError(where, "must be an object")
        return {
            _convert(arguments[0], key, where): _convert(arguments[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(expected):
        return _convert_dataclass(expected, value, where)
    if expected is Any:
        return value
    if expected is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise LvaeError(where, "is too large a number") from error
    if type(value) is not expected:
        raise LvaeError(where, f"must be {getattr(expected, '__name__', expected)}, not {value!r:.60}")
    return value


def _first_that_fits(options: list[Any], value: Any, where: str) -> Any:
    for option in options[:-1]:
        try:
            return _convert(option, value, where)
        except LvaeError:
            continue
    return _convert(options[-1], value, where)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise LvaeError(where, "must be a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        if arguments[0] in PLAIN and all(type(item) is arguments[0] for item in value):
            return tuple(value)
        return tuple(_convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if len(value) != len(arguments):
        raise LvaeError(where, f"must have {len(arguments)} entries, not {len(value)}")
    return tuple(
        _convert(argument, item, f"{where}[{index}]")
        for index, (argument, item) in enumerate(zip(arguments, value, strict=True))
    )


def _convert_dataclass(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise LvaeError(where, "must be an object")
    types_of = _fields(cls)
    if unknown := sorted(value.keys() - types_of.keys()):
        raise LvaeError(where, f"unknown field {unknown[0]!r}")
    if missing := [name for name in types_of if name not in value and name not in _later_fields(cls)]:
        raise LvaeError(where, f"field {missing[0]!r} is missing")
    said = {name: wanted for name, wanted in types_of.items() if name in value}
    return cls(**{name: _convert(wanted, value[name], f"{where}.{name}") for name, wanted in said.items()})


@lru_cache
def _fields(cls: Any) -> dict[str, Any]:
    """Name and type of every field; asking Python for them takes longer than a record of them."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@lru_cache
def _later_fields(cls: Any) -> dict[str, Any]:
    """Defaults of the fields that a file may lack."""
    return {field.name: field.default for field in dataclasses.fields(cls) if LATER in field.metadata}


def require_whole(name: str, value: object, least: int, most: int) -> None:
    """LvaeError where a setting is no whole number from least to most."""
    if type(value) is not int or not least <= value <= most:
        wanted = str(least) if least == most else f"a whole number from {least} to {most}"
        raise LvaeError("", f"{name} must be {wanted}, not {value!r:.60}")


def require_real(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    """LvaeError where a setting is no finite number within these bounds."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise LvaeError("", f"{name} must be a finite number, not {value!r:.60}")
    if not (least <= value <= most and above < value < below):
        low = f"at least {least:g}" if math.isfinite(least) else f"above {above:g}"
        high = f" and below {below:g}" if math.isfinite(below) else f" and at most {most:g}" if most < math.inf else ""
        raise LvaeError("", f"{name} must be {low}{high}, not {value!r:.60}")

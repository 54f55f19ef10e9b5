"""Types of options: numbers and durations, told in plain words where they are none."""

import math
from typing import Any

import click

from lvae.manifests.errors import LvaeError

SECONDS = {"s": 1, "m": 60, "h": 3600}


class Whole(click.IntRange):
    """A whole number between bounds, where there are any."""

    name = "whole number"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return _within(self, number, param, ctx)

    def _describe_range(self) -> str:
        return _help_bounds(self)


class Number(click.FloatRange):
    """A number between bounds, where there are any: neither NaN nor infinity."""

    name = "number"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return _within(self, number, param, ctx)

    def _describe_range(self) -> str:
        return _help_bounds(self)


def _within(kind: Whole | Number, number: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
    least, most = kind.min, kind.max
    below = least is not None and (number <= least if kind.min_open else number < least)
    above = most is not None and (number >= most if kind.max_open else number > most)
    if below or above:
        kind.fail(f"must be {_bounds(kind)}, not {number}.", param, ctx)
    return number


def _bounds(kind: Whole | Number) -> str:
    """at least 1; above 0; 1 to 50."""
    least = "" if kind.min is None else f"{'above' if kind.min_open else 'at least'} {kind.min}"
    if kind.max is None:
        return least
    most = f"{'below' if kind.max_open else 'at most'} {kind.max}"
    if least and not (kind.min_open or kind.max_open):
        return f"{kind.min} to {kind.max}"
    return f"{least} and {most}" if least else most


def _help_bounds(kind: Whole | Number) -> str:
    """Bounds for --help, which has none where they go without saying."""
    return "" if kind.max is None and kind.min in (0, 1) else _bounds(kind)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, from 2h, 30m, 90s or 90."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        number, unit = (value[:-1], value[-1:]) if value[-1:] in SECONDS else (value, "s")
        if not number.isdecimal():
            self.fail(f"{value!r} is no time such as 2h, 30m or 90s.", param, ctx)
        return float(number) * SECONDS[unit]


def share(text: str, option: str) -> float:
    """A share as a person writes it: 5% or 0.05."""
    number, factor = (text[:-1], 0.01) if text.endswith("%") else (text, 1.0)
    try:
        found = float(number) * factor
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise LvaeError(f"{option} {text:.60}", "is no share", "Write one such as 5% or 0.05.")
    return found

"""Dataclasses to JSON values and back, for what passes between the server and its workers and for cached results.

Owns the two functions. Decoding checks every type, since a worker that a hostile image took over may send anything.
Small on purpose: a worker that imported a validation framework would spend a third of its memory on it. A type's hints
are read once and become a chain of small functions; the place of an error is put together on its way out only.
"""

import base64
import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from itertools import repeat
from typing import Any, TypeVar

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest

T = TypeVar("T")
Coder = Callable[[Any], Any]


class _Wrong(Exception):
    """A value that is not of its type; `place` grows from the inside out."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.message, self.text, self.place = message, text, ""


def encode(value: Any) -> Any:
    """Return `value` as JSON types: dataclasses as objects, bytes as base64, digests, dates and enums as text."""
    kind: Any = type(value)
    return _encoder(kind)(value)


def decode(kind: type[T], value: Any, where: str = "value") -> T:
    """Return `value` (JSON types) as an instance of `kind`; raises MalformedInput that names the place in it."""
    wanted: Any = kind
    try:
        return typing.cast("T", _decoder(wanted)(value))
    except _Wrong as wrong:
        raise MalformedInput(wrong.message, file=where + wrong.place, text=wrong.text) from wrong


@cache
def _encoder(kind: Any) -> Coder:
    """Return the function that encodes values of exactly this type."""
    if kind is str or issubclass(kind, types.NoneType | bool | int | float):
        return lambda value: value
    if issubclass(kind, Mapping):
        return lambda value: {str(key): encode(item) for key, item in value.items()}
    if issubclass(kind, list | tuple):
        return lambda value: [encode(item) for item in value]
    if dataclasses.is_dataclass(kind) and kind is not Digest:
        names = tuple(field.name for field in dataclasses.fields(kind))
        return lambda value: {name: encode(getattr(value, name)) for name in names}
    for base, render in _RENDERERS.items():
        if issubclass(kind, base):
            return render
    raise TypeError(f"{kind.__name__} has no JSON form")


@cache
def _decoder(kind: Any) -> Coder:
    """Return the function that decodes and checks values of this type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        coder = _union(parts)
    elif origin is typing.Literal:
        coder = _literal(parts)
    elif origin is tuple:
        coder = _sequence(_decoder(parts[0])) if parts[1:] == (Ellipsis,) else _row(tuple(map(_decoder, parts)))
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        coder = _mapping(_decoder(parts[1]))
    elif dataclasses.is_dataclass(kind) and kind is not Digest:
        coder = _record(typing.cast("type", kind))
    else:
        coder = _scalar(kind)
    return coder


def _union(options: tuple[Any, ...]) -> Coder:
    nullable = types.NoneType in options
    coders = [_decoder(option) for option in options if option is not types.NoneType]

    def read(value: Any) -> Any:
        if value is None and nullable:
            return None
        error: _Wrong | None = None
        for coder in coders:
            try:
                return coder(value)
            except _Wrong as wrong:
                error = error or wrong
        raise error or _Wrong("must not be null")

    return read


def _sequence(coder: Coder) -> Coder:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Wrong("must be a list")
        return tuple(_items(repeat(coder), value))

    return read


def _row(coders: tuple[Coder, ...]) -> Coder:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Wrong("must be a list")
        if len(value) != len(coders):
            raise _Wrong(f"must have {len(coders)} items")
        return tuple(_items(coders, value))

    return read


def _items(coders: Iterable[Coder], values: list[Any]) -> list[Any]:
    done: list[Any] = []
    try:
        for coder, value in zip(coders, values, strict=False):
            done.append(coder(value))
    except _Wrong as wrong:
        wrong.place = f"[{len(done)}]{wrong.place}"
        raise
    return done


def _mapping(coder: Coder) -> Coder:
    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Wrong("must be an object")
        done: dict[str, Any] = {}
        key = ""
        try:
            for key, item in value.items():
                done[key] = coder(item)
        except _Wrong as wrong:
            wrong.place = f".{key}{wrong.place}"
            raise
        return done

    return read


def _record(kind: type) -> Coder:
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    needed = frozenset(f.name for f in fields if f.default is missing and f.default_factory is missing)
    coders = {field.name: _decoder(hints[field.name]) for field in fields}

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Wrong("must be an object")
        if not (needed <= value.keys() <= coders.keys()):
            unknown, lacking = sorted(value.keys() - coders.keys()), sorted(needed - value.keys())
            raise _Wrong(f"unknown {unknown}, missing {lacking}")
        done: dict[str, Any] = {}
        name = ""
        try:
            for name, item in value.items():
                done[name] = coders[name](item)
        except _Wrong as wrong:
            wrong.place = f".{name}{wrong.place}"
            raise
        return kind(**done)

    return read


def _literal(options: tuple[Any, ...]) -> Coder:
    def read(value: Any) -> Any:
        if value not in options:
            raise _Wrong(f"must be one of {options}", str(value))
        return value

    return read


_RENDERERS: dict[type, Coder] = {
    Enum: lambda value: str(value.value),
    Digest: str,
    bytes: lambda value: base64.b64encode(value).decode(),
    datetime: datetime.isoformat,
}
_PARSERS: dict[type, Coder] = {
    Digest: Digest.parse,
    bytes: lambda text: base64.b64decode(text, validate=True),
    datetime: datetime.fromisoformat,
}


def _scalar(kind: Any) -> Coder:
    if kind is Any:
        return lambda value: value
    if isinstance(kind, type) and issubclass(kind, Digest | bytes | datetime | Enum):
        return _parsed(kind, _PARSERS.get(kind, kind))

    def read(value: Any) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise _Wrong(f"must be {kind.__name__}", str(value))

    return read


def _parsed(kind: type, parse: Coder) -> Coder:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise _Wrong(f"is no {kind.__name__}", str(value))
        try:
            return parse(value)
        except MalformedInput as error:
            raise _Wrong(str(error)) from error
        except ValueError as error:
            raise _Wrong(f"is no {kind.__name__}", str(value)) from error

    return read

"""Dataclasses to JSON values and back, for what passes between the server and its workers and for cached results.

Owns the two functions. Decoding checks every type, since a worker that a hostile image took over may send anything.
Small on purpose: a worker that imported a validation framework would spend a third of its memory on it.
"""

import base64
import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest

T = TypeVar("T")


def encode(value: Any) -> Any:
    """Return `value` as JSON types: dataclasses as objects, bytes as base64, digests, dates and enums as text."""
    if value is None or isinstance(value, bool | int | float) or type(value) is str:
        return value
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Digest):
        return {name: encode(getattr(value, name)) for name in _fields(type(value))}
    return _encode_scalar(value)


def _encode_scalar(value: Any) -> str:
    if isinstance(value, Enum | Digest):
        return str(value.value if isinstance(value, Enum) else value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def decode(kind: type[T], value: Any, where: str = "value") -> T:
    """Return `value` (JSON types) as an instance of `kind`; raises MalformedInput that names the place in it."""
    return typing.cast("T", _decode(kind, value, where))


@cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Return name -> (type, has a default) for every field of a dataclass."""
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is not missing or field.default_factory is not missing)
        for field in dataclasses.fields(kind)
    }


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        return _decode_union(typing.get_args(kind), value, where)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _decode_mapping(typing.get_args(kind)[1], value, where)
    if dataclasses.is_dataclass(kind) and kind is not Digest:
        return _decode_dataclass(typing.cast("type", kind), value, where)
    return _decode_scalar(kind, value, where)


def _decode_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    error: MalformedInput | None = None
    for option in options:
        if option is type(None):
            continue
        try:
            return _decode(option, value, where)
        except MalformedInput as failed:
            error = error or failed
    raise error or MalformedInput("must not be null", file=where)


def _decode_tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise MalformedInput("must be a list", file=where)
    if len(items) == 2 and items[1] is Ellipsis:  # noqa: PLR2004 - the two parts of tuple[X, ...]
        return tuple(_decode(items[0], item, f"{where}[{at}]") for at, item in enumerate(value))
    if len(items) != len(value):
        raise MalformedInput(f"must have {len(items)} items", file=where)
    return tuple(
        _decode(kind, item, f"{where}[{at}]") for at, (kind, item) in enumerate(zip(items, value, strict=True))
    )


def _decode_mapping(kind: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedInput("must be an object", file=where)
    return {key: _decode(kind, item, f"{where}.{key}") for key, item in value.items()}


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise MalformedInput("must be an object", file=where)
    fields = _fields(kind)
    unknown = value.keys() - fields.keys()
    lacking = {name for name, (_, optional) in fields.items() if not optional} - value.keys()
    if unknown or lacking:
        raise MalformedInput(f"unknown {sorted(unknown)}, missing {sorted(lacking)}", file=where)
    return kind(**{name: _decode(fields[name][0], item, f"{where}.{name}") for name, item in value.items()})


_PARSERS: dict[type, Any] = {
    Digest: Digest.parse,
    bytes: lambda text: base64.b64decode(text, validate=True),
    datetime: datetime.fromisoformat,
}


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:
    options = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else None
    if options is not None and value not in options:
        raise MalformedInput(f"must be one of {options}", file=where, text=str(value))
    if options is not None or kind is Any:
        return value
    try:
        if isinstance(kind, type) and issubclass(kind, Digest | bytes | datetime | Enum):
            return _PARSERS.get(kind, kind)(value)
    except (TypeError, ValueError) as error:
        raise MalformedInput(f"is no {kind.__name__}", file=where, text=str(value)) from error
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MalformedInput(f"must be {kind.__name__}", file=where, text=str(value))
    return value

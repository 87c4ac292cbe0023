"""How the fields of a run are read and checked by their types: in JSON a text may stand where a number should."""

import dataclasses
import json
import math
import types
import typing


class ConfigError(ValueError):
    """A run.json, or a RunConfig, that cannot be run; the message says which key and why."""


NEEDED = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", type(None): "null"}


def check_fields(one, where=""):
    """Raise ConfigError for a field of a dataclass, or of those in it, whose value is not of the field's type."""
    for name, kind in typing.get_type_hints(type(one)).items():
        check_value(kind, getattr(one, name), where + name)


def check_value(kind, value, where):
    """Raise ConfigError where a value is not of a type as fields of configs have it; where: name of the field."""
    if dataclasses.is_dataclass(value):
        check_fields(value, f"{where}.")
    elif isinstance(value, dict) and typing.get_origin(kind) is dict:
        for name, each in value.items():
            check_value(typing.get_args(kind)[1], each, f"{where}.{name}")
    elif not any(_is(option, value) for option in _options(kind)):
        needed = " or ".join(NEEDED.get(option, _list(option)) for option in _options(kind))
        raise ConfigError(f"{where} is {repr(value)[:60]}: it must be {needed}")


def _options(kind):
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _list(kind):
    if typing.get_origin(kind) is tuple:
        return "a list of pairs of texts" if typing.get_origin(typing.get_args(kind)[0]) is tuple else "a list of texts"
    return "an object"


def _is(kind, value):
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        if not isinstance(value, tuple) or (kinds[-1] is not ... and len(kinds) != len(value)):
            return False
        return all(_is(kinds[0], each) for each in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _is_finite(number):
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer of hundreds of digits
        return False


def read_fields(cls, values, where=""):
    """A dataclass of a dict as JSON has it, and those within it; raises ConfigError for unknown or missing keys, and
    for values that are not of a field's type.  where: the name of the field that it is, with a dot behind it."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where.rstrip('.')} must be an object, it is {json.dumps(values)[:60]}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"unknown key {where}{unknown[0]}; there are {', '.join(fields)}")
    needed = [name for name, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise ConfigError(f"missing key {where}{missing[0]}")
    types = typing.get_type_hints(cls)
    read = {name: _value(types[name], value, f"{where}{name}") for name, value in values.items()}
    try:
        return cls(**read)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def _value(kind, value, where):
    """A value of JSON as the field of this type has it."""
    if typing.get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be an object")
        return {name: read_fields(typing.get_args(kind)[1], each, f"{where}.{name}.") for name, each in value.items()}
    options = typing.get_args(kind) or (kind,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if dataclasses.is_dataclass(option):
            return read_fields(option, value, f"{where}.")
    value = _tuples(value)
    check_value(kind, value, where)
    return value


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value

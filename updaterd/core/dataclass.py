# SPDX-License-Identifier: Apache-2.0
"""`dataclass(frozen=True, slots=True)` that is made when it is first used.

`dataclasses` writes six methods for each class as source text and compiles them when
the class is defined, 0.6 ms of CPU (CPython 3.11). A worker defines ninety and uses a
third of them: that was a tenth of a second of each look at the repository, on each
machine. Here all methods but the constructor are the same for all classes, and the
constructor is compiled when the first object is made.

To a type checker this is `dataclasses.dataclass`, and at run time what that does for
the options which updaterd uses: `fields`, `replace`, `asdict`, `match`, pickling,
inheritance and `__post_init__` work as they do there (tests/unit/core/test_dataclass.py
compares the two).
"""

import sys

__all__ = ["dataclass"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass
    from typing import Any, NoReturn

_ABSENT = object()
_PLAN = "__plan__"


class _Field:
    """A field as far as the methods need it: its name, and what stands for it."""

    __slots__ = ("default", "factory", "is_keyword", "kind", "name", "source")

    def __init__(
        self, name: str, kind: object, source: object, *, is_keyword: bool
    ) -> None:
        self.name = name
        self.kind = kind
        self.source = source  # what stands behind it in the class
        self.is_keyword = is_keyword
        self.default, self.factory = source, _ABSENT
        library = sys.modules.get("dataclasses")  # who has not loaded it has no field()
        if library is not None and isinstance(source, library.Field):
            missing = library.MISSING
            self.default = _ABSENT if source.default is missing else source.default
            if source.default_factory is not missing:
                self.factory = source.default_factory


class _Plan:
    """What a class is made of."""

    __slots__ = ("fields", "frozen", "names")

    def __init__(self, fields: "dict[str, _Field]", *, frozen: bool) -> None:
        self.fields = fields
        self.frozen = frozen
        self.names = tuple(fields)


class _Fields:
    """`__dataclass_fields__`, as `dataclasses` would have made it, when asked for."""

    def __get__(self, _: object, cls: type) -> "dict[str, Any]":
        import dataclasses  # noqa: PLC0415 - few processes ask

        plan = _plan(cls)
        in_order = sorted(plan.fields.values(), key=lambda field: field.is_keyword)
        listed: list[Any] = [
            (field.name, field.kind)
            if field.source is _ABSENT
            else (field.name, field.kind, field.source)
            for field in in_order
        ]
        firsts = sum(not field.is_keyword for field in in_order)
        listed.insert(firsts, ("_", dataclasses.KW_ONLY))
        twin = vars(dataclasses.make_dataclass(cls.__name__, listed))
        fields = {name: twin["__dataclass_fields__"][name] for name in plan.names}
        type.__setattr__(cls, "__dataclass_fields__", fields)
        return fields


if not TYPE_CHECKING:

    def dataclass(
        *, frozen: bool = False, slots: bool, kw_only: bool = False
    ) -> "Callable[[type], type]":
        """Return a decorator that makes a data class.

        Args:
            frozen: no field can be set or deleted.
            slots: always; it is written where the class is, for its readers.
            kw_only: the constructor takes its own fields by name only.
        """
        assert slots
        return lambda cls: _with_slots(cls, frozen=frozen, kw_only=kw_only)


def _with_slots(cls: type, *, frozen: bool, kw_only: bool) -> type:
    """Return the class with slots and the methods of a data class.

    Raises:
        TypeError: it inherits from one that is not made here; or a default can be
            changed.
    """
    inherited: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        if _PLAN in vars(base):
            inherited |= vars(base)[_PLAN].fields
        elif "__dataclass_fields__" in vars(base):
            raise TypeError(f"{cls.__name__}: {base.__name__} is of another kind")
    body = dict(vars(cls))
    own = {
        name: _Field(name, kind, body.get(name, _ABSENT), is_keyword=kw_only)
        for name, kind in cls.__annotations__.items()  # not in `vars` since 3.14
    }
    for field in own.values():
        if getattr(type(field.default), "__hash__", True) is None:
            raise TypeError(f"{cls.__name__}.{field.name}: all objects would share it")
    if "__eq__" in body and body.get("__hash__", _ABSENT) is None:
        del body["__hash__"]  # Python's own, for want of one: frozen ones have theirs
    fields = inherited | own
    for name in ("__dict__", "__weakref__", *own):
        body.pop(name, None)
    body["__slots__"] = tuple(name for name in own if name not in inherited)
    body["__match_args__"] = tuple(
        field.name for field in fields.values() if not field.is_keyword
    )
    body[_PLAN] = _Plan(fields, frozen=frozen)
    body["__dataclass_fields__"] = _Fields()
    common = _COMMON | (_FROZEN if frozen else _OPEN)
    new = type(cls)(cls.__name__, cls.__bases__, common | body)
    new.__qualname__ = cls.__qualname__
    return new


def _plan(cls: type) -> _Plan:
    """Return what the class, or the one that it inherits from, is made of."""
    plan: _Plan = getattr(cls, _PLAN)
    return plan


def _compiled(cls: type) -> "Any":
    """Give the class that has the fields its constructor; return that class."""
    owner = next(base for base in cls.__mro__ if _PLAN in vars(base))
    plan = _plan(owner)
    scope: dict[str, Any] = {"_set": object.__setattr__, "_absent": _ABSENT}
    first: list[str] = []
    second: list[str] = []
    lines: list[str] = []
    for name, field in plan.fields.items():
        value = name
        argument = name
        if field.factory is not _ABSENT:
            scope[f"_make_{name}"] = field.factory
            argument = f"{name}=_absent"
            value = f"_make_{name}() if {name} is _absent else {name}"
        elif field.default is not _ABSENT:
            scope[f"_is_{name}"] = field.default
            argument = f"{name}=_is_{name}"
        (second if field.is_keyword else first).append(argument)
        lines.append(f"_set(self, {name!r}, {value})")
    if hasattr(owner, "__post_init__"):
        lines.append("self.__post_init__()")
    arguments = ", ".join(["self", *first, *(["*", *second] if second else [])])
    namespace: dict[str, Callable[..., None]] = {}
    source = f"def __init__({arguments}):\n " + "\n ".join(lines or ["pass"])
    exec(source, scope, namespace)  # noqa: S102 - its names are those of our own classes
    namespace["__init__"].__qualname__ = f"{owner.__qualname__}.__init__"
    type.__setattr__(owner, "__init__", namespace["__init__"])
    return owner


def _init(self: object, *values: object, **named: object) -> None:
    _compiled(type(self)).__init__(self, *values, **named)


def _values(self: object) -> "tuple[object, ...]":
    return tuple([getattr(self, name) for name in _plan(type(self)).names])


def _equal(self: object, other: object) -> object:
    if self is other:
        return True
    if type(self) is not type(other):
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: object) -> str:
    names = _plan(type(self)).names
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
    return f"{type(self).__qualname__}({shown})"


def _refuse(self: object, name: str, *_: object) -> "NoReturn":
    from dataclasses import FrozenInstanceError  # noqa: PLC0415 - a mistake of ours

    raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be changed")


def _state(self: object) -> "list[object]":
    return list(_values(self))


def _restored(self: object, state: "list[object]") -> None:
    for name, value in zip(_plan(type(self)).names, state, strict=True):
        object.__setattr__(self, name, value)


_COMMON: "dict[str, Any]" = {
    "__init__": _init,
    "__eq__": _equal,
    "__repr__": _repr,
    "__getstate__": _state,
    "__setstate__": _restored,
}
_FROZEN = {"__hash__": _hash, "__setattr__": _refuse, "__delattr__": _refuse}
_OPEN: "dict[str, Any]" = {"__hash__": None}

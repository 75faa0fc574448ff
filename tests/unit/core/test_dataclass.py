# SPDX-License-Identifier: Apache-2.0
"""What updaterd defines its data classes by is `dataclasses`, only made later."""

import copy
import dataclasses
import importlib
import pickle
import pkgutil
from dataclasses import field

import pytest

from updaterd.core import dataclass as ours

KINDS = {"library": dataclasses.dataclass, "ours": ours.dataclass}
PLAIN = {"frozen": True, "slots": True}
NAMED = {**PLAIN, "kw_only": True}


def classes(kind):
    make = KINDS[kind]

    @make(**PLAIN)
    class Base:
        """A base."""

        name: str
        count: int = 3
        names: tuple[str, ...] = field(default_factory=tuple)

        @property
        def twice(self):
            return 2 * self.count

    @make(**NAMED)
    class Derived(Base):
        more: list[int] = field(default_factory=list, metadata={"low": 1})
        count: int = 4

    @make(slots=True)
    class Open:
        at: int
        seen: int = 0

        def __post_init__(self):
            self.seen = self.at + 1

    @make(**PLAIN)
    class Empty:
        pass

    return Base, Derived, Open, Empty


def told(work):
    """Return what comes of it, or the kind of error."""
    try:
        return repr(work())
    except Exception as error:  # noqa: BLE001
        return type(error).__name__


USES = {
    "made": lambda c: [
        c[0]("a"), c[0]("a", 1, names=("x",)), c[1]("a"), c[2](7), c[3]()],
    "by name only": lambda c: c[1]("a", 4, (), [1]),
    "too few": lambda c: c[0](),
    "unknown": lambda c: c[0]("a", other=1),
    "equal": lambda c: [
        c[0]("a") == c[0]("a"), c[0]("a") == c[0]("b"), c[0]("a") == c[1]("a"),
        c[0]("a") == 1, c[3]() == c[3]()],
    "hash": lambda c: {c[0]("a"), c[0]("a"), c[0]("b", 1)} == {
        c[0]("a"), c[0]("b", 1)},
    "no hash": lambda c: hash(c[2](1)),
    "set": lambda c: setattr(c[0]("a"), "name", "b"),
    "deleted": lambda c: delattr(c[0]("a"), "name"),
    "open": lambda c: setattr(c[2](1), "at", 5),
    "open nothing": lambda c: setattr(c[2](1), "other", 5),
    "fields": lambda c: [
        (f.name, f.type, f.default, dict(f.metadata), f.kw_only, f.init)
        for kind in c for f in dataclasses.fields(kind)],
    "is one": lambda c: [dataclasses.is_dataclass(kind) for kind in c],
    "asdict": lambda c: dataclasses.asdict(c[1]("a", more=[1])),
    "replaced": lambda c: dataclasses.replace(c[1]("a", more=[1]), count=9),
    "replaced with nothing": lambda c: dataclasses.replace(c[0]("a"), other=9),
    "slots": lambda c: [vars(kind)["__slots__"] for kind in c],
    "match": lambda c: [kind.__match_args__ for kind in c],
    "named": lambda c: [(k.__name__, k.__module__) for k in c],
    "copied": lambda c: [copy.copy(c[1]("a")), copy.deepcopy(c[1]("a", more=[2]))],
    "property": lambda c: c[0]("a").twice,
    "factory": lambda c: c[1]("a").more is c[1]("a").more,
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_a_class_of_ours_is_one_of_the_library(use):
    work = USES[use]

    assert told(lambda: work(classes("ours"))) == told(lambda: work(classes("library")))


@ours.dataclass(**NAMED)
class Sent:
    name: str
    count: int = 3


def test_objects_go_to_other_processes():
    """Tasks are pickled."""
    sent = pickle.dumps(Sent(name="a"))
    assert pickle.loads(sent) == Sent(name="a")  # noqa: S301 - our own


def test_none_inherits_from_one_of_the_library():
    """Its fields would be missing: told where it is defined, not when it is used."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Base:
        name: str

    with pytest.raises(TypeError, match="another kind"):

        @ours.dataclass(frozen=True, slots=True)
        class Derived(Base):
            pass


def test_each_class_of_ours_can_be_described():
    """Whatever it says of its fields, `dataclasses` understands."""
    found = 0
    for room in ("core", "store", "pipeline", "install", "trust", "net", "files"):
        package = importlib.import_module(f"updaterd.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for item in vars(importlib.import_module(module.name)).values():
                if isinstance(item, type) and "__plan__" in vars(item):
                    found += 1
                    assert dataclasses.fields(item) is not None
    assert found > 60


def test_a_subclass_with_a_constructor_of_its_own_runs_it_once():
    @ours.dataclass(slots=True)
    class Base:
        name: str

    class Counting(Base):
        count = 0

        def __init__(self, name):
            type(self).count += 1
            super().__init__(name)

    assert "x" == Counting("x").name
    assert 1 == Counting.count


def test_a_default_that_can_be_changed_is_refused():
    with pytest.raises(TypeError, match="share"):

        @ours.dataclass(slots=True)
        class Shared:
            items: list = []  # noqa: RUF012 - what is refused


def test_a_frozen_class_that_compares_itself_can_be_hashed():
    @ours.dataclass(frozen=True, slots=True)
    class Own:  # noqa: PLW1641 - that is the question
        name: str

        def __eq__(self, other):
            return True

    assert hash(Own("x")) == hash(Own("x"))


def test_annotations_that_python_makes_when_asked_are_found():
    """Python 3.14 keeps none in the class: PEP 649."""

    class Late(type):
        @property
        def __annotations__(cls):
            return {"name": str}

    class Bare(metaclass=Late):
        __slots__ = ()

    assert "x" == ours.dataclass(slots=True)(Bare)("x").name

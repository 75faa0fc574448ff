# SPDX-License-Identifier: Apache-2.0
"""The rooms of a checkout in figures: `python benchmarks/structure.py [CHECKOUT ...]`.

A room is a package below `updaterd/`; an arrow, one room that imports from another,
however often. Imports inside of functions count, those for types alone do not.
docs/architecture.md has the table, for the commit before the rooms were cut and after.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def modules(package: Path) -> dict[str, ast.Module]:
    """Return the syntax tree of each module, by its dotted name."""
    trees = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text())
    return trees


def imports(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """Yield the modules of this package that a module imports."""
    skipped = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in known else node.module


def circles(arrows: dict[str, set[str]]) -> str:
    """Return one circle of modules, "none" without any."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return "none"


def _level(name: str) -> str:
    """Return the part below `updaterd` that a module is in, or is."""
    return name.split(".")[1] if "." in name else name


def _short(name: str) -> str:
    return name.removeprefix("updaterd.")


def _count(arrows: dict[str, set[str]]) -> int:
    return sum(len(targets) for targets in arrows.values())


def figures(checkout: Path) -> dict[str, str]:
    """Return what the table says of a checkout."""
    package = checkout / "updaterd"
    trees = modules(package)
    packages = {
        ".".join(path.parent.relative_to(package.parent).parts)
        for path in package.rglob("__init__.py")
    }
    room_of = {n: n if n in packages else n.rpartition(".")[0] for n in trees}
    sizes = Counter(room_of.values())
    between: dict[str, set[str]] = defaultdict(set)
    first: dict[str, set[str]] = defaultdict(set)
    modular = {name: set(imports(tree, set(trees))) - {name}
               for name, tree in trees.items()}  # fmt: skip
    for name, targets in modular.items():
        rooms = {room_of[target] for target in targets}
        between[room_of[name]] |= rooms - {room_of[name]}
        first[_level(name)] |= {_level(target) for target in targets} - {_level(name)}
    lines = {n: len((package.parent / Path(*n.split("."))).with_suffix(".py")
                    .read_text().splitlines())
             for n in trees if n not in packages}  # fmt: skip
    functions = {
        f"{name}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    namesakes = Counter(n.rpartition(".")[2] for n in trees if n not in packages)
    twice = sorted(f"{n} {c}" for n, c in namesakes.items()
                   if c > 1 and not n.startswith("__"))  # fmt: skip
    longest, largest = (
        max(functions, key=functions.__getitem__),
        max(lines, key=lines.__getitem__),
    )
    fullest = [f"{_short(room)} {size - 1}"
               for room, size in sizes.most_common(5)]  # fmt: skip
    return {
        "modules": str(len(lines)),
        "rooms": str(len(packages)),
        "fullest rooms, modules": ", ".join(fullest),
        "arrows between rooms": str(_count(between)),
        "arrows between rooms of the first level": str(_count(first)),
        "circle of first-level rooms": circles(first),
        "circle of modules": circles(modular),
        "largest module, lines": f"{_short(largest)} {lines[largest]}",
        "modules above 400 lines": str(sum(n > 400 for n in lines.values())),
        "longest function, lines": f"{_short(longest)} {functions[longest]}",
        "module names that occur twice": ", ".join(twice),
    }


def main() -> None:
    checkouts = [Path(name) for name in sys.argv[1:] or (Path(__file__).parents[1],)]
    columns = [figures(checkout) for checkout in checkouts]
    for row in columns[0]:
        print("|", row, "|", " | ".join(column[row] for column in columns), "|")


if __name__ == "__main__":
    main()

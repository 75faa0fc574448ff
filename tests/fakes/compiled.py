# SPDX-License-Identifier: Apache-2.0
"""Programs for tests, built by gcc from C that is made up."""

import random
import subprocess
from pathlib import Path

KINDS = {
    "pie": ("-fPIE", "-pie", "-ffunction-sections"),
    "fixed": ("-fno-pie", "-no-pie", "-ffunction-sections"),
    "library": ("-fPIC", "-shared"),
}
"""Flags that decide which references there are."""


def source(count: int, inserted: tuple[int, ...] = (), *, seed: int = 1) -> str:
    """Return C: functions that call each other, switch, and lie in a table.

    After them come as many that differ only in which of those they call.

    Args:
        count: of the functions.
        inserted: before which of them a new function is.
        seed: another one gives other functions.
    """
    draw = random.Random(seed)
    parts = ["volatile int sink, numbers[64];"]
    for index in range(count):
        if index in inserted:
            parts.append(_inserted(index))
        calls = [draw.randrange(index) for _ in range(6)] if index else []
        cases = [
            f"case {case}: sink += numbers[{draw.randrange(64)}]"
            f" * {draw.randrange(999)}; break;"
            for case in range(8)
        ]
        body = " ".join(f"sink ^= f{call}(x + {call});" for call in calls)
        parts.append(
            f"__attribute__((noinline)) int f{index}(int x) "
            f"{{ switch (x & 7) {{ {' '.join(cases)} }} {body} return sink; }}"
        )
    for index in range(count):
        parts += [_thunk(f"again{index}", 0)] * (index in inserted)
        parts.append(_thunk(f"g{index}", index))
    names = ", ".join(f"f{index}" for index in range(count))
    parts += [
        f"int (*const volatile table[])(int) = {{ {names} }};",
        "int main(int argc, char **argv) { return table[argc % 5](argc); }",
    ]
    return "\n".join(parts)


def _thunk(name: str, called: int) -> str:
    return f"int {name}(int x) {{ sink = x; return f{called}(x) + sink; }}"


def _inserted(index: int) -> str:
    return (
        f"__attribute__((noinline)) int new{index}(int x) "
        f"{{ return numbers[x & 63] / (x + {index} + 3); }}\n"
        f"int (*keep{index})(int) = new{index};"
    )


def build(out: Path, text: str, kind: str, compiler: str = "gcc") -> bytes:
    """Compile and link; return the file.

    Args:
        out: the file.
        text: C.
        kind: of KINDS.
        compiler: which gcc.
    """
    code = out.with_suffix(".c")
    code.write_text(text)
    argv = [
        compiler,
        "-O1",
        "-w",
        "-s",
        *KINDS[kind],
        "-Wl,--build-id=none",
        "-o",
        out,
        code,
    ]
    subprocess.run(argv, check=True)
    return out.read_bytes()

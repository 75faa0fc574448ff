# SPDX-License-Identifier: Apache-2.0
"""Whoever lacks the compiled module is told: nothing else shows what it costs."""

import sys

from updaterd.cli.parts.options import has_compiled_loops


def test_a_missing_module_is_noticed_without_loading_anything(tmp_path):
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "_native.pyi").touch()
    before = set(sys.modules)

    assert not has_compiled_loops(tmp_path)

    (tmp_path / "artifact" / "_native.abi3.so").touch()
    assert has_compiled_loops(tmp_path)
    assert not {name for name in set(sys.modules) - before if "artifact" in name}

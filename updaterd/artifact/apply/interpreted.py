# SPDX-License-Identifier: Apache-2.0
"""The loops that apply a delta, in Python: the same as `compiled`."""

from updaterd.artifact.apply.operations import check, decode
from updaterd.artifact.apply.sources import Concatenation
from updaterd.artifact.apply.sparse import Dense, Sparse

__all__ = ["Concatenation", "Dense", "Sparse", "check", "decode"]

# SPDX-License-Identifier: Apache-2.0
"""The loops that apply a delta, in Python: the same as `compiled`."""

from updaterd.artifact.operations import check, decode
from updaterd.artifact.sources import Concatenation
from updaterd.artifact.sparse import Dense, Sparse

__all__ = ["Concatenation", "Dense", "Sparse", "check", "decode"]

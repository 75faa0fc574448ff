# SPDX-License-Identifier: Apache-2.0
"""Addresses of PostgreSQL, which may hold a password."""

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict

_QUOTED = re.compile('".*"', re.DOTALL)


def check_address(url: str) -> None:
    """See that libpq can read an address.

    Raises:
        ValueError: it cannot. What libpq quotes is left out: it may be the password.
    """
    try:
        conninfo_to_dict(url)
    except psycopg.Error as error:
        text = _QUOTED.sub("...", str(error).strip())
        raise ValueError(text) from None

# SPDX-License-Identifier: Apache-2.0
"""The package's JSON schema of the status document, and documents held against it."""

import json
from importlib.resources import files

from jsonschema import Draft202012Validator, FormatChecker

SCHEMA = json.loads((files("updaterd") / "schemas/status.json").read_text("utf-8"))
_VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FormatChecker())


def validate(document):
    """Raise for a member that the schema does not have, or has otherwise."""
    _VALIDATOR.validate(document)

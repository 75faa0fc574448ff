# SPDX-License-Identifier: Apache-2.0
"""The package's JSON schema of the status document, and documents held against it."""

import json
from importlib.resources import files

from jsonschema import Draft202012Validator, FormatChecker

SCHEMA = json.loads((files("updaterd") / "schemas/status.json").read_text("utf-8"))


def _closed(part):
    """Return the schema without room for more: here nothing may be undescribed.

    For others a later updaterd may add members under the same number.
    """
    if isinstance(part, list):
        return [_closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    copy = {name: _closed(item) for name, item in part.items()}
    if isinstance(part.get("properties"), dict):
        copy.setdefault("additionalProperties", False)
    return copy


_VALIDATOR = Draft202012Validator(_closed(SCHEMA), format_checker=FormatChecker())
_OF_OTHERS = Draft202012Validator(SCHEMA, format_checker=FormatChecker())


def validate(document):
    """Raise for a member that the schema does not have, or has otherwise."""
    _VALIDATOR.validate(document)


def validate_as_others(document):
    """Raise for what the schema has otherwise, as an owner's program would."""
    _OF_OTHERS.validate(document)

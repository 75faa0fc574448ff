# SPDX-License-Identifier: Apache-2.0
"""What a release brings, as text for a notice, out of its manifest on disk."""

from collections.abc import Mapping
from pathlib import Path

from updaterd.core import manifest as manifests
from updaterd.core import release_notes
from updaterd.errors import MalformedError
from updaterd.install.layout import saved_manifests

_LONGEST = 800  # characters: what a desktop shows of a notice


def of(state: Mapping[str, object], environment: Mapping[str, str]) -> str:
    """Return the notes of the release that is ready, in a person's language.

    Args:
        state: of a product, as `Monitor` has it.
        environment: names the languages (`LC_ALL`, `LC_MESSAGES`, `LANG`, `LANGUAGE`).

    Returns:
        The text, cut where a notice ends; "": there is none, or not for this person.
    """
    root, version = state.get("root"), state.get("ready")
    if not isinstance(root, str) or not isinstance(version, str) or not version:
        return ""
    try:
        raw = saved_manifests(Path(root), [version]).get(version)
        texts = manifests.parse(raw).notes if raw else ()
    except (MalformedError, ValueError):  # a name that no file has
        return ""
    chosen = release_notes.choose(texts, release_notes.preferred(environment))
    text = release_notes.plain(chosen[1]) if chosen else ""
    if len(text) <= _LONGEST:
        return text
    beginning = text[:_LONGEST].rpartition("\n")[0] or text[:_LONGEST]
    return f"{beginning}\n…\nAll of it: updaterd status --notes {state.get('name')}"

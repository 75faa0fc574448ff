# SPDX-License-Identifier: Apache-2.0
"""Notes are bounded, in the user's language, and never orders to a terminal."""

import json
from dataclasses import replace

import pytest
from fakes.repository import manifest_of
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import manifest as manifests
from updaterd.core import release_notes
from updaterd.core.release_notes import ANY, MAX_BYTES, choose, plain, preferred
from updaterd.errors import MalformedError

PERSIAN = "\u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469"
NOTES = tuple(sorted({ANY: "any", "de": "deutsch", "pt-BR": "brasil"}.items()))


def test_notes_of_a_manifest_are_read_as_they_were_signed():
    release = replace(manifest_of("acme", "1.0", 1), notes=NOTES)
    assert manifests.parse(release.encode()).notes == NOTES


@pytest.mark.parametrize(
    "notes",
    [
        {"de": "x" * (MAX_BYTES + 1)},
        {"de": "ü" * (MAX_BYTES // 2 + 1)},
        {"de": "x" * 9_000, "en": "x" * 9_000},
        {f"x{a}{b}": "" for a in "abcdef" for b in "abcdef"},
        {"../../de": "x"},
        {"de\x1b[2J": "x"},
        {"de": ["x"]},
        {"de": "\ud800"},
        ["de"],
        "de",
    ],
)
def test_notes_that_are_too_long_or_none_are_refused(notes):
    release = replace(manifest_of("acme", "1.0", 1), notes=(("de", "x"),))
    document = json.loads(release.encode()) | {"notes": notes}
    with pytest.raises(MalformedError):
        manifests.parse(json.dumps(document).encode())


@given(st.text())
def test_nothing_but_letters_and_lines_reaches_a_terminal(text):
    shown = plain(text)
    allowed = {"\n", "\u200c", "\u200d"}
    assert all(char.isprintable() or char in allowed for char in shown)
    assert plain(shown) == shown


@pytest.mark.parametrize(
    "attack",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "\x9b31m",
        "\u202eevil\u202c",
        "\u2066evil\u2069",
        "\x00\x08\x7f\r",
        "\u200b\ufeff\u2028",
        "\U000e0041",
    ],
)
def test_orders_to_a_terminal_are_left_out_and_named_to_the_publisher(attack):
    shown = plain(f"good {attack} news")
    assert not set(shown) & set("\x1b\x9b\u202e\u2066\x00\x08\x7f\r\u200b\ufeff\u2028")
    line, name = release_notes.hidden(f"first\n{attack}")
    assert line == 2
    assert name.startswith("U+")


def test_what_writing_needs_stays():
    """Persian, Hindi and emoji have joiners; French has its own spaces."""
    assert plain(PERSIAN) == PERSIAN
    assert plain("Attention\u00a0!\tOui") == "Attention ! Oui"
    assert release_notes.hidden(f"{PERSIAN}\u00a0!\t") is None


@pytest.mark.parametrize(
    ("environment", "best"),
    [
        ({"LANG": "de_AT.UTF-8"}, "deutsch"),
        ({"LANG": "pt_PT@euro"}, "brasil"),
        ({"LANG": "fr_FR.UTF-8", "LANGUAGE": "nl:de:en"}, "deutsch"),
        ({"LANG": "de_DE", "LC_ALL": "C", "LANGUAGE": "de"}, "any"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "de_CH"}, "deutsch"),
        ({"LANG": "\x1b[2J"}, "any"),
        ({}, "any"),
    ],
)
def test_the_language_is_the_users_with_the_usual_fallbacks(environment, best):
    assert choose(NOTES, preferred(environment))[1] == best


def test_without_notes_there_is_none_and_with_one_it_is_shown():
    assert choose((), ("de",)) is None
    assert choose((("ja", "x"),), ("de",)) == ("ja", "x")
    assert choose((("en", "e"), ("ja", "x")), ("de",)) == ("en", "e")

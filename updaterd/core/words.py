# SPDX-License-Identifier: Apache-2.0
"""What a machine remembers and never lowers, and who said it.

A floor, a version, a time: each is the word of a role, signed by some keys, heard
under some root. It counts for as long as those keys may speak for that role. When
the owner takes a stolen key out, what the thief said with it goes too
(docs/decisions/0019).
"""

from collections.abc import Iterable, Mapping

from updaterd.core.dataclass import dataclass

ROOT = "root"
TARGETS = "targets"
TIMESTAMP = "timestamp"
EVERYBODYS = (ROOT, TARGETS, TIMESTAMP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speakers:
    """Who may speak for a role now: key ids, and how many of them must."""

    keys: frozenset[str]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a role said, as heard.

    Attributes:
        role: who: `root`, `targets`, `timestamp`, PRODUCT.CHANNEL, PRODUCT.releases.
        root_version: of the root that was trusted when it was heard.
        version: of the role's metadata.
        keys: ids of the keys that signed it; empty: an older updaterd did not note
            them, so that the word ends with the root it was heard under.
        floor: the lowest `seq` acceptable from then on.
        time: Unix seconds that had surely passed.
    """

    role: str
    root_version: int
    version: int
    keys: frozenset[str]
    floor: int = 0
    time: float = 0.0

    @property
    def place(self) -> tuple[int, int]:
        """Return what orders the words of a role."""
        return self.root_version, self.version


def counts(word: Word, speakers: Speakers | None, *, root_version: int) -> bool:
    """Tell whether a word still stands.

    Args:
        word: as heard.
        speakers: who may speak for its role now; None: there is no such role.
        root_version: of the root that is trusted now.
    """
    if word.role == ROOT:
        return True  # each root is signed by the one before: none can be skipped
    if not word.keys:
        return word.root_version >= root_version
    if speakers is None:
        return False
    return len(word.keys & speakers.keys) >= speakers.threshold


def standing(
    words: Iterable[Word], speakers: Mapping[str, Speakers], *, root_version: int
) -> tuple[Word, ...]:
    """Return the words that still count."""
    return tuple(
        word
        for word in words
        if counts(word, speakers.get(word.role), root_version=root_version)
    )


def step_back(now: Iterable[Word], heard: Iterable[Word]) -> tuple[Word, Word] | None:
    """Return what is older now than what was heard before from the same role.

    Args:
        now: the words at hand.
        heard: the words that still count.
    """
    at_hand = {word.role: word for word in now}
    for old in sorted(heard, key=lambda word: word.role != ROOT):
        new = at_hand.get(old.role)
        if new is None:
            continue
        if new.place < old.place:
            return new, old
    return None


def lowest(words: Iterable[Word]) -> int:
    """Return the lowest `seq` that these words allow."""
    return max((word.floor for word in words), default=0)


def passed(words: Iterable[Word]) -> float:
    """Return the time that has surely passed: what the newest timestamp says.

    The newest, not the latest: a publisher whose clock was ahead puts it right by
    signing again.
    """
    timed = [word for word in words if word.time]
    return max(timed, key=lambda word: word.place).time if timed else 0.0

# SPDX-License-Identifier: Apache-2.0
"""Which notices a person gets: one when something is ready, and never twice.

Pure: states of products (`Product` of the interface) in, notices out.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from updaterd.core.dataclass import dataclass
from updaterd.core.units import format_duration

BEFORE_S = 3600.0
"""So long before a release is activated whatever asks it to wait, that is told."""

READY, DEADLINE, ROLLED_BACK, NEWS = "ready", "deadline", "rolled_back", "news"
_APPLY, _TONIGHT = ("apply", "Restart now"), ("tonight", "Tonight")
_WORDS, _VERSIONS = ("state", "code", "reason"), ("installed", "target", "ready")
_NEVER = 1 << 53
_POLITE = frozenset({"waits_for_request", "waits_for_exit", "waits_for_window"})


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to show.

    Attributes:
        key: product, kind and release: shown once.
        actions: what a person may choose: a key, and its words.
    """

    key: tuple[str, str, str]
    title: str
    body: str
    actions: tuple[tuple[str, str], ...] = ()


def is_about(state: object, product: str) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether what came is a state of this product.

    The daemon of one publisher's kit must not speak of another's, nor end who listens.
    """
    if not isinstance(state, Mapping) or state.get("name") != product:
        return False
    deadline = state.get("deadline", "")
    return (
        all(isinstance(state.get(name), str) for name in _WORDS)
        and all(isinstance(state.get(name, 0), str | None) for name in _VERSIONS)
        and (deadline is None or (isinstance(deadline, int) and 0 <= deadline < _NEVER))
    )


class Notices:
    """What was shown, and what is.

    Args:
        shown: keys of what was shown before, also by an earlier process.
    """

    def __init__(self, shown: Iterable[tuple[str, str, str]] = ()) -> None:
        self.shown = set(shown)
        self._states: dict[str, Mapping[str, Any]] = {}
        self._news: dict[str, str] = {}

    def learn(self, state: Mapping[str, Any], news: str = "") -> None:
        """Take note of how a product stands, and what the release brings."""
        self._states[state["name"]] = state
        self._news[state["name"]] = news

    def new(self, now: float) -> list[Notice]:
        """Return what is to be shown now, each once in a lifetime."""
        fresh = [
            notice
            for state in self._states.values()
            for notice in _of(state, now, has_news=bool(self._news[state["name"]]))
            if notice.key not in self.shown
        ]
        self.shown |= {notice.key for notice in fresh}
        return fresh

    def news(self, product: str) -> Notice | None:
        """Return what is to be shown when a person asks what is new: each time."""
        state, text = self._states.get(product), self._news.get(product)
        if state is None or not text or not state["ready"]:
            return None
        return Notice(
            (product, NEWS, state["ready"]),
            f"What's new in {_title(product)} {state['ready']}",
            text,
            (_APPLY, _TONIGHT),
        )

    def is_over(self, key: tuple[str, str, str]) -> bool:
        """Tell whether what a notice is about is done, or is otherwise by now."""
        product, kind, version = key
        state = self._states.get(product)
        if state is None or kind == ROLLED_BACK:
            return state is not None and bool(state["state"] == "current")
        return bool(state["ready"] != version)

    def next_at(self, now: float) -> float | None:
        """Return when there may be something new without a change of any product."""
        moments = [
            state["deadline"] - BEFORE_S
            for state in self._states.values()
            if state["ready"] and state["deadline"]
        ]
        return min((moment for moment in moments if moment > now), default=None)


def _title(product: str) -> str:
    return product.replace("-", " ").capitalize()


def _of(state: Mapping[str, Any], now: float, *, has_news: bool) -> list[Notice]:
    name, version = state["name"], state["ready"]
    shown = _title(name)
    if state["state"] == "rolled_back":
        failed = state["target"] or ""
        runs = state["installed"] or "the release before"
        return [
            Notice(
                (name, ROLLED_BACK, failed),
                f"{shown} {failed} did not work here",
                f"{runs} runs again. {state['reason']}",
            )
        ]
    if not version:
        return []
    more = (("news", "What's new"),) if has_news else ()
    deadline = state["deadline"]
    if deadline and deadline - now <= BEFORE_S:
        rest = format_duration(max(0.0, deadline - now))
        title = f"{shown} {version} is activated in {rest}"
        body = "It has waited as long as it may. Save your work, or restart now."
        return [Notice((name, DEADLINE, version), title, body, (_APPLY, *more))]
    if state["code"] not in _POLITE:
        return []  # postponed, or the application asks for quiet: who knows is not told
    return [
        Notice(
            (name, READY, version),
            f"{shown} {version} is ready",
            _sentence(state["reason"].partition(": ")[2] or state["reason"]),
            (_APPLY, _TONIGHT, *more),
        )
    ]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."

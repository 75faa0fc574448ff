# SPDX-License-Identifier: Apache-2.0
"""One large JSON object, read through a window: never whole, never as one tree.

A parser that builds what it reads takes a hundred bytes for two (`{},`), so a document
of a few megabytes can take a gigabyte, in members that nobody asked for. Here each
item of an array is parsed by itself and handed over at once; what nobody knows is
passed over without being built. Strings and items have a limit each, and so has the
number of values in all, which is counted first.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import AnyStr, NoReturn

from updaterd.core import json_fields
from updaterd.errors import MalformedError

Read = Callable[[int, int], bytes]
"""Returns up to so many bytes (the second) from a place on; none at the end."""

MAX_VALUE = 64 * 1024
"""Most characters of one item, or of a string anywhere."""
MAX_NAMES = 64
"""Most members of the object itself."""
_PIECE = 192 * 1024

_SPACE = re.compile(r"[ \t\n\r]*+")
# Up to the next bracket; possessive, so nothing is read twice.
_RUN = re.compile(r'(?:[^\[\]{}"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_CLOSES = {"]": "[", "}": "{"}


def of(raw: bytes) -> Read:
    """Return what reads from bytes at hand."""
    return lambda at, count: raw[at : at + count]


def _end(pattern: re.Pattern[AnyStr], text: AnyStr, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def check_count(read: Read, where: str, most: int) -> None:
    """Refuse a crowd of values before anything is made of them.

    Raises:
        MalformedError: more than `most` items, members and containers together, or a
            string without end.
    """
    at = marks = 0
    while piece := read(at, _PIECE):
        at += len(piece)
        marks += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
    if marks <= most:
        return
    at = count = 0
    rest = b""
    while piece := read(at, _PIECE):  # again, without those inside of strings
        at += len(piece)
        rest = _STRING.sub(b"", rest + piece)
        begun = rest.find(b'"')  # a string that goes on behind the piece
        marked = rest if begun < 0 else rest[:begun]
        count += marked.count(b",") + marked.count(b"[") + marked.count(b"{")
        rest = rest[len(marked) :]
        if count > most:
            raise MalformedError(
                f"{where} holds more than {most} values", code="too_large"
            )
        if len(rest) > MAX_VALUE * 4:
            raise MalformedError(f"{where} has a string without end", code="too_large")


class JsonWindow:
    """A JSON object whose members are taken one after the other.

    For each name that `members` yields, exactly one of `value`, `items` and `skip`
    must be called, and `items` be read to its end.

    Args:
        read: the bytes.
        where: what the document is, for messages.
    """

    def __init__(self, read: Read, where: str) -> None:
        self._read = read
        self.where = where
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._from = 0  # bytes taken so far
        self._text, self._at = "", 0
        self._ended = False

    def members(self) -> Iterator[str]:
        """Yield the name of each member.

        Raises:
            MalformedError: it is not an object, a name stands twice, there are too
                many, or something follows it.
        """
        if self._next() != "{":
            raise MalformedError(f"{self.where} is not a JSON object")
        self._at += 1
        names: set[str] = set()
        more = not self._takes("}")
        while more:
            name = self.value()
            if not isinstance(name, str) or name in names or len(names) >= MAX_NAMES:
                self._refuse(
                    "a name occurs twice or is not valid, or there are too many"
                )
            names.add(name)
            self._need(":")
            yield name
            more = self._takes(",")
            if not more:
                self._need("}")
        if self._next():
            self._refuse("something follows its end")

    def value(self) -> object:
        """Return a value that is small.

        Raises:
            MalformedError: it is not JSON, nests too deep, or is not small.
        """
        self._next()
        self._fill()
        try:
            value, end = json_fields.DECODER.raw_decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            self._refuse(f"{reason}, or more than {MAX_VALUE} characters in one value")
        if end - self._at >= MAX_VALUE:
            raise MalformedError(
                f"{self.where} has a value of more than {MAX_VALUE} characters",
                code="too_large",
            )
        json_fields.check_depth(self._text[self._at : end], self.where)
        self._at = end
        return value

    def items(
        self, most: int, *, like: re.Pattern[str] | None = None
    ) -> Iterator[object]:
        """Yield each item of an array.

        Args:
            most: how many there may be.
            like: what almost all of them look like: of one that matches the groups are
                yielded, a tuple, and it is not parsed. Every match must be a JSON
                value that the parser would take, and end where that ends.

        Raises:
            MalformedError: it is none, or has more than `most` items.
        """
        if self._next() != "[":
            self._refuse("what must be an array is not one")
        self._at += 1
        if self._takes("]"):
            return
        count = 0
        while True:
            count += 1
            if count > most:
                raise MalformedError(
                    f"{self.where} has an array of more than {most} items",
                    code="too_large",
                )
            match = like.match(self._text, self._at) if like else None
            if match:
                self._at = match.end()
                yield match.groups()
                if self._text.startswith(",", self._at):
                    self._at += 1
                    continue
            else:
                yield self.value()
            if not self._takes(","):
                self._need("]")
                return

    def skip(self) -> None:
        """Pass over a value of any size, of which nothing is built.

        What is in it need only be strings and brackets that match.

        Raises:
            MalformedError: it has no end, or nests too deep.
        """
        if self._next() not in ("[", "{"):
            self.value()
            return
        open_ = ""
        while True:
            self._fill()
            self._at = _end(_RUN, self._text, self._at)
            self._fill()
            character = self._text[self._at : self._at + 1]
            if character and character in "[{":
                open_ += character
                if len(open_) > json_fields.MAX_DEPTH:
                    json_fields.check_depth(open_, self.where)
            elif character in _CLOSES and open_[-1:] == _CLOSES[character]:
                open_ = open_[:-1]
            elif character != '"' or _end(_RUN, self._text, self._at) == self._at:
                self._refuse("it ends too early, or a string is too long")
            else:
                continue
            self._at += 1
            if not open_:
                return

    def _fill(self) -> None:
        """Have so many characters at hand that any value ends within them."""
        while not self._ended and len(self._text) - self._at <= MAX_VALUE:
            raw = self._read(self._from, _PIECE)
            self._from += len(raw)
            self._ended = not raw
            try:
                more = self._decoder.decode(raw, final=self._ended)
            except UnicodeDecodeError as error:
                self._refuse(f"it is not UTF-8: {error.reason}")
            self._text = self._text[self._at :] + more
            self._at = 0

    def _next(self) -> str:
        """Go to what comes next; return its first character, or nothing at the end."""
        while True:
            self._fill()
            self._at = _end(_SPACE, self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""

    def _takes(self, character: str) -> bool:
        is_next = self._next() == character
        self._at += is_next
        return is_next

    def _need(self, character: str) -> None:
        if not self._takes(character):
            self._refuse(f"{character} is missing")

    def _refuse(self, why: str) -> NoReturn:
        raise MalformedError(f"{self.where} is not valid JSON: {why}")

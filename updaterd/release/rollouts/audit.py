# SPDX-License-Identifier: Apache-2.0
"""The audit log: one line for each signed act, and each line holds the hash before it.

`audit.jsonl` lies beside the repository and is never published. Nothing in it can be
changed, left out or cut off unseen: the role of the channel that an act changed carries
how many lines there were and the hash of the last one, signed by the online key. A
line is written before what it tells of is signed. So what was signed has its line,
whatever dies in between; an act that died before it was signed leaves a line too many.

An approval cannot enter its line into the role, which others have signed before: the
next act's line holds it.

Another workspace of the same repository keeps a log of its own. Each is known by the
hash of its first line.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from updaterd import durable
from updaterd.core import layout
from updaterd.core.channel import ChannelPointer
from updaterd.core.json_fields import encode
from updaterd.release.repository.catalog import Catalog
from updaterd.release.repository.metadata import Repository

FILE = "audit.jsonl"
FIELD = "x-updaterd-audit"
APPROVE = "approve"
SCHEMA = 1
_LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that is signed.

    Attributes:
        act: what, such as `push` or `halt`.
        pointer: what the channel says then.
        version: the release that it is about.
        why: a person's reason, or the decision's.
        counts: what it was decided on; None: a person decided.
        is_in_role: the channel's role is signed with it; False: it was signed before.
    """

    act: str
    pointer: ChannelPointer
    version: str = ""
    why: str = ""
    counts: Mapping[str, object] | None = None
    is_in_role: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What an audit log comes to.

    Attributes:
        lines: as they are, oldest first; those from a broken one on are left out.
        faults: what was changed, left out or cut off.
        notes: what a person should know besides.
    """

    lines: tuple[dict[str, Any], ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def record(
    folder: Path,
    repository: Repository,
    acts: Sequence[Act],
    *,
    actor: str,
    now: datetime,
) -> None:
    """Write a line for each act, and enter the last one's hash in the channels' roles.

    To be called with the workspace locked, right before the repository is committed.

    Args:
        folder: the workspace.
        repository: whose channels the acts change, not committed yet.
        acts: what will be signed.
        actor: who decided it.
        now: when.

    Raises:
        OSError: the disk refused.

    Power cut: some of the lines are there, whole; a torn one is cut off by the next.
    """
    path = folder / FILE
    log, count, last = _end_of(path)
    written = b""
    for act in acts:
        count += 1
        line = encode({
            "schema": SCHEMA,
            "n": count,
            "at": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "who": actor,
            "act": act.act,
            "product": act.pointer.product,
            "channel": act.pointer.channel,
            "version": act.version,
            "why": act.why,
            "counts": act.counts,
            "offers": {
                offer.version: offer.rollout.permille for offer in act.pointer.releases
            },
            "paused": act.pointer.paused,
            "pointer": _digest(encode(act.pointer.as_custom())),
            "previous": last,
        })
        written += line
        last = _digest(line)
        log = log or last
        if act.is_in_role:
            head = {"log": log, "count": count, "hash": last}
            role = layout.channel_role(act.pointer.product, act.pointer.channel)
            with repository.edit(role) as signed:
                signed.unrecognized_fields[FIELD] = head
    if written:
        durable.append(path, written, mode=0o640)


def read(folder: Path) -> Verified:
    """Return the lines of a workspace's log, as far as each holds the one before.

    Raises:
        OSError: it cannot be read.
    """
    try:
        raw = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return Verified(lines=())
    lines: list[dict[str, Any]] = []
    previous = ""
    for number, text in enumerate(raw.splitlines(keepends=True), 1):
        if not text.endswith(b"\n"):
            note = f"line {number} is torn: its act was never signed"
            return Verified(lines=tuple(lines), notes=(note,))
        line = _parsed(text)
        if line is None or line.get("n") != number or line["previous"] != previous:
            fault = f"line {number} is not what was written after line {number - 1}"
            return Verified(lines=tuple(lines), faults=(fault,))
        lines.append(line)
        previous = _digest(text)
    return Verified(lines=tuple(lines))


def verify(
    folder: Path, catalogs: Iterable[Catalog], *, shared: bool = False
) -> Verified:
    """Compare a log with what the channels' roles, and the channels, say.

    Args:
        folder: the workspace.
        catalogs: of its repository.
        shared: other workspaces act on these channels, too, with logs of their own.

    Raises:
        OSError: it cannot be read.
    """
    entries = read(folder)
    hashes = [_digest(encode(line)) for line in entries.lines]
    faults, notes = list(entries.faults), list(entries.notes)
    for catalog in catalogs:
        for channel in catalog.channels():
            pointer, head = catalog.pointer(channel), catalog.member(channel, FIELD)
            where = f"{catalog.product}/{channel}"
            if not pointer.releases:
                continue
            if not isinstance(head, dict):
                notes.append(f"{where} was signed last without an audit log")
            elif not hashes or head.get("log") != hashes[0]:
                sentence = f"the last act on {where} is in another log than this"
                (notes if shared else faults).append(sentence)
            else:
                fault = _fault(pointer, head, entries.lines, hashes)
                faults += [f"{where}: {fault}"] if fault else []
                if not fault:
                    notes += _unsigned(pointer, entries.lines[head["count"] :])
    return Verified(lines=entries.lines, faults=tuple(faults), notes=tuple(notes))


def _fault(
    pointer: ChannelPointer,
    head: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    hashes: Sequence[str],
) -> str:
    """Return what contradicts what a channel was signed with; "" if nothing does."""
    count = head.get("count")
    if type(count) is not int or not 1 <= count <= len(hashes):
        return f"it was signed when the log had {count} lines, and some are gone"
    if head.get("hash") != hashes[count - 1]:
        return f"line {count} is not the one that was signed with it"
    if lines[count - 1]["pointer"] != _digest(encode(pointer.as_custom())):
        return "it says what no line tells of: somebody signed it elsewhere"
    return ""


def _unsigned(
    pointer: ChannelPointer, later: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    """Return what is to be said of lines after the one that was signed last."""
    where, digest = (
        (pointer.product, pointer.channel),
        _digest(encode(pointer.as_custom())),
    )
    for line in later:
        if line["act"] == APPROVE and line["pointer"] == digest:
            continue  # of what is published
        if (line["product"], line["channel"]) == where:
            yield (
                f"line {line['n']} tells of an act that is not published: it was cut "
                "short, or is only proposed"
            )


def _end_of(path: Path) -> tuple[str, int, str]:
    """Return a log's name, how many lines it has, and the last one's hash.

    Cuts off a line that was not written to its end.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return "", 0, ""
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        durable.write_file(path, whole, mode=0o640)
    if not whole:
        return "", 0, ""
    lines = whole.splitlines(keepends=True)
    return _digest(lines[0]), len(lines), _digest(lines[-1])


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Return a line; None where it is none of ours."""
    if len(text) > _LONGEST:
        return None
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or line.get("schema") != SCHEMA:
        return None
    texts = ("at", "who", "act", "product", "channel", "version", "why", "pointer",
             "previous")  # fmt: skip
    if any(type(line.get(name)) is not str for name in texts) or encode(line) != text:
        return None
    return line


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

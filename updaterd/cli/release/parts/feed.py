# SPDX-License-Identifier: Apache-2.0
"""Announcing to the feed what was published."""

import argparse
import os
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import output

if TYPE_CHECKING:
    from updaterd.core.channel import ChannelPointer
    from updaterd.release.announce import Announced
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


def _feed(arguments: argparse.Namespace, workspace: "Workspace") -> str | None:
    address: str | None = arguments.feed or workspace.settings.feed
    return address


def _token(arguments: argparse.Namespace, workspace: "Workspace") -> str:
    from updaterd.release import identity

    stored = _stored_token(arguments, workspace)
    return stored or identity.request_identity(
        os.environ, _audience(arguments), arguments.oidc_ca_file
    )


def _audience(arguments: argparse.Namespace) -> str:
    from updaterd.core.identity import AUDIENCE

    audience: str | None = arguments.oidc
    return audience or os.environ.get("UPDATERD_OIDC_AUDIENCE") or AUDIENCE


def _stored_token(arguments: argparse.Namespace, workspace: "Workspace") -> str:
    """Return the stored token, or "" where an identity token is used instead.

    Raises:
        BrokenError: there is neither.
    """
    from updaterd.release import announce, identity

    if arguments.oidc is not None:
        identity.check_offered(os.environ)
        return ""
    file = arguments.token_file
    if file is None and workspace.settings.token_file:
        file = workspace.folder / workspace.settings.token_file
    token = announce.find_token(file, os.environ)
    if token or identity.is_offered(os.environ):
        return token
    return announce.read_token(file, os.environ)


def check(arguments: argparse.Namespace, workspace: "Workspace") -> None:
    """Make sure, before anything is published, that the feed could be told.

    Raises:
        BrokenError: its address is not safe, there is no token, or no CA where one
            was named.
    """
    feed = _feed(arguments, workspace)
    if feed is not None and not arguments.no_announce:
        from updaterd.net import require_secure, tls_context

        require_secure(feed)
        _stored_token(arguments, workspace)  # an identity's would be old by then
        if arguments.ca_file is not None:
            tls_context(arguments.ca_file)


def announce(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    repository: "Repository",
    pointer: "ChannelPointer | None",
    again: str = "the same command again",
) -> None:
    """Announce what was published.

    Args:
        arguments: whom to tell.
        workspace: whom to tell, where the arguments do not say.
        repository: what was published.
        pointer: the channel that changed; None: metadata alone.
        again: what tells the feed later.

    Raises:
        UpdaterError: the feed could not be told; the publication stands, and the
            error says so.
    """
    feed = _feed(arguments, workspace)
    if arguments.no_announce:
        return
    if feed is None:
        print("not announced: no feed is configured (--feed); machines will poll")
        return
    from updaterd.errors import TransientError, UpdaterError
    from updaterd.release.announce import OlderError

    try:
        announced = _send(arguments, workspace, feed, repository, pointer)
        print(announced)
        before = arguments.answer.get("announced", [])
        output.answer(arguments, announced=[*before, *announced_as(announced)])
    except UpdaterError as error:
        error.means = (
            "it is published, and the feed was not told: machines find it when they "
            "look by themselves"
        )
        if isinstance(error, OlderError):
            error.means = (
                "it is published, and machines that heard of what the feed knows will "
                "take nothing of it: was this repository restored from a backup?"
            )
            raise
        if isinstance(error, TransientError) and not error.code.startswith("http_"):
            error.do = "see to the feed and the way to it"
        if arguments.feed and again.endswith("`"):
            again = f"{again[:-1]} --feed {arguments.feed}`"
        error.do = f"{error.do}; then run {again}, which tells the feed"
        raise


def _send(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    feed: str,
    repository: "Repository",
    pointer: "ChannelPointer | None",
) -> "Announced | str":
    from updaterd.net import Fetcher, require_secure
    from updaterd.release import announce as announcing

    require_secure(feed)
    token = _token(arguments, workspace)
    with Fetcher(ca_file=arguments.ca_file) as fetcher:
        try:
            body = announcing.body_of(pointer, repository.pushed())
            announced = announcing.announce(fetcher, feed, token, body)
        except announcing.OlderError as error:
            if not repository.is_overtaken():
                error.do = (
                    "`updaterd release recover` continues past the published copy"
                )
                raise
            # Another publisher was faster: its metadata covers ours too.
            if pointer is None:
                return f"{feed} knows newer metadata already"
            body = announcing.body_of(pointer, None)
            announced = announcing.announce(fetcher, feed, token, body)
    return announced


def announced_as(announced: "Announced | str") -> list[dict[str, object]]:
    """Return what the feed answered, for programs; nothing, where nothing was new."""
    if isinstance(announced, str):
        return []
    return [{"id": announced.id, "feed": announced.url, "streams": announced.streams}]

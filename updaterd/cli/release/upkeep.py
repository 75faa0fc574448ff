# SPDX-License-Identifier: Apache-2.0
"""`updaterd release status|refresh|verify|gc`: keep a repository fit."""

import argparse
import sys
from contextlib import suppress
from datetime import timedelta
from itertools import groupby

from updaterd.cli.release import common
from updaterd.core import layout


def configure(commands: common.Subcommands) -> None:
    """Declare the arguments."""
    status = common.add(
        commands, "status", run_status, "show roles, keys, expiries, channels, releases"
    )
    refresh = common.add(
        commands,
        "refresh",
        run_refresh,
        "sign the timestamp anew, and what nears its expiry",
        "Run it daily from a timer. Exit code 20: some role's keys are not here.\n",
    )
    common.add_feed(refresh)
    verify = common.add(
        commands, "verify", run_verify, "check every signature, manifest and blob"
    )
    verify.add_argument(
        "--deep",
        action="store_true",
        help="hash every blob, and apply it as a machine would",
    )
    gc = common.add(
        commands,
        "gc",
        run_gc,
        "delete files that nothing refers to",
        "What is not of the repository's making (a site's pages) is never touched.\n",
    )
    gc.add_argument(
        "--older-than-days",
        type=float,
        default=7.0,
        metavar="DAYS",
        help="days since nothing refers to them, as `gc` and `refresh` noted it "
        "(default, and at least: 7, as long as a machine's metadata counts)",
    )
    gc.add_argument("--dry-run", action="store_true", help="only list them")
    for parser in (status, refresh, verify, gc):
        common.add_workspace(parser)


def run_status(arguments: argparse.Namespace) -> int:
    """Show how things stand."""
    from updaterd.cli.release.channel import show
    from updaterd.release import publish
    from updaterd.release.keychange import change as keychange
    from updaterd.release.repository import catalog
    from updaterd.release.upkeep import care

    workspace = common.open_workspace(arguments)
    now = common.clock()
    repository = common.opened(workspace)
    roles = care.report(workspace, repository, now)
    listing = {
        name: publish.catalog_of(workspace, repository, name)
        for name in catalog.products(repository)
    }
    common.answer(
        arguments,
        profile=workspace.settings.profile,
        roles=[
            {
                "name": role.name,
                "version": role.version,
                "expires": f"{role.expires:%Y-%m-%dT%H:%M:%SZ}",
                "days_left": round(role.days_left, 2),
                "threshold": role.threshold,
                "keys": role.keys,
                "keys_here": role.here,
                "warning": role.warning,
            }
            for role in roles
        ],
        products={
            name: {
                "channels": [
                    each.pointer(channel).as_custom() for channel in each.channels()
                ],
                "releases": [
                    {
                        "version": one.version,
                        "seq": one.seq,
                        "platform": one.platform,
                        "archived": layout.is_archive(one.role),
                    }
                    for one in each.listed()
                ],
            }
            for name, each in listing.items()
        },
    )
    print(f"{'role':<24} {'version':>7} {'days left':>9}  keys")
    for role in roles:
        keys = f"{role.threshold} of {', '.join(role.keys)} ({role.here} here)"
        note = f"  ! {role.warning}" if role.warning else ""
        print(f"{role.name:<24} {role.version:>7} {role.days_left:>9.1f}  {keys}{note}")
    for one in keychange.waiting(workspace):
        print(f"a change of keys waits: {one.path}: {one.missing}")
    for each in listing.values():
        for channel in each.channels():
            show(each.pointer(channel))
    for name, each in listing.items():
        print(f"{name}: releases, newest first")
        for release, some in groupby(each.listed(), lambda one: (one.version, one.seq)):
            print("  {} (seq {}): ".format(*release), end="")
            print(", ".join(sorted(one.platform for one in some)))
    return 0


def run_refresh(arguments: argparse.Namespace) -> int:
    """Sign what needs it."""
    from updaterd.cli import EXIT_DEGRADED
    from updaterd.errors import UpdaterError
    from updaterd.release.upkeep import care, garbage

    workspace = common.open_workspace(arguments)
    now = common.clock()
    with workspace.locked():
        repository = common.current(arguments, workspace)
        signed, missing = care.refresh(workspace, repository, now)
        with suppress(UpdaterError):  # a damaged file: `verify` says which
            garbage.note(workspace, repository)
    print(f"signed: {', '.join(signed)}")
    common.answer(arguments, signed=signed, missing=missing)
    for line in missing:
        print(f"not signed: {line}", file=sys.stderr)
    if arguments.feed or workspace.settings.feed:
        common.tell_feed(
            arguments, workspace, repository, None, again="`updaterd release refresh`"
        )
    return EXIT_DEGRADED if missing else 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Check everything."""
    from updaterd.cli import EXIT_ERROR
    from updaterd.release.upkeep import care

    workspace = common.open_workspace(arguments)
    repository = common.opened(workspace)
    problems = care.verify(workspace, repository, deep=arguments.deep)
    for line in problems:
        print(line, file=sys.stderr)
    common.answer(arguments, problems=problems)
    print(f"{len(problems)} problems" if problems else "all well")
    return EXIT_ERROR if problems else 0


def run_gc(arguments: argparse.Namespace) -> int:
    """Delete what nothing refers to."""
    from updaterd.release.upkeep import garbage

    workspace = common.open_workspace(arguments)
    now = common.clock()
    days = max(arguments.older_than_days, garbage.LEAST_DAYS)
    with workspace.locked():
        repository = common.opened(workspace)
        paths = garbage.collectable(workspace, repository, now - timedelta(days=days))
        freed = sum(path.stat().st_size for path in paths)
        for path in paths:
            if arguments.dry_run:
                print(path)
            else:
                path.unlink()
    common.answer(
        arguments,
        files=[str(path) for path in paths],
        bytes=freed,
        deleted=not arguments.dry_run,
    )
    word = "could delete" if arguments.dry_run else "deleted"
    print(f"{word} {len(paths)} files, {freed:,} bytes")
    if days > arguments.older_than_days:
        print(
            f"what was referred to in the last {days:g} days stays: machines may still "
            "go by metadata of that age"
        )
    return 0

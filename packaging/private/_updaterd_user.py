# SPDX-License-Identifier: Apache-2.0
"""Become the daemon's user, in a clean process: for whatever root types.

What that user may write may run as that user, and gets nothing of root's on the way:
no terminal (a process that holds one can type into it), no working directory, no open
file, no keys of root's session, and of the environment and of what is typed only what
is named to `run`. What it prints comes back through pipes, to a terminal as plain text.

Imported by /usr/bin/updaterd, the self-test and the guard. The standard library only.
"""

import codecs
import contextlib
import ctypes
import os
import platform
import pwd
import re
import selectors
import signal
import subprocess
import sys

KEPT = ("LANG", "LANGUAGE", "TZ", "COLUMNS", "LINES", "NO_COLOR")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# control characters but tab and the ends of lines, and those that turn text around
CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
CLEAR = "\x1b[2J\x1b[H"  # what `status --watch` begins each page with
KEYCTL = {"x86_64": 250, "aarch64": 219}
JOIN_SESSION_KEYRING = 1


def owner_of(*places):
    """Return the user whom the first of the places belongs to that is not root's."""
    for place in places:
        try:
            owner = pwd.getpwuid(os.lstat(place).st_uid)
        except (OSError, KeyError):
            continue
        if owner.pw_uid != 0:
            return owner
    return None


def environment(owner, own, keep=()):
    """Return what the process finds in its environment."""
    words = {name: own[name] for name in (*KEPT, *keep) if name in own}
    words |= {name: word for name, word in own.items() if name.startswith("LC_")}
    for name in PROXIES:
        for spelt in (name, name.upper()):
            # one with a password is root's to know; the daemon has its configuration
            if spelt in own and "@" not in own[spelt]:
                words[spelt] = own[spelt]
    return {
        "PATH": PATH,
        "HOME": owner.pw_dir,
        "USER": owner.pw_name,
        "LOGNAME": owner.pw_name,
        **words,
    }


def run(owner, argv, *, keep=(), more=None, typed=b""):
    """Run a command as `owner`, hand on what it says; return its exit code.

    Args:
        owner: the user, as `pwd` knows him.
        argv: the command.
        keep: further names of the environment that are handed on.
        more: added to it.
        typed: what it finds on its standard input, less than a pipe holds.
    """
    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={**environment(owner, os.environ, keep), **(more or {})},
        user=owner.pw_uid,
        group=owner.pw_gid,
        extra_groups=os.getgrouplist(owner.pw_name, owner.pw_gid),
        umask=0o022,
        start_new_session=True,
        preexec_fn=leave_keys,  # noqa: PLW1509 - this process has no threads
    )
    for number in FORWARDED:
        signal.signal(number, lambda which, _: child.send_signal(which))
    with contextlib.suppress(BrokenPipeError), child.stdin:
        child.stdin.write(typed)
    relay(child)
    code = child.wait()
    return 128 - code if code < 0 else code


def leave_keys():
    """Join a new session keyring: the old one would hand out root's keys."""
    number = KEYCTL.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, JOIN_SESSION_KEYRING, None)


def relay(child):
    """Hand on what the child says until it has ended, whoever else holds its pipes."""
    ended = os.pidfd_open(child.pid)
    with selectors.DefaultSelector() as waiting:
        for source, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
            os.set_blocking(source.fileno(), False)
            waiting.register(source, selectors.EVENT_READ, Outlet(target))
        waiting.register(ended, selectors.EVENT_READ)
        over = False
        while not over and len(waiting.get_map()) > 1:
            ready = waiting.select()
            over = any(key.data is None for key, _ in ready)
            for key in [key for key, _ in ready if key.data is not None]:
                if not hand_on(key.fileobj, key.data):
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
        for key in list(waiting.get_map().values()):
            if key.data is not None:
                hand_on(key.fileobj, key.data)
                key.fileobj.close()
    os.close(ended)


def hand_on(source, outlet):
    """Hand on what there is; tell whether more may come."""
    while True:
        try:
            data = os.read(source.fileno(), 65536)
        except BlockingIOError:
            return True
        try:
            outlet.write(data)
        except OSError:  # who reads us left, or the disk is full: as if it were closed
            return False
        if not data:
            return False


class Outlet:
    """One of our own streams; a terminal gets no character that steers it."""

    def __init__(self, stream):
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self.plain = stream is not None and stream.isatty()

    def write(self, data):
        if self.stream is None:
            return
        if not self.plain:
            with contextlib.suppress(AttributeError):
                self.stream.buffer.write(data)
                self.stream.buffer.flush()
                return
        text = self.decoder.decode(data, final=not data)
        pages = text.split(CLEAR)
        self.stream.write(CLEAR.join(CONTROL.sub(spell, page) for page in pages))
        self.stream.flush()


def spell(match):
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"

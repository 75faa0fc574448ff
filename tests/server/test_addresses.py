# SPDX-License-Identifier: Apache-2.0
"""Whom a request counts for, whatever stands in front of the server."""

import subprocess
import sys

import pytest
from fakes.serving import Reader
from hypothesis import given
from hypothesis import strategies as st

from updaterd.server.client_address import Proxies, limit_key, read_network


@pytest.mark.parametrize(
    ("text", "as_"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("192.0.2.1:5000", "192.0.2.1"),
        ("[2001:db8::1]:5000", "2001:db8::"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("", ""),
        ("x" * 1000, "x" * 40),
    ],
)
def test_clients_are_told_apart_as_far_as_they_are_apart(text, as_):
    """IPv4 behind a dual-stack socket stays one client each; a /64 is one client."""
    assert limit_key(text) == as_


@pytest.mark.parametrize(
    ("networks", "address", "trusted"),
    [
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.5"], "10.0.0.5", True),
        (["10.0.0.5"], "10.0.0.50", False),
        (["2001:db8::/32"], "2001:db8:5::1", True),
        (["2001:db8::/32"], "10.0.0.1", False),
        (["::ffff:10.0.0.0/104"], "10.1.2.3", True),
        (["192.0.2.1", "10.0.0.0/8"], "10.1.2.3", True),
        (["0.0.0.0/0"], "nonsense", False),
        ([], "10.0.0.1", False),
    ],
)
def test_networks_hold_their_addresses(networks, address, trusted):
    """CIDR, both families, and nothing beside."""
    assert Proxies(networks).trust(address) is trusted


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], "10.0.0.1"),
        (["198.51.100.7"], "198.51.100.7"),
        # what the client wrote itself stands left of what our proxies wrote
        (["192.0.2.66", "198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7", " 10.9.9.9"], "198.51.100.7"),
        (["10.8.8.8", "10.9.9.9"], "10.8.8.8"),
        (["198.51.100.7", "unknown"], "10.0.0.1"),
        (["198.51.100.7:4711"], "198.51.100.7"),
        (["[2001:db8::5]:4711"], "2001:db8::"),
        ([""], "10.0.0.1"),
    ],
)
def test_client_is_the_nearest_address_that_is_no_proxy(forwarded, client):
    """Our proxies are believed, one after the other; nobody else."""
    assert Proxies(["10.0.0.0/8"]).client("10.0.0.1", forwarded) == client


def test_stranger_is_not_believed():
    """Who connects directly cannot choose whom it counts for."""
    proxies = Proxies(["10.0.0.0/8"])
    assert proxies.client("203.0.113.1", ["198.51.100.7"]) == "203.0.113.1"


@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=4))
def test_any_header_gives_a_short_name(peer, forwarded):
    """Nothing that is sent breaks the count, or makes it long."""
    assert len(Proxies(["0.0.0.0/0", "::/0"]).client(peer, forwarded)) <= 40


@pytest.mark.parametrize("text", ["10.0.0.5/8", "10.0.0.0/33", "proxy", "", "10.0"])
def test_network_that_is_none_is_refused_at_the_start(text, tmp_path):
    """Not at the first request, when nobody looks."""
    with pytest.raises(ValueError, match=r".*"):
        read_network(text)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "updaterd", "serve", "--state", tmp_path),
            f"--trusted-proxy={text}",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--trusted-proxy" in done.stderr


async def test_network_of_proxies_is_believed(start_feed, sink):
    """A load balancer has many addresses; each client behind it counts alone."""
    feed = start_feed(
        "--sink", sink, "--max-per-address", "1", "--trusted-proxy", "127.0.0.0/8"
    )
    one = Reader(feed.url, headers={"X-Forwarded-For": "192.0.2.1"})
    two = Reader(feed.url, headers={"X-Forwarded-For": "192.0.2.2"})
    again = Reader(feed.url, headers={"X-Forwarded-For": "192.0.2.1"})
    async with one, two, again:
        assert (one.status, two.status, again.status) == (200, 200, 429)


async def test_clients_of_a_dual_stack_socket_are_told_apart(start_feed, sink):
    """On `::`, IPv4 clients come as ::ffff:A.B.C.D: they are not one /64."""
    feed = start_feed("--sink", sink, "--host", "::", "--max-per-address", "1")
    port = feed.url.rpartition(":")[2]
    here = Reader(f"http://127.0.0.1:{port}", source="127.0.0.2")
    there = Reader(f"http://127.0.0.1:{port}", source="127.0.0.3")
    again = Reader(f"http://127.0.0.1:{port}", source="127.0.0.2")
    async with here, there, again:
        assert (here.status, there.status, again.status) == (200, 200, 429)

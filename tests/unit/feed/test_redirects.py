# SPDX-License-Identifier: Apache-2.0
import httpx
import pytest

from updaterd.feed.redirects import MAX_REDIRECTS, Hop, RouteError

HOME = Hop(url=httpx.URL("https://u:p@feed.example/v1"), method="GET")


@pytest.mark.parametrize(
    ("location", "home"),
    [
        ("/other", True),
        ("https://feed.example:443/x", True),
        ("https://FEED.example/x", True),
        ("https://feed.example:8443/x", False),
        ("https://other.example/", False),
        ("https://feed.example.evil/", False),
        ("//feed.example@evil/", False),
    ],
)
def test_what_is_still_home(location, home):
    hop = HOME.follow(302, location)
    assert hop.home == home
    assert bool(hop.url.userinfo) == home


def test_away_is_away():
    """A way back does not bring the credentials back."""
    hop = HOME.follow(302, "https://evil.example/").follow(302, str(HOME.url))
    assert not hop.home
    assert not hop.url.userinfo


def test_no_way_from_https_to_http():
    with pytest.raises(RouteError):
        HOME.follow(301, "http://feed.example/")


def test_a_chain_ends():
    hop = HOME
    for _ in range(MAX_REDIRECTS):
        hop = hop.follow(302, "/again")
    with pytest.raises(RouteError):
        hop.follow(302, "/again")
    assert hop.again().follow(302, "/again").count == 1


def test_it_lasts_while_every_hop_is_permanent():
    hop = HOME.follow(301, "/a").follow(308, "/b")
    assert hop.lasting
    assert not hop.follow(302, "/c").lasting
    assert not hop.follow(302, "/c").follow(301, "/d").lasting


def test_a_fragment_is_never_sent():
    assert HOME.follow(302, "/a#b").url.fragment == ""


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_is_none_is_not_followed(port):
    with pytest.raises(RouteError):
        HOME.follow(302, f"https://feed.example:{port}/")

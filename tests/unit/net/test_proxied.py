# SPDX-License-Identifier: Apache-2.0
"""Odd proxies in the environment end nothing; each request goes its own way."""

import socket

import httpx
import pytest
from fakes.feed_server import FeedServer, answer, stream

from updaterd.errors import BrokenError
from updaterd.net import Fetcher, environment_proxies
from updaterd.net.connect import open_client, open_stream_client
from updaterd.net.direct import DirectTransport

pytestmark = pytest.mark.slow

ODD = [
    {"all_proxy": "socks://127.0.0.2:9/", "no_proxy": "127.0.0.0/8"},
    {"all_proxy": "socks://127.0.0.2:9/"},
    {"NO_PROXY": "localhost,::1/128"},
    {"NO_PROXY": "[::1],fe80::/10,<local>,192.168.*,http://x"},
    {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,::1/128,[::1]"},
    {"http_proxy": "http://[::1", "https_proxy": "http://u:p@s@h:1"},
    {"all_proxy": "socks5://127.0.0.1:9", "no_proxy": "127.0.0.1"},
]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("environment", ODD)
@pytest.mark.parametrize("opened", [open_client, open_stream_client])
async def test_an_odd_proxy_in_the_environment_ends_nothing(
    monkeypatch, environment, opened
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with FeedServer(answer(200, body=b"x")) as server, opened() as client:
        answered = await client.get(server.url)
    assert answered.content == b"x"


@pytest.mark.parametrize("environment", ODD)
def test_an_odd_proxy_is_no_traceback_in_a_worker(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Fetcher().close()


async def test_each_request_goes_its_own_way(monkeypatch):
    """Through the proxy, or past it: by scheme and no_proxy, for each request."""
    async with (
        FeedServer(answer(200, body=b"p")) as proxy,
        FeedServer(answer(200, body=b"d")) as server,
    ):
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/feed"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for opened in (open_client, open_stream_client):
            async with opened() as client:
                assert (await client.get(server.url)).content == b"d"
                assert (await client.get("http://feed.invalid/")).content == b"p"


async def test_a_stream_through_a_proxy(monkeypatch):
    async with FeedServer(stream(b"data: a\n\n")) as proxy:
        monkeypatch.setenv("all_proxy", proxy.url.removesuffix("/feed"))
        async with (
            open_stream_client() as client,
            client.stream("GET", "http://feed.invalid/x") as answered,
        ):
            assert await answered.aread() == b"data: a\n\n"


@pytest.mark.parametrize(
    ("proxy", "word"),
    [
        ("127.0.0.1:3128", "scheme"),
        ("socks://h:1", "scheme"),
        ("http://", "host"),
        ("http://u:secret@h:x", "address"),
    ],
)
def test_a_configured_proxy_that_cannot_be_used_is_told_truly(proxy, word):
    with pytest.raises(BrokenError) as told:
        open_stream_client(proxy=proxy)
    assert word in str(told.value)
    assert "socksio" not in str(told.value)
    assert "secret" not in str(told.value)


async def test_only_socks_asks_for_its_package(monkeypatch):
    monkeypatch.setattr("updaterd.net.proxies.find_spec", lambda _: None)
    with pytest.raises(BrokenError, match="socksio"):
        open_client(proxy="socks5://h:1")
    monkeypatch.setenv("all_proxy", "socks5://h:1")
    assert "socksio" in environment_proxies().ignored[0]


async def test_without_a_proxy_nothing_of_httpx_is_loaded_for_one():
    async with open_stream_client() as client:
        assert isinstance(client._transport, DirectTransport)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with open_stream_client() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/")

# SPDX-License-Identifier: Apache-2.0
"""Proxies as environments have them: what makes no sense is named and left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.proxies import fault_of, read, read_exempt

P = "http://proxy:3128"


@pytest.mark.parametrize(
    ("environment", "http", "https"),
    [
        ({}, None, None),
        ({"http_proxy": P}, P, None),
        ({"https_proxy": P}, None, P),
        ({"HTTPS_PROXY": P}, None, P),
        ({"all_proxy": P}, P, P),
        ({"ALL_PROXY": P, "http_proxy": "http://other:1"}, "http://other:1", P),
        ({"http_proxy": "proxy:3128"}, P, None),
        ({"http_proxy": "", "HTTP_PROXY": P}, None, None),
        ({"HTTP_PROXY": P}, P, None),
        ({"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, None, None),
        ({"all_proxy": P, "no_proxy": "*"}, None, None),
        ({"all_proxy": "socks5h://u:p@h:1"}, *("socks5h://u:p@h:1",) * 2),
    ],
)
def test_the_proxy_of_a_scheme(environment, http, https):
    proxies = read(environment)
    assert proxies.for_request("http", "example.com", None) == http
    assert proxies.for_request("https", "example.com", None) == https
    assert proxies.ignored == ()


@pytest.mark.parametrize(
    ("entry", "host", "port", "covered"),
    [
        ("example.com", "example.com", None, True),
        ("example.com", "a.EXAMPLE.com.", None, True),
        ("example.com", "notexample.com", None, False),
        (".example.com", "a.example.com", None, True),
        ("*.example.com", "a.b.example.com", None, True),
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "example.com", None, False),
        ("example.com:443", "example.com", None, True),
        ("localhost", "localhost", None, True),
        ("127.0.0.1", "127.0.0.1", 8080, True),
        ("10.0.0.0/8", "10.9.8.7", None, True),
        ("10.1.2.3/8", "10.9.8.7", None, True),
        ("10.0.0.0/8", "11.0.0.1", None, False),
        ("10.0.0.0/8", "ten.example.com", None, False),
        ("::1", "::1", None, True),
        ("[::1]", "::1", None, True),
        ("[::1]", "[::1]", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:80", "::1", 81, False),
        ("::1/128", "::1", None, True),
        ("fe80::/10", "fe80::7", None, True),
        ("fe80::/10", "127.0.0.1", None, False),
        ("b\u00fccher.example", "xn--bcher-kva.example", None, True),
    ],
)
def test_what_goes_past_the_proxy(entry, host, port, covered):
    proxies = read({"all_proxy": P, "NO_PROXY": f"other.example, {entry}"})
    assert proxies.ignored == ()
    assert (proxies.for_request("https", host, port) is None) == covered


@pytest.mark.parametrize(
    "value",
    ["socks://127.0.0.2:9/", "ftp://h:1", "http://", "http://h:0", "http://h:99999",
     "http://[::1", "http://h:x", "://", "http://a b:1", "127.0.0.1:", "\x1b[2J:1"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["http_proxy", "all_proxy", "HTTPS_PROXY"])
def test_a_proxy_that_cannot_be_understood_is_named_once_and_left_out(name, value):
    proxies = read({name: value})
    assert proxies.addresses == {}
    (reason,) = proxies.ignored
    assert name in reason
    assert reason.isprintable()


def test_one_bad_proxy_leaves_the_others():
    proxies = read({"https_proxy": "socks://h:1", "all_proxy": P, "no_proxy": "<x>,a"})
    assert proxies.for_request("https", "b", None) == P
    assert proxies.for_request("http", "a", None) is None
    assert len(proxies.ignored) == 2


@pytest.mark.parametrize(
    "entry", ["::1/129", "10.0.0.0/33", "<local>", "192.168.*", "http://a", "a:b", "[",
              "a:0", "-:-", "[::1", "[::1]x", "a..b", "fe80::%", "\ud800"],
)  # fmt: skip
def test_an_exemption_that_cannot_be_understood_is_named_and_left_out(entry):
    proxies = read({"all_proxy": P, "no_proxy": f"localhost,{entry},::1/128"})
    assert len(proxies.ignored) == 1
    assert "no_proxy" in proxies.ignored[0]
    assert proxies.for_request("http", "localhost", None) is None
    assert proxies.for_request("http", "::1", None) is None
    assert proxies.for_request("http", "example.com", None) == P


@pytest.mark.parametrize("address", ["127.0.0.1:3128", "localhost:3128", "proxy"])
def test_an_address_without_scheme_is_told_what_it_lacks(address):
    assert "scheme" in fault_of(address)


@given(st.dictionaries(
    st.sampled_from(["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy",
                     "ALL_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD"]),
    st.text(max_size=40) | st.from_regex(r"[a-z:/@.\[\]0-9,*% -]{0,40}"),
), st.text(max_size=20), st.none() | st.integers(0, 70000))  # fmt: skip
def test_no_environment_ends_anything(environment, host, port):
    proxies = read(environment)
    for scheme in ("http", "https", "ftp"):
        proxies.for_request(scheme, host, port)
    assert all(reason.isprintable() for reason in proxies.ignored)


@given(st.text(max_size=60))
def test_no_entry_and_no_address_ends_anything(text):
    read_exempt(text)
    assert fault_of(text).isprintable()

# SPDX-License-Identifier: Apache-2.0
"""Codes of what is between the machine and the servers: tried again."""

ROWS = """
dns: a name cannot be resolved | check the resolver, `/etc/resolv.conf`
refused: no server accepts connections at that address and port
  | check the server and firewalls
unreachable: there is no route, or no answer | check routes, firewalls and the server
connect_timeout: no server accepted the connection in time | check routes and firewalls
tls: the certificate is not trusted, has expired, or has another name
  | check `ca_file`, the server's certificate and the clock
proxy: the proxy refuses, or its address cannot be used
  | check `proxy` and the proxy's rules
reset: the connection was reset | check the server and what is in between
cut: a stream ended in the middle of a message | check the server and what is in between
closed: the server closed the connection; one now and then is its rotation
  | nothing, unless it lasts
half_open: the other end vanished without closing the connection
  | check the network in between
idle_timeout: no byte came, not even a heartbeat
  | look for a proxy that buffers; check the server
header_timeout: no answer came to the request | check the server
timeout: the request took too long | check the server and the network
too_slow: the download is slower than the configured minimum
  | check the server and the network
http_NNN: the server's answer; 401 and 403 mean the token, 404 the address; 429 and
  503 pass | `updaterd enroll CODE`; check `headers_file` and the address
content_type: what answers is not a feed | check the address; look for a captive portal
content_encoding: the answer is compressed, although the request forbade that
  | serve files without compression
protocol: what answers does not speak HTTP
  | check the address; look for a captive portal
redirect: a redirect has no usable address | check the server
redirects: redirects lead in circles | check the server
cross_origin_redirect: a redirect leads to another host
  | serve files where they are; `download.redirect_hosts` for bundles
stream_limit: a line or an event is larger than any event may be | check the server
endless_data: more bytes came than were announced | check the server
short_answer: fewer bytes came than were asked for | check the server
bad_range: a server sends another range than was asked for | check the server
hash_mismatch: a server has other bytes than were signed | `release verify --deep`
network: another fault of the network; the text names it | do what the text says
feed: the feed cannot be used | do what the text says
"""

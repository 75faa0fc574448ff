# SPDX-License-Identifier: Apache-2.0
"""An issuer of identity tokens (OpenID Connect) on loopback, that may misbehave."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

DISCOVERY = "/.well-known/openid-configuration"
SUBJECT = "repo:acme/app:ref:refs/tags/v1.0.0"


class Key:
    """A signing key and its public half, as a JWKS lists it."""

    def __init__(self, kid, kind="ES256", bits=2048):
        self.kid, self.kind = kid, kind
        if kind == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())
            jwk = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            self.private = rsa.generate_private_key(65537, bits)
            jwk = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.public = {**jwk, "kid": kid, "use": "sig", "alg": kind}

    def pem(self):
        """Return the public key as anybody can write it."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, claims, **header):
        return jwt.encode(
            claims, self.private, self.kind, headers={"kid": self.kid, **header}
        )


def forge(header, claims, signature=b""):
    """Return three parts with dots between them, as an attacker writes them."""
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (
            json.dumps(header).encode(),
            json.dumps(claims).encode(),
            signature,
        )
    )


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answer(self.path) or self.server.answer_job(self)
        status, headers, body = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Issuer(ThreadingHTTPServer):
    """A server with discovery and keys; `misbehave` replaces what a path answers."""

    daemon_threads = True

    def __init__(self, *keys, tls=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_port}"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.keys = list(keys)
        self.asked = []
        self.misbehave = {}
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path):
        if path in self.misbehave:
            return self.misbehave[path]()
        documents = {
            DISCOVERY: {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"},
            "/jwks": {"keys": [key.public for key in self.keys]},
        }
        if path not in documents:
            return None
        return 200, {}, json.dumps(documents[path]).encode()

    def answer_to_job(self, token):
        """Give this token to jobs that ask, as GitHub's runners do."""
        self.job_token, self.job_requests = token, []

    def answer_job(self, request):
        parts = urlsplit(request.path)
        if parts.path != "/token":
            return 404, {}, b""
        audience = parse_qs(parts.query).get("audience", [""])[0]
        self.job_requests.append((request.headers["Authorization"], audience))
        return 200, {}, json.dumps({"value": self.job_token}).encode()

    def claims(self, now=None, **changes):
        """Return the claims of a job's token; None takes a claim out."""
        now = int(time.time() if now is None else now)
        claims = {
            "iss": self.url,
            "aud": "updaterd",
            "sub": SUBJECT,
            "iat": now - 5,
            "nbf": now - 5,
            "exp": now + 300,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

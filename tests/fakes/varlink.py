# SPDX-License-Identifier: Apache-2.0
"""A Varlink client of a few lines, which shares nothing with what it talks to."""

import json
import socket


class Client:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._rest = b""

    def send(self, method, more=False, **parameters):
        name = method if "." in method else f"io.updaterd.Updater.{method}"
        call = {"method": name, "parameters": parameters}
        if more:
            call["more"] = True
        self.send_raw(json.dumps(call).encode() + b"\0")

    def send_raw(self, data):
        self._socket.sendall(data)

    def receive(self):
        """Return the next answer, or None when the other side has closed."""
        while b"\0" not in self._rest:
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        """Return what a method answers, or the name of its error."""
        self.send(method, **parameters)
        answer = self.receive()
        return answer["error"] if "error" in answer else answer["parameters"]

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def listens(path):
    """Tell whether somebody takes connections there."""
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(path)) == 0

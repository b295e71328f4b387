"""A hub on this machine: what loading a model asks for of the Hugging Face hub's interface.

`huggingface_hub` itself talks to it over HTTP, so requests are those that the real hub gets.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"  # the only one


class Hub:
    """What the hub holds."""

    def __init__(self, address: str):
        self.address = address
        self.repositories: dict[str, dict[str, bytes]] = {}  # by id, the files by name

    def upload(self, repository: str, folder: Path) -> None:
        """Put the files of a folder into a repository."""
        self.repositories[repository] = {file.name: file.read_bytes() for file in folder.iterdir()}

    def get(self, path: str) -> tuple[int, object]:
        """Return a status, and an object of JSON, bytes or the name of an error."""
        if match := re.fullmatch(r"/api/models/(.+?)/tree/[^/]+", path):
            files = self.repositories.get(match[1], {})
            return 200, [
                {
                    "type": "file",
                    "path": name,
                    "size": len(content),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
                for name, content in sorted(files.items())
            ]

        if match := re.fullmatch(r"/api/models/(.+?)(/revision/[^/]+)?", path):
            files = self.repositories.get(match[1])
            if files is None:
                return 404, "RepoNotFound"
            names = [{"rfilename": name} for name in sorted(files)]
            return 200, {"id": match[1], "sha": COMMIT, "siblings": names, "private": False}

        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.repositories.get(match[1], {}).get(match[2])
            return (404, "EntryNotFound") if content is None else (200, content)

        return 404, "EntryNotFound"


class Server(ThreadingHTTPServer):
    """The hub's server."""

    hub: Hub


class Handler(BaseHTTPRequestHandler):
    """From a request over HTTP to the hub's answer."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self):
        """Give what is there."""
        status, content = self.server.hub.get(unquote(urlsplit(self.path).path))

        is_error = status >= 400
        body = content if isinstance(content, bytes) else json.dumps({} if is_error else content).encode()
        self.send_response(status)

        if is_error:
            self.send_header("X-Error-Code", str(content))
        if isinstance(content, bytes):
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)

        self.send_header("Content-Length", str(len(body)))
        self.end_headers()

        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Yield a hub that answers at its `address` until the block ends."""
    server = Server(("127.0.0.1", 0), Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()

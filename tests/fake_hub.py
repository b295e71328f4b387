"""A hub on this machine: what uploading and loading a model asks for of the Hugging Face hub's interface.

`huggingface_hub` itself talks to it over HTTP, so requests are those that the real hub gets.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
LARGE = ".safetensors"  # how the names of files end that go to large-file storage
COMMIT = "0123456789abcdef0123456789abcdef01234567"  # the only one


class Hub:
    """What the hub holds."""

    def __init__(self, address: str):
        self.address = address
        self.repositories: dict[str, dict[str, bytes]] = {}  # by id, the files by name
        self.objects: dict[str, bytes] = {}  # large files by their SHA-256
        self.visibility: dict[str, str] = {}

    # each returns a status and an object of JSON, bytes, or a status alone

    def post(self, path: str, body: bytes) -> tuple[int, object]:
        """Answer to a request that changes something."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked.get('organization', 'me')}/{asked['name']}"
            self.repositories.setdefault(repository, {})
            self.visibility[repository] = asked["visibility"]
            return 200, {"url": f"{self.address}/{repository}"}

        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}

        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            answers = [
                {
                    "path": file["path"],
                    "uploadMode": modes[file["path"].endswith(LARGE)],
                    "shouldIgnore": False,
                }
                for file in files
            ]
            return (200, {"files": answers}) if match[1] in self.repositories else (404, "RepoNotFound")

        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.address}/large/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}

        if match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(self.repositories[match[1]], body)
            return 200, {"commitOid": COMMIT, "commitUrl": f"{self.address}/{match[1]}/commit/{COMMIT}"}

        return 404, "EntryNotFound"

    def _commit(self, files: dict[str, bytes], body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if entry["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]

    def put(self, path: str, body: bytes) -> tuple[int, object]:
        """Take a large file, whose name is its SHA-256."""
        oid = path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, "EntryNotFound"
        self.objects[oid] = body
        return 200, {}

    def get(self, path: str) -> tuple[int, object]:
        """Answer to a request for what is there."""
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
        self._answer(*self.server.hub.get(self._asked))

    do_HEAD = do_GET

    def do_POST(self):
        """Change something, for who has the token."""
        body = self._read()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, "InvalidToken")
            return
        self._answer(*self.server.hub.post(self._asked, body))

    def do_PUT(self):
        """Take a large file."""
        self._answer(*self.server.hub.put(self._asked, self._read()))

    def log_message(self, *_):
        """Say nothing."""

    @property
    def _asked(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: object) -> None:
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

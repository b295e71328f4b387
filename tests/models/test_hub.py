"""Fetching from a hub, which a server on this machine plays.

It is asked through the hub's own client; no network is used.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from families import edit
from random_models.cases import CASES
from random_models.writing import write

from sinkprune_companion.cli import main
from sinkprune_core.models.embedded import FetchError
from sinkprune_core.models.loading import load

NAME = "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1"
COMMIT = "c" * 40


class Hub:
    """A repository served from a folder as the hub serves it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.refuse: dict[str, tuple[int, str]] = {}  # part of a path -> (status, error code)
        self.cut: str | None = None  # name of a file that breaks off
        self.asked: list[str] = []  # paths
        self.sent = 0  # bytes

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.split("?")[0]
        self.asked.append(path)
        for part, (status, code) in self.refuse.items():
            if part in path:
                return self.send(handler, status, b"{}", {"X-Error-Code": code})
        if path.startswith("/api/") and "/tree/" in path:
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": self.tag(file)}
                for file in sorted(self.folder.iterdir())
            ]
            return self.send(handler, 200, json.dumps(files).encode())
        if path.startswith("/api/"):
            return self.send(handler, 200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": []}).encode())
        file = self.folder / path.rsplit("/", 1)[1]
        headers = {"ETag": f'"{self.tag(file)}"', "X-Repo-Commit": COMMIT}
        return self.send(handler, 200, file.read_bytes(), headers, cut=file.name == self.cut)

    @staticmethod
    def tag(file: Path) -> str:
        kind = "sha256" if file.suffix == ".safetensors" else "sha1"  # large files are told by the former
        return hashlib.new(kind, file.read_bytes()).hexdigest()

    def send(self, handler, status: int, body: bytes, headers: dict | None = None, cut: bool = False) -> None:
        handler.send_response(status)
        sizes = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in {**sizes, **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            body = body[: len(body) // 2] if cut else body
            self.sent += len(body)
            handler.wfile.write(body)
        if cut:
            handler.close_connection = True


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """A hub with one repository in a public format, and an empty cache.

    Remote code and pickled weights lie beside the weights.
    """
    from huggingface_hub import constants

    write(CASES["a2d qwen2"], tmp_path / "repository")
    (tmp_path / "repository" / "modeling_a2d.py").write_text("raise SystemExit('remote code ran')")
    (tmp_path / "repository" / "pytorch_model.bin").write_bytes(b"pickle")
    edit(tmp_path / "repository", auto_map={"AutoModel": "modeling_a2d.A2DModel"})
    server_side = Hub(tmp_path / "repository")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server_side.answer(self)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name, value in {
        "ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    try:
        yield server_side
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refused(name: str = NAME) -> str:
    """`load` raises one FetchError of one line; return it."""
    with pytest.raises(FetchError) as caught:
        load(name)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(NAME)
    return str(caught.value)


def test_code_and_pickles_are_never_fetched_and_a_cached_model_needs_no_network(hub, monkeypatch):
    lm = load(NAME)
    assert lm.name == NAME and lm.mask_token_id == 5
    assert any(path.endswith("model.safetensors") for path in hub.asked)
    assert not [path for path in hub.asked if path.endswith((".py", ".bin"))]
    hub.refuse = {"/": (500, "Down")}
    assert load(NAME).fingerprint() == lm.fingerprint()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert load(NAME).fingerprint() == lm.fingerprint() and len(hub.asked) == asked


def test_a_download_that_breaks_off_is_said_and_can_be_gone_on_with(hub, capsys):
    hub.cut = "model.safetensors"
    assert "broke off, and its cache does not hold it (" in refused()
    assert main.main(["prune", NAME, "--out", "unused"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {NAME} could not be fetched")
    hub.cut, before = None, hub.sent
    assert load(NAME).mask_token_id == 5
    whole = sum(file.stat().st_size for file in hub.folder.iterdir())
    assert hub.sent - before < whole + 10_000

"""A stand-in for the Kubernetes API server, where no cluster can be had: real kubectl, Helm and controllers talk to it.

It holds the objects, validates them against Kubernetes' own schemas, tells watchers, records every request, and
enforces RBAC for service accounts. Nothing runs behind it: whoever subscribes plays the controllers.
"""

import ctypes
import json
import random
import socket
import string
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.kubernetes import exec as exec_
from tests.kubernetes import protobuf
from tests.kubernetes.kinds import Document, Kind, discover
from tests.kubernetes.patches import merge, strategic_merge
from tests.kubernetes.rbac import Request
from tests.kubernetes.store import Api, Change, Key, Refusal, not_found

CLONE_NEWNET = 0x40000000  # setns(2)
OWN_NETWORK = Path("/proc/self/ns/net")


class _Handler(BaseHTTPRequestHandler):
    """One request. HTTP/1.0: a connection ends with its answer, and a watch with its connection."""

    server: "_Server"

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name in http.server
        """Say nothing: requests are recorded."""

    def _answer(self) -> None:
        address = urlsplit(self.path)
        parts = address.path.strip("/").split("/")
        query = {name: values[-1] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        length = int(self.headers.get("Content-Length") or 0)
        answer: Document | Iterator[Document]
        try:
            content = self.rfile.read(length)
            binary = content.startswith(protobuf.MAGIC)
            body: Document = protobuf.parse(content) if binary else yaml.safe_load(content or b"{}")
            if parts[-1:] == ["exec"] and self.headers.get("Upgrade") == "websocket":
                self._execute(parts, parse_qs(address.query))
                return
            discovered = discover(parts, self.server.api.kinds, self.server.api.version)
            answer, code = (discovered, 200) if discovered else self._serve(parts, query, body)
        except Refusal as refusal:
            answer, code = refusal.status, refusal.code
        with suppress(BrokenPipeError, ConnectionResetError):  # a watcher may have gone
            self._send(answer, code)

    def _authorize(self, request: Request) -> None:
        # kubectl sends no token without TLS, but says for whom it speaks.
        speaking_for = self.headers.get("Impersonate-User")
        authorization = self.headers.get("Authorization")
        if speaking_for:
            authorization = self.server.api.token(*speaking_for.split(":")[-2:])
        self.server.api.authorize(authorization, request)

    def _execute(self, parts: list[str], query: dict[str, list[str]]) -> None:
        api = self.server.api
        kind, namespace, name, subresource = self._object(parts)
        self._authorize(Request("create", "", f"{kind.resource}/{subresource}", namespace, name))
        if not api.execute:
            raise Refusal(404, "NotFound", "nothing runs here")
        process = api.execute(api.get(kind.name, name, namespace), query["container"][0], query["command"])
        exec_.serve(self.rfile, self.wfile, self.headers["Sec-WebSocket-Key"], process)

    def _send(self, answer: Document | Iterator[Document], code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        if isinstance(answer, dict):
            content = json.dumps(answer).encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.end_headers()
        for event in answer:
            self.wfile.write(json.dumps(event).encode() + b"\n")

    def _serve(
        self, parts: list[str], query: dict[str, str], body: Document
    ) -> tuple[Document | Iterator[Document], int]:
        """Answer a request about objects."""
        api = self.server.api
        kind, namespace, name, subresource = self._object(parts)
        if not name and self.command in ("GET", "DELETE") and "metadata.name=" in query.get("fieldSelector", ""):
            asked_name = query["fieldSelector"].partition("metadata.name=")[2].partition(",")[0]
        else:
            asked_name = name
        watching = query.get("watch") in ("1", "true")
        verb = {
            "GET": "get" if name else "watch" if watching else "list", "POST": "create", "PUT": "update",
            "PATCH": "patch", "DELETE": "delete" if name else "deletecollection",
        }[self.command]  # fmt: skip
        resource = "/".join(filter(None, (kind.resource, subresource)))
        self._authorize(Request(verb, kind.group, resource, namespace, asked_name))
        if subresource not in ("", "status"):
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        key = Key(kind, namespace, name)
        dry_run = "dryRun" in query
        match verb:
            case "get":
                return api.get(kind.name, name, namespace), 200
            case "list":
                return api.collection(kind, namespace, query), 200
            case "watch" if query.get("sendInitialEvents") and api.version == "1.31":
                message = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
                raise Refusal(422, "Invalid", message)
            case "watch":
                return api.watch(kind, namespace, query), 200
            case "delete":
                gone = api.get(kind.name, name, namespace) if dry_run else api.remove(key)
                details = {"name": name, "kind": kind.resource, "uid": gone["metadata"]["uid"]}
                return {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details}, 200
            case "deletecollection":
                found = api.collection(kind, namespace, query)
                for item in found["items"]:
                    api.remove(Key(kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]))
                return found, 200
            case "create":
                metadata = body.setdefault("metadata", {})
                suffix = "".join(random.choices(string.ascii_lowercase, k=5))  # noqa: S311 - a name, no secret
                key = Key(kind, namespace, metadata.get("name") or metadata.get("generateName", "") + suffix)
                return api.write(key, self._create(key, body), dry_run=dry_run), 201
            case _ if self.headers.get_content_type() == "application/apply-patch+yaml":
                return api.apply(key, query.get("fieldManager", ""), body, dry_run=dry_run), 200
            case _:
                return api.write(key, self._change(key, body, subresource), dry_run=dry_run), 200

    def _object(self, parts: list[str]) -> tuple[Kind, str, str, str]:
        """Kind, namespace, name and subresource in a path; empty where it has none."""
        length = {"api": 1, "apis": 2}.get(parts[0], 0)
        api_version, rest, namespace = "/".join(parts[1 : 1 + length]), parts[1 + length :], ""
        if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        for kind in self.server.api.kinds:
            if (kind.api_version, kind.resource) == (api_version, *rest[:1]):
                return kind, namespace, rest[1] if len(rest) > 1 else "", "/".join(rest[2:])
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    @staticmethod
    def _create(key: Key, body: Document) -> Change:
        def create(live: Document | None) -> Document:
            if live is not None:
                raise Refusal(409, "AlreadyExists", f'{key.kind.resource} "{key.name}" already exists')
            return {name: value for name, value in body.items() if name != "status"}

        return create

    def _change(self, key: Key, body: Document, subresource: str) -> Change:
        content_type = self.headers.get_content_type()

        def change(live: Document | None) -> Document:
            if live is None:
                raise not_found(key)
            if self.command == "PUT":
                wanted = body
            elif content_type == "application/strategic-merge-patch+json":
                wanted = strategic_merge(live, body)
            elif content_type == "application/merge-patch+json":
                wanted = cast("Document", merge(live, body))
            else:
                raise Refusal(415, "UnsupportedMediaType", f"no patch of type {content_type}")
            status = wanted if subresource == "status" else live
            own = live if subresource == "status" else wanted
            without = {name: value for name, value in own.items() if name != "status"}
            return without | ({"status": status["status"]} if "status" in status else {})

        return change


class _Server(ThreadingHTTPServer):
    """Serves one Api on a free port of loopback."""

    daemon_threads = True

    def __init__(self, api: Api, network: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        with ThreadPoolExecutor(1) as executor:  # in a thread that ends, because it stays in that network
            self.socket = executor.submit(_listening_socket, network).result()
        self.server_port = self.socket.getsockname()[1]
        self.api = api


def _listening_socket(network: Path) -> socket.socket:
    """A socket that listens on loopback in a network namespace: a socket stays in the one that it was made in."""
    with network.open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {network}")
    return socket.create_server(("127.0.0.1", 0), backlog=100)


@contextmanager
def api_server(version: str = "1.37", network: Path = OWN_NETWORK) -> Iterator[Api]:
    """Run the stand-in for an API server of this version, with a kubeconfig of its admin.

    It listens in the network namespace of a file such as /proc/1234/ns/net.
    """
    api = Api(version)
    with _Server(api, network) as server, tempfile.TemporaryDirectory() as folder:
        api.url = f"http://127.0.0.1:{server.server_port}"
        api.kubeconfig = Path(folder) / "kubeconfig"
        context = {"cluster": "stand-in", "user": "admin", "namespace": "default"}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
            "clusters": [{"name": "stand-in", "cluster": {"server": api.url}}],
            "contexts": [{"name": "stand-in", "context": context}],
            "users": [{"name": "admin", "user": {}}],
        }  # fmt: skip
        api.kubeconfig.touch(mode=0o600)
        api.kubeconfig.write_text(yaml.safe_dump(config))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield api
        finally:
            api.close()
            server.shutdown()
            thread.join()

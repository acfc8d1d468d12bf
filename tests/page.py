"""The page of everything that runs, served over plain HTTP with a state that is made up."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "template/gateway/proxy/page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
FILES = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"),
         "/page.js": ("page.js", "text/javascript")}  # fmt: skip
DOMAIN = "d4m.internal"
State = dict[str, Any]


class PageServer:
    """It serves the page as it is in the repository; what it says of the containers, a test may change."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = dict(state)
        self.asked: list[str] = []
        self._listen(0)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self._port}/"

    def vanish(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def return_(self) -> None:
        """Listen again, where it did before."""
        self._listen(self._port)

    def _listen(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()


def _handler(page: PageServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page.asked.append(self.path)
            name, kind = FILES.get(self.path, ("", "application/json"))
            content = (PAGE / name).read_bytes() if name else json.dumps(page.state).encode()
            self.send_response(200 if name or self.path == "/state.json" else 404)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def page_server(state: Mapping[str, Any]) -> Iterator[PageServer]:
    """Serve the page with this state."""
    server = PageServer(state)
    try:
        yield server
    finally:
        server.vanish()


# ------------------------------------------------------------------------------------------------------- made-up states


def container(name: str, image: str, address: str | None = None, port: int | None = None, **other: Any) -> State:
    """A container on its own, or of a project if `other` says so; a browser opens it if its port is one of HTTP."""
    project, service = other.get("project"), other.get("service")
    names = [f"{name}.{DOMAIN}", *([f"{service}.{project}.{DOMAIN}"] if project else [])]
    network = f"{project}_default" if project else "bridge"
    made = {
        "name": name, "project": project, "service": service, "image": image, "state": "running", "health": None,
        "url": f"https://{names[-1]}" if port in (80, 3000, 8000, 8080) else None, "names": names,
        "places": [{"network": network, "address": address, "obstacle": None}],
        "ports": [f"{port}/tcp"] if port else [], "problem": None,
    }  # fmt: skip
    return made | other


def composed(project: str, subnet: int, services: Mapping[str, tuple[str, int | None]], **health: str) -> list[State]:
    """The containers of a project: for each service, by its number in the name, its image and its port."""
    made = []
    for place, (named, (image, port)) in enumerate(services.items(), start=2):
        service, _, number = named.partition("-")
        own: State = {"project": project, "service": service, "health": health.get(service)}
        made.append(container(f"{project}-{service}-{number or 1}", image, f"172.{subnet}.0.{place}", port, **own))
    return made


def state(*containers: State, **other: Any) -> State:
    """A whole state with these containers."""
    whole = {
        "version": 1, "domain": DOMAIN, "project": "d4m-devkit", "now": "2026-11-24T18:40:07Z",
        "containers": list(containers),
        "clients": [
            {"name": "docker-for-mac", "since": "2026-11-24T18:00:00Z", "address": "10.213.94.2"},
            {"name": "alice", "since": "2026-11-24T10:20:00Z", "address": "10.213.94.3"},
        ],
        "certificates": [
            {"name": "CA", "expires": "2036-11-20T00:00:00Z", "warning": None},
            {"name": "server", "expires": "2029-02-25T00:00:00Z", "warning": None},
            {"name": "docker-for-mac", "expires": "2029-02-25T00:00:00Z", "warning": None},
            {"name": "alice", "expires": "2029-02-25T00:00:00Z", "warning": None},
        ],
        "warnings": [],
    }  # fmt: skip
    return whole | other


def three_projects() -> State:
    """What a developer has on an ordinary day."""
    shop = composed(
        "shop", 18,
        {"web": ("nginx:alpine", 80), "api": ("ghcr.io/acme/shop-api:2.14.1", 8000), "db": ("postgres:17", 5432),
         "worker-1": ("ghcr.io/acme/shop-api:2.14.1", None), "worker-2": ("ghcr.io/acme/shop-api:2.14.1", None),
         "cache": ("redis:8-alpine", 6379)},
        web="healthy", db="healthy", api="starting",
    )  # fmt: skip
    blog = composed("blog", 19, {"ghost": ("ghost:6", 8080), "mysql": ("mysql:9", 3306)}, mysql="healthy")
    grafana, prometheus, exporter = composed(
        "monitoring", 20,
        {"grafana": ("grafana/grafana:12.3", 3000), "prometheus": ("prom/prometheus:v3.7", 9090),
         "exporter": ("prom/node-exporter:v1.10", 9100)},
        exporter="unhealthy",
    )  # fmt: skip
    prometheus["url"] = f"https://prometheus.monitoring.{DOMAIN}"
    grafana["problem"] = "no web server answers at its port 3000"
    alone = [
        container("web", "nginx:alpine", "172.17.0.2", 80),
        container("mailpit", "axllent/mailpit", "172.17.0.3", 8080),
    ]
    alone[1]["ports"].append("1025/tcp")
    return state(*shop, *blog, grafana, prometheus, exporter, *alone)


def sixty_containers() -> State:
    """Ten projects, and one service with a dozen replicas."""
    names = ("atlas", "billing", "catalog", "gateway", "identity", "media", "orders", "search", "shipping")
    kinds = {"web": ("nginx:alpine", 80), "api": ("ghcr.io/acme/api:2.14.1", 8000), "db": ("postgres:17", 5432),
             "cache": ("redis:8-alpine", 6379), "queue": ("rabbitmq:4", 5672)}  # fmt: skip
    made = [one for place, name in enumerate(names) for one in composed(name, 18 + place, kinds, db="healthy")]
    pool = {f"runner-{number}": ("ghcr.io/acme/runner:9", None) for number in range(1, 16)}
    return state(*made, *composed("pool", 30, pool))


def unreachable() -> State:
    """One in each way that a container is not reached."""
    outside = {"network": "old", "address": "192.168.7.2", "obstacle": "outside the routes"}
    inside = {"network": "shop_default", "address": "172.18.0.2", "obstacle": None}
    host = "it uses the engine's own addresses: reach it at any bridge's gateway, such as 172.17.0.1"
    nowhere = {"network": "bridge", "address": None, "obstacle": "it has no IPv4 address"}
    none: State = {"names": [], "url": None}
    shop = composed("shop", 18, {"web": ("nginx:alpine", 80), "db": ("postgres:17", 5432)}, db="healthy")
    shop[0]["places"] = [inside, outside]
    return state(
        *shop,
        container("legacy", "acme/legacy:1.2", port=80, **none, places=[outside]),
        container("agent", "acme/agent:7", **none, places=[{"network": "host", "address": None, "obstacle": host}]),
        container("batch", "acme/batch:3", **none, places=[]),
        container("paused", "nginx:alpine", "172.17.0.4", 80, state="paused"),
        container("crashing", "acme/crashing:latest", **none, state="restarting", places=[nowhere]),
        warnings=["192.168.7.0/24 is outside the routes: run ./scripts/routes.py add 192.168.7.0/24, then "
                  "./scripts/up.py, and import the profile again"],
    )  # fmt: skip


RIGHT_TO_LEFT = "\u202e"
HOSTILE = (
    "<img src=x onerror=window.hurt=1>", "<script>window.hurt=1</script>", "\"><b onclick='window.hurt=1'>'&lt;&amp;",
    "javascript:window.hurt=1", f"safe{RIGHT_TO_LEFT}gnp.exe", "two\nlines\r\tand\0more", "x" * 300, "שלום.עולם", "  ",
    "__proto__",
)  # fmt: skip


def hostile() -> State:
    """Every value that a container can choose is bad, in each of several ways."""
    made = [
        {
            "name": f"{number}{text}", "project": text, "service": text, "image": text, "state": text, "health": text,
            "url": text, "names": [text, f"{text}.{DOMAIN}"], "ports": [text], "problem": text,
            "places": [{"network": text, "address": text, "obstacle": None if number % 2 else text}],
        }
        for number, text in enumerate(HOSTILE)
    ]  # fmt: skip
    elsewhere = ("evil.example/x.d4m.internal", "web.d4m.internal@evil.example", "$'.d4m.internal")
    opened = {"url": f"https://web.{DOMAIN}/{HOSTILE[2]}", "names": [*elsewhere, *HOSTILE, f"web.{DOMAIN}"]}
    made.append(container("opened", "nginx:alpine", "172.17.0.2", 80, **opened))
    clients = [{"name": text, "since": text, "address": text} for text in HOSTILE]
    certificates = [{"name": text, "expires": text, "warning": None} for text in HOSTILE]
    return state(*made, clients=clients, certificates=certificates, warnings=list(HOSTILE), project=HOSTILE[0])


def expiring() -> State:
    """Certificates that end soon, and one that has ended."""
    whole = three_projects()
    whole["certificates"][1] |= {
        "expires": "2026-12-04T00:00:00Z",
        "warning": "expires in 9 days: run uvx copier update --trust",
    }
    whole["certificates"][3] |= {
        "expires": "2026-11-20T00:00:00Z",
        "warning": "expired 4 days ago: run ./scripts/client.py add alice",
    }
    return whole

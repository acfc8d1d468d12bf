"""Which port of which container serves what is asked for, and what the page shows of it."""

import asyncio
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from devkit.facts import Attachment, Container, Session
from devkit.names import names
from devkit.proxy import (
    LIKELY_PORTS,
    Listening,
    Told,
    addresses_of,
    declared_port,
    http_port,
    parse,
    redirections,
    serves_itself,
    state,
    to_probe,
    told,
    upstreams,
    url,
    vouched_for,
)

from tests.conftest import REPOSITORY

DOMAIN = "d4m.internal"
ROUTES = (IPv4Network("172.16.0.0/12"),)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def container(
    name: str, address: str, *ports: str, service: str = "", labels: Mapping[str, str] | None = None
) -> Container:
    """A container in one network; `service` is SERVICE.PROJECT, ports are as Docker writes them."""
    place = Attachment("net", "bridge", IPv4Network(f"{address}/16", strict=False), IPv4Address(address))
    of, _, project = service.rpartition(".")
    return Container(
        name, "image", project or None, of or None, (place,), ports, id=f"id-{name}", labels=labels or {}
    )  # fmt: skip


def known(*containers: Container) -> Told:
    """What the proxy knows of them."""
    return parse(told(containers, names(containers, DOMAIN, ROUTES)[0], DOMAIN, "devkit", ROUTES))


def shown(made: Told, listening: Listening | None = None) -> list[Any]:
    page: Any = state(made, listening or {}, (), (), NOW)
    containers: list[Any] = page["containers"]
    return containers


@pytest.mark.parametrize(
    ("ports", "labels", "port"),
    [
        ([], {}, None),
        (["80/tcp"], {}, 80),
        (["4000/tcp"], {}, 4000),
        (["4000/udp"], {}, None),
        (["5432/tcp"], {}, None),
        (["443/tcp"], {}, None),
        (["22/tcp", "8080/tcp", "9999/tcp"], {}, 8080),
        (["8080/tcp", "80/tcp"], {}, 80),
        (["4000/tcp", "4001/tcp"], {}, None),
        (["80/tcp"], {"d4m.port": "3000"}, 3000),
        (["80/tcp"], {"dev.orbstack.http-port": "3000"}, 3000),
        ([], {"d4m.port": "3000", "dev.orbstack.http-port": "4000"}, 3000),
        ([], {"d4m.port": " 3000 "}, 3000),
        ([], {"d4m.port": "5432"}, 5432),
        (["80/tcp"], {"d4m.port": "x"}, 80),
    ],
)
def test_port_is_the_labels_or_the_one_that_is_exposed(ports: list[str], labels: dict[str, str], port: int) -> None:
    assert declared_port(container("web", "172.17.0.2", *ports, labels=labels)) == port


@pytest.mark.parametrize("value", ["", "0", "65536", "-1", "8080\n80", "٣", "9" * 400, "<b>", "80 81", "1e3"])
def test_label_that_is_no_port_counts_for_nothing(value: str) -> None:
    assert declared_port(container("web", "172.17.0.2", labels={"d4m.port": value})) is None


def test_browser_opens_the_name_that_people_know() -> None:
    web, db = (
        container("shop-web-1", "172.17.0.2", "80/tcp", service="Web.shop"), container("db", "172.17.0.3", "5432/tcp")
    )  # fmt: skip
    its = ["shop-web-1.d4m.internal", "web.shop.d4m.internal"]
    assert url(web, its) == "https://web.shop.d4m.internal"
    assert url(container("web", "172.17.0.4", "443/tcp"), ["web.d4m.internal"]) == "https://web.d4m.internal"
    assert url(db, ["db.d4m.internal"]) is None
    assert url(web, []) is None


def test_what_is_asked_for_leads_to_all_that_serve_it() -> None:
    made = known(
        container("shop-web-1", "172.18.0.2", "80/tcp", service="web.shop"),
        container("shop-web-2", "172.18.0.3", "3000/tcp", service="web.shop"),
        container("db", "172.18.0.4", "5432/tcp"),
    )
    both = [("172.18.0.2", 80), ("172.18.0.3", 3000)]
    for host in ("web.shop.d4m.internal", "WEB.Shop.d4m.internal.", "x.y.web.shop.d4m.internal"):
        assert list(upstreams(made, host, {})) == both
    assert list(upstreams(made, "shop-web-2.d4m.internal", {})) == both[1:]
    assert list(upstreams(made, "172.18.0.3", {})) == both[1:]
    for host in (
        "db.d4m.internal",
        "shop.d4m.internal",
        "d4m.internal",
        "example.com",
        "172.18.0.9",
        "",
        ".",
        "internal",
    ):
        assert list(upstreams(made, host, {})) == [], host
    assert addresses_of(made, "db.d4m.internal") == ["172.18.0.4"]


def test_port_that_nothing_tells_of_is_found() -> None:
    made = known(container("web", "172.18.0.2"))
    (web,) = made.containers
    assert list(upstreams(made, "web.d4m.internal", {("172.18.0.2", 80): False})) == []
    listening = {("172.18.0.2", 8080): True, ("172.18.0.2", 5000): True, ("172.18.0.2", 80): False}
    assert http_port(web, listening) == 5000
    assert list(upstreams(made, "web.d4m.internal", listening)) == [("172.18.0.2", 5000)]


def test_web_ports_are_tried_and_the_one_that_is_declared_or_else_all_likely_ones() -> None:
    (silent, web, api, secure) = known(
        container("silent", "172.18.0.2"), container("web", "172.18.0.3", "80/tcp"),
        container("api", "172.18.0.4", "3000/tcp"), container("secure", "172.18.0.5", "443/tcp"),
    ).containers  # fmt: skip
    for one, ports in ((silent, {443, *LIKELY_PORTS}), (web, {443, 80}), (api, {80, 443, 3000})):
        assert sorted(to_probe(one)) == sorted(ports)
    assert sorted(to_probe(secure)) == sorted({443, *LIKELY_PORTS})


def test_port_that_is_exposed_and_not_served_is_brought_to_the_proxy() -> None:
    made = known(container("app", "172.18.0.2", "80/tcp", "443/tcp", labels={"d4m.port": "3000"}))
    assert redirections(made, {}, ROUTES) == ""
    refused = {("172.18.0.2", 80): False, ("172.18.0.2", 443): False, ("172.18.0.2", 3000): True}
    assert redirections(made, refused, ROUTES) == "172.18.0.2 80\n172.18.0.2 443\n"
    assert list(upstreams(made, "app.d4m.internal", refused)) == [("172.18.0.2", 3000)]


def test_label_counts_before_what_the_other_containers_of_a_network_expose() -> None:
    envoy = replace(container("aaa-envoy", "172.18.0.2", "9901/tcp"), shares="web")
    for web in (
        container("web", "172.18.0.2", labels={"d4m.port": "3000"}),
        container("web", "172.18.0.2", "3000/tcp"),
    ):
        assert list(upstreams(known(envoy, web), "web.d4m.internal", {})) == [("172.18.0.2", 3000)]


def test_nothing_of_a_container_makes_what_is_told_long() -> None:
    long = "x" * 9_000_000
    hostile = replace(
        container("web", "172.18.0.2", *(f"{port}/tcp" for port in range(1, 5000))),
        project=long,
        service=long,
        image=long,
    )
    assert len(told([hostile], [], DOMAIN, "devkit", ROUTES)) < 5000


def test_what_has_no_web_port_itself_is_redirected() -> None:
    away = replace(container("away", "192.168.9.2"), attachments=())
    made = known(
        container("web", "172.18.0.10", "80/tcp"), container("api", "172.18.0.9", "3000/tcp"), away,
        container("secure", "172.18.0.11", "443/tcp"), container("own", "172.18.0.12"),
    )  # fmt: skip
    listening = {("172.18.0.12", 80): True, ("172.18.0.12", 443): True}
    assert redirections(made, listening, ROUTES).splitlines() == [
        "172.18.0.9 80", "172.18.0.9 443", "172.18.0.10 443", "172.18.0.11 80",
    ]  # fmt: skip
    assert redirections(made, {}, [IPv4Network("172.30.0.0/16")]) == ""
    assert serves_itself(made.containers[0], 80, {})


def test_container_in_the_network_of_another_is_served_with_it() -> None:
    app = container("app", "172.18.0.2", "3000/tcp")
    sidecar = replace(container("sidecar", "172.18.0.2"), shares="app")
    assert redirections(known(replace(sidecar, ports=("80/tcp",)), app), {}, ROUTES) == "172.18.0.2 443\n"
    made = known(sidecar, app)
    assert list(upstreams(made, "app.d4m.internal", {})) == [("172.18.0.2", 3000)]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("d4m.internal", "d4m.internal"),
        ("web.d4m.internal", "web.d4m.internal"),
        ("WEB.d4m.internal.", "web.d4m.internal"),
        ("a.b.c.web.d4m.internal", "web.d4m.internal"),
        ("*.web.d4m.internal", None),
        ("nobody.d4m.internal", None),
        ("xd4m.internal", None),
        ("web.d4m.internal.example.com", None),
        ("example.com", None),
        ("172.18.0.2", None),
        ("", None),
        ("../../etc", None),
    ],
)
def test_certificates_are_for_names_that_exist(host: str, expected: str | None) -> None:
    assert vouched_for(known(container("web", "172.18.0.2")), host) == expected
    assert vouched_for(Told(), host) is None


def test_page_shows_what_there_is() -> None:
    made = known(
        container("shop-web-1", "172.18.0.2", "3000/tcp", service="web.shop"), container("db", "172.18.0.3", "5432/tcp")
    )
    web, db = shown(made)
    assert web == {
        "name": "shop-web-1",
        "project": "shop",
        "service": "web",
        "image": "image",
        "state": "running",
        "health": None,
        "names": ("shop-web-1.d4m.internal", "web.shop.d4m.internal"),
        "places": ({"network": "net", "address": "172.18.0.2", "obstacle": None},),
        "ports": ("3000/tcp",),
        "url": "https://web.shop.d4m.internal",
        "problem": None,
    }
    assert (db["url"], db["problem"]) == (None, None)


def test_page_says_where_nothing_answers() -> None:
    made = known(container("web", "172.18.0.2", "3000/tcp"), container("secure", "172.18.0.3", "443/tcp"))
    nothing = {("172.18.0.2", 3000): False, ("172.18.0.3", 80): False}
    web, secure = shown(made, nothing)
    assert web["problem"] == "nothing answers at its port 3000"
    assert (secure["url"], secure["problem"]) == ("https://secure.d4m.internal", None)
    assert shown(made, {("172.18.0.2", 3000): True})[0]["problem"] is None


def test_page_says_why_something_is_not_reached() -> None:
    (away,) = shown(known(container("away", "192.168.9.2", "80/tcp")))
    assert away["places"][0]["obstacle"] == "outside the routes"
    assert away["url"] is None


def test_page_shows_clients_and_warns_of_expiry() -> None:
    session = Session("bob", "192.0.2.1:4711", "10.213.94.2", NOW, 1)
    ends = [
        {"name": "server", "expires": "2026-03-30T12:00:00Z", "renewal": "copier update"},
        {"name": "bob", "expires": "2026-03-31T12:00:00Z", "renewal": "copier update"},
        {"name": "CA", "expires": "2026-03-01T12:00:00Z", "renewal": "copier update"},
    ]
    page: Any = state(known(), {}, [session], ends, NOW)
    assert page["clients"] == [{"name": "bob", "since": "2026-03-01T12:00:00Z", "address": "10.213.94.2"}]
    assert [one["warning"] for one in page["certificates"]] == [
        "the certificate expires on 2026-03-30: renew it with `copier update`",
        None,
        "the certificate expired on 2026-03-01: renew it with `copier update`",
    ]
    unknown: Any = state(known(), {}, None, (), NOW)
    assert unknown["clients"] is None


def test_ports_of_an_address_are_tried_together(tmp_path: Path) -> None:
    """A kernel knows few addresses at a time: to try many at once would make it drop what is for others."""
    there = [container(f"c{number}", f"127.1.0.{number}", "80/tcp", "443/tcp") for number in range(1, 101)]
    routes = [IPv4Network("127.0.0.0/8")]
    telling, wanted = tmp_path / "containers.json", tmp_path / "wanted"
    telling.write_text(told(there, names(there, DOMAIN, routes)[0], DOMAIN, "devkit", routes))
    spec = importlib.util.spec_from_file_location("gateway_proxy", REPOSITORY / "template/gateway/proxy/proxy.py")
    assert spec
    assert spec.loader
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    with patch.multiple(program, TOLD=telling, REDIRECTIONS=wanted):
        served = program.Proxy(routes)
        served.read()
        asyncio.run(served.probe())
        served.write()
    without = [line.split()[0] for line in wanted.read_text().splitlines()]  # a web server there
    assert len(without) == program.MOST_AT_ONCE
    assert len(set(without)) == program.MOST_AT_ONCE / 2

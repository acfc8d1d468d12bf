#!/usr/bin/python3
"""Tells the DNS and the proxy who is where on the engine, for as long as the engine's socket holds.

It has that socket and no network. It ends when the socket is lost; the engine starts it again, with the new one.

environment: DNS_DOMAIN; VPN_SUBNET, a CIDR; ROUTES, CIDRs with spaces between them; PROJECT, the Compose project that
  this is a part of
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import docker
import requests
from devkit import inventory, names, proxy
from devkit.facts import Container

SOCKET = "unix:///var/run/docker.sock"
RECORDS = Path("/run/names/records.conf")  # in a volume that the DNS and the proxy read
CONTAINERS = Path("/run/names/containers.json")
WRITTEN = Path("/run/written")  # for the health check
SERVER, JOINING = "vpn", ("dns", "proxy", "redirect")
RUNNING = ("running", "paused")
WATCHED = {
    "container": ["create", "die", "destroy", "pause", "rename", "restart", "start", "stop", "unpause", "update"],
    "network": ["connect", "create", "destroy", "disconnect", "remove"],
}
PAUSE_SECONDS = 0.1  # between two looks at the engine: a burst of events is one change
ANYWAY_SECONDS = 10  # a look without an event, in case that one was missed
IDLE_SHARE = 20  # where to list all takes the engine long, this many times as long passes until it is asked again
AGAIN_SECONDS = 1  # after something could not be written


class Watch:
    """The containers that run or are ours, as far as the engine's events have told."""

    def __init__(self, client: docker.APIClient, project: str) -> None:
        self._client = client
        self._project = project
        self._known: dict[str, Any] = {}  # by ID
        self._changed: set[str] = set()  # IDs of what is to be looked at
        self._list_at = 0.0
        self._told: queue.SimpleQueue[str | Exception | None] = (
            queue.SimpleQueue()
        )  # IDs of what has changed, or the end
        self._events = client.events(decode=True, filters={"type": list(WATCHED)})
        threading.Thread(target=self._listen, daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Wait for an event, for so long. Raises what has ended the events."""
        time.sleep(PAUSE_SECONDS)
        with contextlib.suppress(queue.Empty):
            told = self._told.get(timeout=seconds)
            while True:
                if isinstance(told, Exception):
                    raise told
                self._changed |= {told} if told else set()
                told = self._told.get_nowait()

    def containers(self) -> list[Any]:
        """What `docker inspect` says of each; the engine is not asked about those that have not changed."""
        if time.monotonic() >= self._list_at:
            self._list()
        # One of ours that does not run may fail to start without an event.
        self._changed |= {id_ for id_, one in self._known.items() if one["State"]["Status"] not in RUNNING}
        for id_ in self._changed:
            self._known.pop(id_, None)
            with contextlib.suppress(docker.errors.NotFound):  # gone meanwhile
                one = self._client.inspect_container(id_)
                if self._counts(one["State"]["Status"], one["Config"]["Labels"]):
                    self._known[id_] = one
        self._changed.clear()
        return list(self._known.values())

    def _list(self) -> None:
        """See what no event has told. The engine may look up the image of each that it lists, which takes it long."""
        begun = time.monotonic()
        listed = {
            one["Id"]: one["State"]
            for one in self._client.containers(all=True)
            if self._counts(one["State"], one["Labels"])
        }
        ended = time.monotonic()
        self._list_at = ended + max(ANYWAY_SECONDS, IDLE_SHARE * (ended - begun))
        known = {id_: one["State"]["Status"] for id_, one in self._known.items()}
        self._changed |= {id_ for id_ in listed.keys() | known.keys() if listed.get(id_) != known.get(id_)}

    def _counts(self, state: str, labels: Mapping[str, str] | None) -> bool:
        """Whether it runs or is ours."""
        return state in RUNNING or (labels or {}).get(inventory.PROJECT_LABEL) == self._project

    def _listen(self) -> None:
        try:
            for event in self._events:
                if event.get("Action") in WATCHED[event["Type"]]:
                    actor = event["Actor"]  # a container's attributes are its labels, too
                    self._told.put(
                        actor["ID"] if event["Type"] == "container" else actor["Attributes"].get("container")
                    )
            self._told.put(EOFError("it was closed"))
        except Exception as error:
            self._told.put(error)


def write(path: Path, text: str) -> bool:
    """Replace a file as a whole, if it has changed; nothing unfinished stays behind. Returns whether it says so now."""
    if not path.exists() or path.read_text() != text:
        unfinished = path.with_suffix(".new")
        try:
            unfinished.write_text(text)
            unfinished.replace(path)
        except OSError as error:  # the next look tries it again
            print(f"{path} cannot be written: {error}", file=sys.stderr)
            unfinished.unlink(missing_ok=True)
            return False
    return True


def theirs(there: Iterable[Container], project: str) -> list[Container]:
    """The containers that are not this project's own services."""
    return [one for one in there if not (one.project == project and inventory.SERVER_LABEL in one.labels)]


def stale(found: list[Any], project: str) -> list[str]:
    """What joins the server's network namespace, where the server has left that: it was started again since.

    The engine does not start these again by itself, and fails to while the server is down.
    """
    own = [one for one in found if (one["Config"]["Labels"] or {}).get(inventory.PROJECT_LABEL) == project]
    servers = {
        f"{inventory.JOINED}{one['Id']}": one["State"]
        for one in own
        if one["Config"]["Labels"].get(inventory.SERVICE_LABEL) == SERVER and one["State"]["Running"]
    }
    return [
        one["Id"]
        for one in own
        if one["Config"]["Labels"].get(inventory.SERVICE_LABEL) in JOINING
        and (server := servers.get(one["HostConfig"]["NetworkMode"]))
        and (is_older(one["State"], server) if one["State"]["Running"] else one["State"]["Error"])
    ]


def is_older(state: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a container was started before another was."""
    return inventory.started(state) < inventory.started(other)


def main() -> str:
    """Watch until the engine is lost; return why."""
    domain, project = os.environ["DNS_DOMAIN"], os.environ["PROJECT"]
    routes = [IPv4Network(route) for route in os.environ["ROUTES"].split()]
    server = IPv4Network(os.environ["VPN_SUBNET"])[1]
    client = docker.APIClient(base_url=SOCKET, version="auto", timeout=None)
    try:
        watch = Watch(client, project)
        while True:
            found = watch.containers()
            running = [one for one in found if one["State"]["Running"]]
            there = inventory.containers(running, inventory.networks(client.networks()))
            found_names, reverse = names.names(there, domain, routes)
            texts = {
                RECORDS: names.unbound_records(found_names, reverse, domain, routes, server),
                CONTAINERS: proxy.told(theirs(there, project), found_names, domain, project, routes),
            }
            written = [write(path, text) for path, text in texts.items()]
            WRITTEN.touch()
            for id_ in stale(found, project):
                try:
                    client.restart(id_, timeout=1)
                except docker.errors.APIError as error:  # the next look tries it again
                    print(f"{id_} does not start again: {error}", file=sys.stderr)
            watch.wait(ANYWAY_SECONDS if all(written) else AGAIN_SECONDS)
    except (EOFError, docker.errors.DockerException, requests.exceptions.RequestException) as error:
        return f"the engine's socket is lost: {error}"


if __name__ == "__main__":
    sys.exit(main())

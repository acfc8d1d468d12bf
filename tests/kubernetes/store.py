"""What the stand-in for the Kubernetes API server holds, and the rules by which it changes."""

import copy
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from itertools import count
from pathlib import Path
from time import monotonic
from typing import cast

import kubernetes_validate

from tests.kubernetes.kinds import BUILT_IN, DEFINITION, NAMESPACE, Document, Kind, kinds_of_definition
from tests.kubernetes.patches import server_side_apply
from tests.kubernetes.rbac import RBAC_GROUP, Request, ServiceAccount, granted

SERVICES = IPv4Network("10.96.0.0/12")
FIRST_ADDRESS = IPv4Address("10.96.145.10")
WATCH_SECONDS = 1800.0  # how long a watch lasts that names no time
Change = Callable[[Document | None], Document]
Execute = Callable[[Document, str, list[str]], "subprocess.Popen[bytes]"]
Subscriber = Callable[[str, Document], None]


class Refusal(Exception):  # noqa: N818 - the word for what the server does
    """The server says no: a `Status` object, in Python."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": code, "reason": reason, "message": message,
        }  # fmt: skip


@dataclass(frozen=True)
class Key:
    """Which object."""

    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True)
class Event:
    """What happened to an object."""

    version: int
    type: str
    key: Key
    document: Document


@dataclass
class Api:
    """The objects, and who has asked for what."""

    version: str
    url: str = ""
    kubeconfig: Path = Path()
    requests: list[tuple[ServiceAccount | None, Request]] = field(default_factory=list)
    execute: Execute | None = None  # a program in a pod's container, whoever runs the pods

    def __post_init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._objects: dict[Key, Document] = {}
        self._events: list[Event] = []
        self._applied: dict[tuple[Key, str], Document] = {}
        self._tokens: dict[str, ServiceAccount] = {}
        self._subscribers: list[Subscriber] = []
        self._addresses = (str(FIRST_ADDRESS + number) for number in count())
        self._closing = False
        for name in ("default", "kube-system"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    # What tests call.

    def get(self, kind: str, name: str, namespace: str | None = None) -> Document:
        """An object, or a Refusal of code 404."""
        key = Key(self.kind(kind), namespace or "", name)
        with self._changed:
            if key not in self._objects:
                raise not_found(key)
            return copy.deepcopy(self._objects[key])

    def find(self, kind: str, namespace: str | None = None) -> list[Document]:
        """All objects of a kind, of one namespace or of all."""
        return [found for key, found in self._select(self.kind(kind), namespace or "", {})]

    def put(self, document: Document) -> Document:
        """Create or replace an object, its status included."""
        kind = self.kind(document["kind"], document["apiVersion"])
        key = Key(kind, document["metadata"].get("namespace", ""), document["metadata"]["name"])
        return self.write(key, lambda _live: document)

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete an object, and a namespace with all that is in it."""
        self.remove(Key(self.kind(kind), namespace or "", name))

    def token(self, namespace: str, service_account: str) -> str:
        """The bearer token of a service account, which RBAC then holds for."""
        token = str(uuid.uuid4())
        self._tokens[token] = ServiceAccount(namespace, service_account)
        return token

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have this called after each write, with ADDED, MODIFIED or DELETED and the object."""
        self._subscribers.append(subscriber)

    def requests_of(self, namespace: str, service_account: str) -> set[Request]:
        """What a service account has asked for."""
        subject = ServiceAccount(namespace, service_account)
        return {request for asking, request in list(self.requests) if asking == subject}

    # What the HTTP server calls.

    @property
    def kinds(self) -> list[Kind]:
        """What is served at present."""
        with self._changed:
            definitions = [document for key, document in self._objects.items() if key.kind == DEFINITION]
        return [*BUILT_IN, *(kind for definition in definitions for kind in kinds_of_definition(definition))]

    def kind(self, name: str, api_version: str | None = None) -> Kind:
        """Find a kind by its name."""
        for kind in self.kinds:
            if kind.name == name and api_version in (None, kind.api_version):
                return kind
        raise Refusal(404, "NotFound", f"no matches for kind {name!r} in version {api_version!r}")

    def authorize(self, authorization: str | None, request: Request) -> None:
        """Record a request and refuse it if RBAC does not grant it; without a token it comes from the admin."""
        if authorization is None:
            self.requests.append((None, request))
            return
        subject = self._tokens.get(authorization.removeprefix("Bearer "))
        if subject is None:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        self.requests.append((subject, request))
        with self._changed:
            documents = [found for key, found in self._objects.items() if key.kind.group == RBAC_GROUP]
        if not granted(request, documents, subject):
            what = f'resource "{request.resource}" in API group "{request.group}"'
            where = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
            raise Refusal(
                403,
                "Forbidden",
                f'{request.resource} is forbidden: User "{subject.user}" cannot {request.verb} {what} {where}',
            )

    def write(self, key: Key, change: Change, *, dry_run: bool = False) -> Document:
        """Make an object what `change` makes of it, if the result is valid."""
        with self._changed:
            live = self._objects.get(key)
            document = copy.deepcopy(change(copy.deepcopy(live)))
            self._admit(key, document, live)
            if dry_run or document == live:
                return document
            event = self._record("MODIFIED" if live else "ADDED", key, document)
        self._tell(event)
        return copy.deepcopy(event.document)

    def remove(self, key: Key) -> Document:
        """Delete an object, and a namespace with all that is in it."""
        with self._changed:
            if key not in self._objects:
                raise not_found(key)
            contents = [other for other in self._objects if key.kind == NAMESPACE and other.namespace == key.name]
            events = [
                self._record("DELETED", gone, copy.deepcopy(self._objects.pop(gone))) for gone in (*contents, key)
            ]
            self._applied = {applied: value for applied, value in self._applied.items() if applied[0] in self._objects}
        for event in events:
            self._tell(event)
        return events[-1].document

    def apply(self, key: Key, manager: str, desired: Document, *, dry_run: bool = False) -> Document:
        """Server-side apply. Fields are not owned: what others have set differently is overwritten."""
        previous = self._applied.get((key, manager))

        def change(live: Document | None) -> Document:
            return cast("Document", server_side_apply(live, previous, desired))

        written = self.write(key, change, dry_run=dry_run)
        if not dry_run:
            self._applied[key, manager] = desired
        return written

    def collection(self, kind: Kind, namespace: str, selectors: dict[str, str]) -> Document:
        """The answer to a list."""
        with self._changed:
            items = [document for _key, document in self._select(kind, namespace, selectors)]
            version = str(len(self._events))
        header = {"kind": f"{kind.name}List", "apiVersion": kind.api_version}
        return header | {"metadata": {"resourceVersion": version}, "items": items}

    def watch(self, kind: Kind, namespace: str, query: dict[str, str]) -> Iterator[Document]:
        """The answer to a watch, one event after the other until its time is over or the server ends."""
        with self._changed:
            position = len(self._events)
            initial = query.get("sendInitialEvents") == "true"
            if initial or query.get("resourceVersion", "0") in ("", "0"):
                found = [{"type": "ADDED", "object": document} for _, document in self._select(kind, namespace, query)]
            else:
                found, position = [], int(query["resourceVersion"])
        yield from found
        if initial:
            metadata = {"resourceVersion": str(position), "annotations": {"k8s.io/initial-events-end": "true"}}
            bookmark = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata}
            yield {"type": "BOOKMARK", "object": bookmark}
        end = monotonic() + float(query.get("timeoutSeconds", WATCH_SECONDS))
        while not self._closing and (left := end - monotonic()) > 0:
            with self._changed:
                if len(self._events) == position:
                    self._changed.wait(left)
                events, position = self._events[position:], len(self._events)
            for event in events:
                if _selected(event.key, event.document, kind, namespace, query):
                    yield {"type": event.type, "object": event.document}

    def close(self) -> None:
        """End every watch."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _select(self, kind: Kind, namespace: str, selectors: dict[str, str]) -> list[tuple[Key, Document]]:
        with self._changed:
            return [
                (key, copy.deepcopy(document))
                for key, document in self._objects.items()
                if _selected(key, document, kind, namespace, selectors)
            ]

    def _admit(self, key: Key, document: Document, live: Document | None) -> None:
        """Fill in what a server fills in, and refuse what it refuses."""
        metadata = document["metadata"]
        if key.namespace and Key(NAMESPACE, "", key.namespace) not in self._objects:
            raise Refusal(404, "NotFound", f'namespaces "{key.namespace}" not found')
        before: Document = (
            live["metadata"] if live else {"uid": str(uuid.uuid4()), "creationTimestamp": _now(), "generation": 0}
        )
        sent_version = metadata.get("resourceVersion")
        if live and sent_version not in (None, "", before["resourceVersion"]):
            raise Refusal(409, "Conflict", f"{key.kind.resource} {key.name!r}: the object has been modified")
        metadata |= {name: before[name] for name in ("uid", "creationTimestamp", "resourceVersion") if name in before}
        metadata |= {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
        metadata.pop("managedFields", None)
        document |= {"apiVersion": key.kind.api_version, "kind": key.kind.name}
        if key.kind.name == "Service":
            self._refuse_address(key, document["spec"].get("clusterIP"))
            self._complete_service(document["spec"], live)
        if key.kind.name == "NetworkPolicy":
            rules = [*document["spec"].get("ingress", []), *document["spec"].get("egress", [])]
            for port in (port for rule in rules for port in rule.get("ports", [])):
                port.setdefault("protocol", "TCP")
        if key.kind == DEFINITION:
            accepted = [{"type": name, "status": "True"} for name in ("NamesAccepted", "Established")]
            document["status"] = {"conditions": accepted}
        if document.get("spec") is not None:
            changed = live is None or document["spec"] != live.get("spec")
            metadata["generation"] = before.get("generation", 0) + changed
        self._validate(key, document)

    @staticmethod
    def _refuse_address(key: Key, asked: str | None) -> None:
        if asked and asked != "None" and IPv4Address(asked) not in SERVICES:
            why = f"failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range"
            message = f'Service "{key.name}" is invalid: spec.clusterIPs: Invalid value: {why}.'
            raise Refusal(422, "Invalid", f"{message} The range of valid IPs is {SERVICES}")

    def _complete_service(self, spec: Document, live: Document | None) -> None:
        spec.setdefault("type", "ClusterIP")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])
        if spec["type"] != "ExternalName" and "clusterIP" not in spec:
            spec["clusterIP"] = live["spec"]["clusterIP"] if live else next(self._addresses)

    def _validate(self, key: Key, document: Document) -> None:
        try:
            kubernetes_validate.validate(document, self.version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(part) for part in error.path)
            message = f'{key.kind.name} "{key.name}" is invalid: {where or "(root)"}: {error.message}'
            raise Refusal(422, "Invalid", message) from None
        except kubernetes_validate.SchemaNotFoundError:
            if key.kind in BUILT_IN and key.kind != DEFINITION:
                raise

    def _record(self, event_type: str, key: Key, document: Document) -> Event:
        """Note a change under the lock that its caller holds."""
        event = Event(len(self._events) + 1, event_type, key, document)
        document["metadata"]["resourceVersion"] = str(event.version)
        if event_type != "DELETED":
            self._objects[key] = document
        self._events.append(event)
        self._changed.notify_all()
        return event

    def _tell(self, event: Event) -> None:
        for subscriber in list(self._subscribers):
            subscriber(event.type, copy.deepcopy(event.document))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def not_found(key: Key) -> Refusal:
    return Refusal(404, "NotFound", f'{key.kind.resource} "{key.name}" not found')


def _selected(key: Key, document: Document, kind: Kind, namespace: str, selectors: dict[str, str]) -> bool:
    """Whether a list or watch is about this object."""
    if key.kind != kind or namespace not in ("", key.namespace):
        return False
    labels = document["metadata"].get("labels") or {}
    return _matches(selectors.get("labelSelector", ""), labels.get) and _matches(
        selectors.get("fieldSelector", ""), lambda path: _at(document, path)
    )


def _matches(selector: str, look_up: Callable[[str], object]) -> bool:
    """The selectors that clients send here: a=b, a==b and a!=b."""
    for term in filter(None, selector.split(",")):
        name, _, value = term.partition("=")
        if (look_up(name.rstrip("!")) == value.removeprefix("=")) == name.endswith("!"):
            return False
    return True


def _at(document: Document, path: str) -> object:
    """The text at a path such as metadata.name, empty where there is none."""
    found: object = document
    for name in path.split("."):
        found = found.get(name, "") if isinstance(found, dict) else ""
    return found

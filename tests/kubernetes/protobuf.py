"""Reads the few messages that Helm and controllers send in Kubernetes' binary form, which is their own choice.

A message is made of fields, each a number and a value; what the numbers mean is in Kubernetes' generated.proto files.
"""

import base64
from collections.abc import Iterator

from tests.kubernetes.kinds import Document

MAGIC = b"k8s\0"

# Of each message the fields that are sent: a name, and what the value is: a text, a number, bytes, a message by its
# name, a map (from texts) or a list of such, or nothing of interest.
MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "ConfigMap": {1: ("metadata", "ObjectMeta"), 2: ("data", "map text"), 3: ("binaryData", "map bytes")},
    "DeleteOptions": {1: ("gracePeriodSeconds", "number"), 4: ("propagationPolicy", "text")},
    "Ingress": {1: ("metadata", "ObjectMeta"), 2: ("spec", ""), 3: ("status", "IngressStatus")},
    "IngressLoadBalancerIngress": {1: ("ip", "text"), 2: ("hostname", "text")},
    "IngressLoadBalancerStatus": {1: ("ingress", "list IngressLoadBalancerIngress")},
    "IngressStatus": {1: ("loadBalancer", "IngressLoadBalancerStatus")},
    "Namespace": {1: ("metadata", "ObjectMeta"), 2: ("spec", ""), 3: ("status", "")},
    "ObjectMeta": {
        1: ("name", "text"), 2: ("generateName", "text"), 3: ("namespace", "text"), 4: ("selfLink", ""),
        5: ("uid", "text"), 6: ("resourceVersion", "text"), 7: ("generation", "number"), 8: ("creationTimestamp", ""),
        11: ("labels", "map text"), 12: ("annotations", "map text"), 17: ("managedFields", ""),
    },
    "Secret": {1: ("metadata", "ObjectMeta"), 2: ("data", "map bytes"), 3: ("type", "text")},
    "TypeMeta": {1: ("apiVersion", "text"), 2: ("kind", "text")},
    "Unknown": {1: ("typeMeta", "TypeMeta"), 2: ("raw", "raw"), 3: ("contentEncoding", ""), 4: ("contentType", "")},
}  # fmt: skip


def parse(content: bytes) -> Document:
    """Read an object in its envelope."""
    envelope = _message("Unknown", content.removeprefix(MAGIC))
    about: Document = envelope["typeMeta"]
    return about | _message(about["kind"], envelope.get("raw", b""))


def _message(name: str, content: bytes) -> Document:
    document: Document = {}
    for number, value in _fields(content):
        field, kind = MESSAGES[name][number]
        container, _, item = kind.rpartition(" ")
        if container == "map":
            pair = dict(_fields(value if isinstance(value, bytes) else b""))
            document.setdefault(field, {})[_value("text", pair[1])] = _value(item, pair.get(2, b""))
        elif container == "list":
            document.setdefault(field, []).append(_value(item, value))
        elif kind and value:  # an empty text is one that is not there
            document[field] = _value(kind, value)
    return document


def _value(kind: str, value: int | bytes) -> object:
    if isinstance(value, int) or kind == "raw":
        return value
    match kind:
        case "text":
            return value.decode()
        case "bytes":
            return base64.b64encode(value).decode()
        case _:
            return _message(kind, value)


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The numbers and values in a message: whole numbers, and whatever has a length."""
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(content):
        field, wire_type = divmod(number(), 8)
        value = number()
        if wire_type == 0:
            yield field, value
        elif wire_type == 2:
            yield field, content[position : position + value]
            position += value
        else:
            raise ValueError(f"field {field} is of the unexpected type {wire_type}")

"""The values of the Helm chart that are the project's own."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import yaml

from devkit.answers import Answers

HEADER = """\
# The values of chart/, written by scripts/generate.py. Secret: they hold the server's keys (not the CA's).
#   helm upgrade --install devkit ./chart -n docker-for-mac --create-namespace -f local/values.yaml
"""
FINGERPRINT = "fingerprint"
ADMISSION = ("clients", "revocations", "material", FINGERPRINT)


def chart_values(
    answers: Answers, server_conf: str, material: Mapping[str, bytes], clients: Sequence[str], revocations: str
) -> bytes:
    """The chart's values: `material` is what the server mounts, by file name; `revocations` is a digest.

    Their `fingerprint` is a digest of all the others: a cluster that has another one does not have these values yet.
    """
    values = {
        "image": {"repository": answers.image},
        # Docker Desktop's one node is the engine's machine.
        "dockerNetworks": answers.kubernetes == "docker-desktop",
        "vpn": {
            "protocol": answers.vpn_protocol,
            "port": answers.vpn_port,
            "subnet": str(answers.vpn_subnet),
            "routes": [str(route) for route in answers.routes],
        },
        "service": {"type": answers.service_type},
        "clients": list(clients),
        "revocations": revocations,
        "serverConf": server_conf,
        "material": {name: content.decode() for name, content in material.items()},
    }
    fingerprint = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
    document = yaml.dump(
        values | {FINGERPRINT: fingerprint}, Dumper=_ReadableDumper, sort_keys=False, allow_unicode=True
    )
    return (HEADER + document).encode()


def fingerprint_of(values: bytes) -> str:
    """The fingerprint in what `chart_values` made."""
    return str(yaml.safe_load(values)[FINGERPRINT])


def admission_part(values: bytes) -> bytes:
    """The part of `chart_values` that says who may connect, and with which keys."""
    document = yaml.safe_load(values)
    return yaml.safe_dump({name: document[name] for name in ADMISSION}).encode()


def settings_part(values: bytes) -> bytes:
    """All the rest of it."""
    document = yaml.safe_load(values)
    return yaml.safe_dump({name: value for name, value in document.items() if name not in ADMISSION}).encode()


class _ReadableDumper(yaml.SafeDumper):
    """Writes texts of several lines as block scalars."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Helm reads 1e5 as a number and y as a truth value, and PyYAML does not.
    style = "|" if "\n" in text else '"' if text[:1].isdigit() or text in ("y", "Y", "n", "N") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_ReadableDumper.add_representer(str, _text)

"""What the unit tests share: answers as Copier writes them, and keys that follow from them, in memory."""

from datetime import UTC, datetime

from devkit.answers import Answers, parse_answers
from devkit.keys.model import Generation
from devkit.material.rotation import first_generation

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOCUMENT: dict[str, object] = {
    "project_name": "devkit",
    "client_name": "laptop",
    "vpn_host": "",
    "vpn_listen": "",
    "vpn_port": 1194,
    "vpn_protocol": "tcp",
    "kubernetes": "none",
    "vpn_subnet": "10.213.94.0/24",
    "routes": ["172.16.0.0/12", "192.168.64.0/24"],
    "dns_domain": "",
    "service_type": "LoadBalancer",
    "image_registry": "",
    "key_type": "ecdsa-p256",
    "certificate_days": 100,
    "authority_days": 1000,
}


def answers(**changes: object) -> Answers:
    """The answers of a project, apart from these changes."""
    return parse_answers(DOCUMENT | changes)


def generation(**changes: object) -> Generation:
    """The first generation of a project with these answers."""
    return first_generation(answers(**changes), NOW)

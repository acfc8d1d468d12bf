"""The CA for HTTPS: a root that computers trust, and an intermediate that signs for the proxy. Pure.

Both can vouch for TLS servers below one domain, and for nothing else (RFC 5280, 4.2.1.10 and 4.2.1.12): the constraints
stand in both, as old verifiers do not read a root's. The root's key is needed to renew the intermediate alone.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_network

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    DNSName,
    ExtendedKeyUsage,
    ExtensionNotFound,
    IPAddress,
    NameConstraints,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from devkit.keys import x509
from devkit.keys.x509 import Credential, KeyType

NAME = "d4m-devkit HTTPS"  # how the subject of each root begins: a computer that trusts one knows it by that
INTERMEDIATE_DAYS = 398
PURPOSE = ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
NO_ADDRESSES = [IPAddress(ip_network(each)) for each in ("0.0.0.0/0", "::/0")]


@dataclass(frozen=True)
class HttpsCA:
    """A root, and the intermediate that it has signed; `copier update` replaces that, and the root hardly ever."""

    root: Credential
    intermediate: Credential | None  # None where it is lost: the root makes another

    @property
    def domain(self) -> str:
        """The domain that it vouches for."""
        return domain(self.root.certificate)


def new(project: str, domain: str, key_type: KeyType, days: int, now: datetime) -> HttpsCA:
    """Make a root for so many days, and its first intermediate."""
    # No browser takes Ed25519.
    key_type = "ecdsa-p256" if key_type == "ed25519" else key_type
    constraints = (NameConstraints(permitted_subtrees=[DNSName(domain)], excluded_subtrees=NO_ADDRESSES), PURPOSE)
    root = x509.new_ca(f"{NAME} {project[:20]}", key_type, days, now, constraints, path_length=1)
    return HttpsCA(root, _intermediate(root, key_type, now))


def with_new_intermediate(ca: HttpsCA, now: datetime) -> HttpsCA:
    """The same root with a new intermediate, of its kind of key."""
    key_type: KeyType = "rsa-3072" if isinstance(ca.root.key, RSAPrivateKey) else "ecdsa-p256"
    return replace(ca, intermediate=_intermediate(ca.root, key_type, now))


def is_due(ca: HttpsCA, now: datetime) -> bool:
    """Whether a third or less of the intermediate's time is left, and a new one would have more."""
    if ca.intermediate is None:
        return True
    expiry = ca.intermediate.expiry
    third = (expiry - ca.intermediate.certificate.not_valid_before_utc) / 3
    return expiry - now <= third and expiry < ca.root.expiry


def domain(root: Certificate) -> str:
    """The domain that a root is constrained to. Raises ValueError when it is not a root that vouches for one alone."""
    try:
        basic = root.extensions.get_extension_for_class(BasicConstraints)
        names = root.extensions.get_extension_for_class(NameConstraints)
        purpose = root.extensions.get_extension_for_class(ExtendedKeyUsage)
    except ExtensionNotFound as error:
        raise ValueError("it is not constrained") from error
    permitted = names.value.permitted_subtrees or []
    if not basic.value.ca or not names.critical or set(purpose.value) != set(PURPOSE):
        raise ValueError("it can vouch for more than TLS servers")
    if not all(each in (names.value.excluded_subtrees or []) for each in NO_ADDRESSES):
        raise ValueError("it can vouch for addresses")
    if len(permitted) != 1 or not isinstance(permitted[0], DNSName):
        raise ValueError("it can vouch for more than one domain")
    return permitted[0].value


def _intermediate(root: Credential, key_type: KeyType, now: datetime) -> Credential:
    names = root.certificate.extensions.get_extension_for_class(NameConstraints).value
    name = f"{x509.common_name(root.certificate)[:40]} intermediate"
    return x509.issue_ca(root, name, key_type, timedelta(days=INTERMEDIATE_DAYS), now, (names, PURPOSE))

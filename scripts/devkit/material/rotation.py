"""The life cycle: how one generation follows from another. Pure: nothing here touches a file or the clock."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

from cryptography.x509 import CertificateRevocationList, load_pem_x509_crl

from devkit import vpn
from devkit.answers import Answers
from devkit.keys import https, x509
from devkit.keys.https import HttpsCA
from devkit.keys.model import CA, SERVER, SERVER_DOMAIN, Client, Generation, LaneKeys
from devkit.keys.x509 import Credential

RotationKind = Literal["leaf", "all", "none"]

END_OF_CRL = b"-----END X509 CRL-----\n"


def first_generation(answers: Answers, now: datetime) -> Generation:
    """Make a new CA and all that follows from it."""
    ca = CA(x509.new_ca(answers.project_name, answers.key_type, answers.authority_days, now))
    generation = Generation(
        number=1,
        ca=ca,
        previous_ca=None,
        server=_issue_server(ca, f"{SERVER_DOMAIN}{answers.project_name}", answers, now),
        keys={lane.name: lane.new_server_key() for lane in vpn.LANES},
        clients=(),
        crl=b"",
        server_crl=b"",
        replaced={},
    )
    return with_clients(with_https(with_crls(generation, now), answers, now), [answers.client_name], answers, now)


def with_clients(generation: Generation, names: Sequence[str], answers: Answers, now: datetime) -> Generation:
    """Issue certificates to more clients; one that was revoked under the same name is replaced, and stays revoked."""
    new = tuple(
        Client(name, _issue_client(generation.ca, name, answers, now), _new_client_keys(generation.keys, now))
        for name in names
    )
    kept = tuple(client for client in generation.clients if client.name not in names)
    # What it used before its last renewal must not come back with its name.
    generation = _revoking(generation, _replaced_of(generation, names), now)
    return with_crls(replace(generation, clients=tuple(sorted(kept + new, key=lambda each: each.name))), now)


def with_https(generation: Generation, answers: Answers, now: datetime) -> Generation:
    """See that there is a CA for HTTPS if there is a domain, the right one, with an intermediate that lasts."""
    ca = generation.https
    if not answers.dns_domain:
        return generation
    if ca is None or ca.domain != answers.dns_domain or ca.root.expiry <= now:
        return replace(generation, https=_new_https(answers, now))
    if https.is_due(ca, now):
        return replace(generation, https=https.with_new_intermediate(ca, now))
    return generation


def without_client(generation: Generation, name: str, now: datetime) -> Generation:
    """Revoke a client's certificate, and the one that it replaced."""
    serial_numbers = [client.credential.serial_number for client in generation.clients if client.name == name]
    return with_crls(_revoking(generation, [*serial_numbers, *_replaced_of(generation, [name])], now), now)


def rotated(
    current: Generation,
    kind: RotationKind,
    revoke_now: bool,
    answers: Answers,
    now: datetime,
) -> Generation:
    """Renew the server's and all live clients' certificates.

    What the generation before the current one issued (`replaced`) is revoked, so a profile outlives one rotation; with
    `revoke_now`, so is what the current one issued. A new CA (`all`) signs clients only: until the next rotation the
    server's certificate comes from the previous CA, the only one that the profiles in use know. With `revoke_now`
    nothing that the previous CA signed is trusted any more, and no lane's keys are kept, so neither helps a thief.
    The CA for HTTPS has a new intermediate; with `all` it is new itself, and computers have to be told.
    """
    replaced = current.in_use()
    doomed = [*(current.replaced or {}).values(), *(replaced.values() if revoke_now else ())]
    live = current.live_clients
    refused = tuple(client for client in current.clients if client.credential.serial_number in current.revoked)
    current = _revoking(current, doomed, now)
    ca, previous_ca, keys = current.ca, None, current.keys
    if kind == "all":
        credential = x509.new_ca(answers.project_name, answers.key_type, answers.authority_days, now)
        # The new CA's CRL takes over the refused clients, or they would come back once the old CA is gone.
        ca = CA(credential).revoking([client.credential.serial_number for client in refused], now)
        if revoke_now:
            keys = {lane.name: lane.new_server_key() for lane in vpn.LANES}
        elif current.ca.credential.expiry > now:  # one that has expired cannot help any more
            previous_ca = current.ca
    renewed = tuple(
        replace(
            client,
            credential=_issue_client(ca, client.name, answers, now),
            keys=client.keys if keys == current.keys else _new_client_keys(keys, now),
        )
        for client in live
    )
    following = replace(
        current,
        number=current.number + 1,
        ca=ca,
        previous_ca=previous_ca,
        server=_issue_server(previous_ca or ca, current.server_name, answers, now),
        keys=keys,
        clients=tuple(sorted(renewed + refused, key=lambda client: client.name)),
        replaced={} if revoke_now else replaced,
    )
    if answers.dns_domain and following.https is not None:  # made anew as far as it is missing
        renewed_https = None if kind == "all" else replace(following.https, intermediate=None)
        following = replace(following, https=renewed_https)
    return with_crls(with_https(following, answers, now), now)


def with_crls(generation: Generation, now: datetime) -> Generation:
    """Bring both CRLs up to date.

    The server's own CRL leaves out the clients that it refuses by name: they are told so, whereas a listed
    certificate ends in a reset, or over UDP in a time-out.
    """
    by_name = _refused_by_name(generation)
    full, reduced = b"", b""
    known = [*parse_crls(generation.crl), *parse_crls(generation.server_crl)]
    for ca in generation.cas:
        issuer = ca.credential.certificate.subject
        last_number = max((x509.crl_number(each) for each in known if each.issuer == issuer), default=0)
        listed = [entry for entry in ca.revoked if entry.serial_number not in by_name]
        full += x509.new_crl(ca.credential, ca.revoked, now, last_number)
        reduced += x509.new_crl(ca.credential, listed, now, last_number)
    return replace(generation, crl=full, server_crl=reduced)


def settled(generation: Generation, now: datetime) -> Generation:
    """The same generation, with the server's CRL made anew if it is damaged or outdated by an interrupted run.

    So is an intermediate for HTTPS that is lost.
    """
    listed = {entry.serial_number for each in parse_crls(generation.server_crl) for entry in each}
    damaged = not generation.server_crl
    behind = listed != generation.revoked - _refused_by_name(generation)
    ca = generation.https
    if ca is not None and ca.intermediate is None and ca.root.expiry > now:
        generation = replace(generation, https=https.with_new_intermediate(ca, now))
    return with_crls(generation, now) if damaged or behind else generation


def parse_crls(pem: bytes) -> Iterator[CertificateRevocationList]:
    """The CRLs of a bundle."""
    return map(load_pem_x509_crl, split_crls(pem))


def split_crls(pem: bytes) -> Sequence[bytes]:
    """The PEM of each CRL of a bundle, and what follows the last one, if anything does."""
    *blocks, rest = pem.split(END_OF_CRL)
    return [block + END_OF_CRL for block in blocks] + ([rest] if rest else [])


def _refused_by_name(generation: Generation) -> set[int]:
    """The serial numbers of clients that the server refuses by their name."""
    live = generation.live_names | {SERVER}
    own = {client.credential.serial_number for client in generation.clients if client.name.casefold() not in live}
    return own | {number for name, number in (generation.replaced or {}).items() if name.casefold() not in live}


def _new_https(answers: Answers, now: datetime) -> HttpsCA:
    return https.new(answers.project_name, answers.dns_domain, answers.key_type, answers.authority_days, now)


def _new_client_keys(server_keys: LaneKeys, now: datetime) -> Mapping[str, bytes]:
    return {lane.name: lane.new_client_key(server_keys[lane.name], now) for lane in vpn.LANES}


def _issue_server(ca: CA, name: str, answers: Answers, now: datetime) -> Credential:
    return x509.issue(ca.credential, x509.SERVER, [name], answers.key_type, answers.certificate_days, now)


def _issue_client(ca: CA, name: str, answers: Answers, now: datetime) -> Credential:
    return x509.issue(ca.credential, x509.CLIENT, [name], answers.key_type, answers.certificate_days, now)


def _replaced_of(generation: Generation, names: Collection[str]) -> Sequence[int]:
    return [number for name, number in (generation.replaced or {}).items() if name in names]


def _revoking(generation: Generation, serial_numbers: Sequence[int], now: datetime) -> Generation:
    """Put serial numbers on the CRL of the CA that issued them."""
    # Both CAs list each number: it has 128 random bits, so the CA that did not issue it loses nothing.
    previous = generation.previous_ca
    return replace(
        generation,
        ca=generation.ca.revoking(serial_numbers, now),
        previous_ca=previous.revoking(serial_numbers, now) if previous else None,
    )

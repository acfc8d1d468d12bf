"""Certificates and lists, read as a client or a server reads them."""

from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from devkit.keys.x509 import (
    CLIENT,
    SERVER,
    Credential,
    KeyType,
    Role,
    common_name,
    crl_number,
    issue,
    load_certificate,
    load_credential,
    load_crl,
    new_ca,
    new_crl,
    revocation,
)

from tests.unit.made import NOW

Extension = TypeVar("Extension", bound=x509.ExtensionType)

FIVE_MINUTES = timedelta(minutes=5)
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
          "key_cert_sign", "crl_sign")  # fmt: skip
CA = new_ca("devkit", "ecdsa-p256", 10, NOW)
OTHER_CA = new_ca("devkit", "ecdsa-p256", 10, NOW)


def leaf(role: Role = CLIENT, key_type: KeyType = "ecdsa-p256", days: int = 3, ca: Credential = CA) -> Credential:
    return issue(ca, role, ["one.example.org", "two.example.org"], key_type, days, NOW)


def critical(certificate: x509.Certificate) -> dict[str, bool]:
    return {type(each.value).__name__: each.critical for each in certificate.extensions}


def usages(certificate: x509.Certificate) -> set[str]:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    return {name for name in USAGES if getattr(usage, name)}


def value(certificate: x509.Certificate, kind: type[Extension]) -> Extension:
    return certificate.extensions.get_extension_for_class(kind).value


def crl(ca: Credential, *numbers: int, now: datetime = NOW, last: int = 0) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(new_crl(ca, [revocation(number, now) for number in numbers], now, last))


def test_authority_signs_leaves_and_lists_and_nothing_else() -> None:
    made = CA.certificate
    assert critical(made) == {"BasicConstraints": True, "KeyUsage": True, "SubjectKeyIdentifier": False}
    assert value(made, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    assert usages(made) == {"key_cert_sign", "crl_sign"}
    assert made.issuer == made.subject
    made.verify_directly_issued_by(made)
    assert (made.not_valid_before_utc, CA.expiry) == (NOW - FIVE_MINUTES, NOW + timedelta(days=10))


@pytest.mark.parametrize("name", ["devkit", "d" * 40])
def test_two_authorities_of_a_project_have_different_names_that_fit_into_a_certificate(name: str) -> None:
    names = [common_name(new_ca(name, "ecdsa-p256", 1, NOW).certificate) for _ in range(2)]
    assert names[0] != names[1]
    assert all(each.startswith(f"{name} CA 1") and len(each) <= 64 for each in names)


def test_authoritys_name_ends_with_its_serial_number() -> None:
    assert common_name(CA.certificate) == f"devkit CA {CA.serial_number:x}"


def test_authority_may_be_held_to_a_domain_critically() -> None:
    constraint = x509.NameConstraints([x509.DNSName("d4m.internal")], None)
    made = new_ca("devkit", "ecdsa-p256", 1, NOW, [constraint]).certificate
    assert value(made, x509.NameConstraints) == constraint
    assert critical(made)["NameConstraints"]


@pytest.mark.parametrize(
    ("role", "purpose", "more"),
    [
        (SERVER, ExtendedKeyUsageOID.SERVER_AUTH, {"SubjectAlternativeName": False}),
        (CLIENT, ExtendedKeyUsageOID.CLIENT_AUTH, {}),
    ],
)
def test_leaf_is_for_its_own_purpose(role: Role, purpose: x509.ObjectIdentifier, more: dict[str, bool]) -> None:
    made = leaf(role).certificate
    assert critical(made) == more | {
        "BasicConstraints": True, "KeyUsage": True, "ExtendedKeyUsage": False, "SubjectKeyIdentifier": False,
        "AuthorityKeyIdentifier": False,
    }  # fmt: skip
    assert value(made, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
    assert list(value(made, x509.ExtendedKeyUsage)) == [purpose]
    assert common_name(made) == "one.example.org"
    made.verify_directly_issued_by(CA.certificate)
    by = value(made, x509.AuthorityKeyIdentifier).key_identifier
    assert by == value(CA.certificate, x509.SubjectKeyIdentifier).digest
    if more:
        names = value(made, x509.SubjectAlternativeName).get_values_for_type(x509.DNSName)
        assert names == ["one.example.org", "two.example.org"]


@pytest.mark.parametrize(
    ("role", "key_type", "expected"),
    [
        (SERVER, "ecdsa-p256", {"digital_signature", "key_agreement"}),
        (SERVER, "ed25519", {"digital_signature"}),
        (CLIENT, "ecdsa-p256", {"digital_signature"}),
        (CLIENT, "ed25519", {"digital_signature"}),
    ],
)
def test_only_a_servers_elliptic_curve_key_agrees_on_keys(role: Role, key_type: KeyType, expected: set[str]) -> None:
    assert usages(leaf(role, key_type).certificate) == expected


def test_keys_are_of_the_type_that_was_asked_for() -> None:
    assert isinstance(CA.key, EllipticCurvePrivateKey)
    assert isinstance(CA.key.curve, SECP256R1)
    assert isinstance(leaf(key_type="ed25519").key, Ed25519PrivateKey)
    rsa = leaf(SERVER, "rsa-3072")
    assert isinstance(rsa.key, RSAPrivateKey)
    assert (rsa.key.key_size, rsa.key.private_numbers().public_numbers.e) == (3072, 65537)
    assert usages(rsa.certificate) == {"digital_signature"}


def test_authoritys_key_signs_with_the_digest_that_belongs_to_it() -> None:
    assert CA.certificate.signature_hash_algorithm is not None
    assert CA.certificate.signature_hash_algorithm.name == "sha256"
    made = new_ca("devkit", "ed25519", 10, NOW)
    assert leaf(ca=made).certificate.signature_hash_algorithm is None
    assert crl(made).signature_hash_algorithm is None


@pytest.mark.parametrize(("days", "valid"), [(3, 3), (10, 10), (11, 10)])
def test_leaf_never_outlives_its_authority(days: int, valid: int) -> None:
    made = leaf(days=days)
    assert made.expiry == NOW + timedelta(days=valid)
    assert made.certificate.not_valid_before_utc == NOW - FIVE_MINUTES


def test_serial_numbers_are_random_and_as_long_as_each_other() -> None:
    numbers = {leaf().serial_number for _ in range(20)}
    assert len(numbers) == 20
    assert {number.bit_length() for number in numbers} == {129}


def test_revocation_list_lists_what_is_revoked_until_its_authority_ends() -> None:
    made = crl(CA, 5, 7)
    assert [entry.serial_number for entry in made] == [5, 7]
    assert {entry.revocation_date_utc for entry in made} == {NOW}
    assert made.issuer == CA.certificate.subject
    assert made.is_signature_valid(CA.certificate.public_key())  # type: ignore[arg-type]  # a CA's key signs
    assert (made.last_update_utc, made.next_update_utc) == (NOW - FIVE_MINUTES, CA.expiry)
    assert {type(each.value).__name__: each.critical for each in made.extensions} == {
        "AuthorityKeyIdentifier": False, "CRLNumber": False,
    }  # fmt: skip
    by = made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert by.key_identifier == value(CA.certificate, x509.SubjectKeyIdentifier).digest


def test_revocation_list_of_an_ended_authority_is_dated_back() -> None:
    made = crl(CA, now=CA.expiry + timedelta(days=1))
    assert (made.last_update_utc, made.next_update_utc) == (CA.expiry - FIVE_MINUTES, CA.expiry)


def test_newer_list_has_the_higher_number_even_when_the_clock_does_not_move() -> None:
    time = int(NOW.timestamp() * 1_000_000)
    assert crl_number(crl(CA)) == time
    assert crl_number(crl(CA, now=NOW + timedelta(microseconds=3), last=time)) == time + 3
    assert crl_number(crl(CA, last=time)) == time + 1
    assert crl_number(crl(CA, last=time + 8)) == time + 9


def test_certificate_is_read_back_when_it_signed_itself_or_its_issuer_is_there() -> None:
    made = leaf()
    assert load_certificate(CA.certificate_pem) == CA.certificate
    assert load_certificate(made.certificate_pem, [OTHER_CA.certificate, CA.certificate]) == made.certificate


def test_certificate_that_somebody_else_issued_is_refused_unless_it_is_revoked() -> None:
    made = leaf()
    for issuers in ([], [OTHER_CA.certificate]):
        with pytest.raises(ValueError, match="another CA issued it"):
            load_certificate(made.certificate_pem, issuers)
    assert load_certificate(made.certificate_pem, [OTHER_CA.certificate], {made.serial_number}) == made.certificate


def test_certificate_with_a_forged_issuer_is_refused() -> None:
    named_alike = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(CA.certificate))])
    forged = (
        x509.CertificateBuilder(named_alike, named_alike, OTHER_CA.key.public_key(), 1, NOW, CA.expiry)
        .sign(OTHER_CA.key, OTHER_CA.certificate.signature_hash_algorithm)  # type: ignore[arg-type]  # SHA-256
        .public_bytes(Encoding.PEM)
    )
    with pytest.raises(ValueError, match="it is damaged"):
        load_certificate(forged, [CA.certificate])


def test_key_is_read_back_with_its_own_certificate_only() -> None:
    assert CA.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert CA.certificate_pem.startswith(b"-----BEGIN CERTIFICATE-----\n")
    found = load_credential(CA.certificate, CA.key_pem)
    assert (found.certificate, found.key_pem) == (CA.certificate, CA.key_pem)
    with pytest.raises(ValueError, match="the private key does not belong to the certificate"):
        load_credential(CA.certificate, OTHER_CA.key_pem)


@pytest.mark.parametrize(
    "damaged", [b"", b"\xff", CA.key_pem[:100], CA.certificate_pem], ids=["empty", "binary", "cut", "certificate"]
)
def test_damaged_key_is_a_value_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_credential(CA.certificate, damaged)


def test_key_with_a_password_is_a_value_error() -> None:
    locked = CA.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    with pytest.raises(ValueError, match="it is damaged: Password"):
        load_credential(CA.certificate, locked)


def test_list_is_read_back_when_its_authority_signed_it() -> None:
    pem = new_crl(CA, [revocation(5, NOW)], NOW, 0)
    assert [entry.serial_number for entry in load_crl(pem, CA.certificate)] == [5]
    with pytest.raises(ValueError, match="its signature is wrong"):
        load_crl(pem, OTHER_CA.certificate)
    with pytest.raises(ValueError, match=r"."):
        load_crl(CA.certificate_pem, CA.certificate)


def test_certificate_for_two_names_is_for_none() -> None:
    two = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("one", "two")])
    builder = x509.CertificateBuilder(two, two, CA.key.public_key(), 1, datetime(2026, 1, 1, tzinfo=UTC), CA.expiry)
    digest = CA.certificate.signature_hash_algorithm
    with pytest.raises(ValueError, match="too many values"):
        common_name(builder.sign(CA.key, digest))  # type: ignore[arg-type]  # SHA-256

"""The project's own public key infrastructure: a certificate authority, leaves, and revocation lists.

Pure: nothing here touches a file. Certificates follow RFC 5280; times are UTC, serial numbers have 128 bits.
"""

import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KeyType = Literal["ecdsa-p256", "ed25519", "rsa-3072"]
PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey

# A client whose clock is a little behind still accepts a new certificate.
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Credential:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def serial_number(self) -> int:
        """The certificate's serial number."""
        return self.certificate.serial_number

    @property
    def end(self) -> datetime:
        """When the certificate stops being valid (UTC)."""
        return self.certificate.not_valid_after_utc

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS #8 PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_certificate(
    pem: bytes, issuers: Sequence[x509.Certificate] = (), revoked: Collection[int] = ()
) -> x509.Certificate:
    """Read back `Credential.certificate_pem`; without issuers the certificate must be its own.

    Raises ValueError when it is damaged, or signed by somebody else and not among the revoked serial numbers.
    """
    with _damage_as_value_error():
        certificate = x509.load_pem_x509_certificate(pem)
        if certificate.serial_number in revoked:
            return certificate
        by_name = [issuer for issuer in issuers or [certificate] if issuer.subject == certificate.issuer]
        if not by_name:
            raise ValueError("it was issued by another authority")
        certificate.verify_directly_issued_by(by_name[0])
        return certificate


def load_credential(certificate: x509.Certificate, key_pem: bytes) -> Credential:
    """Read back `Credential.key_pem`.

    Raises ValueError when it is damaged or does not belong to the certificate.
    """
    with _damage_as_value_error():
        key = load_pem_private_key(key_pem, password=None)
        if not isinstance(key, PrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the private key does not belong to the certificate")
        return Credential(certificate, key)


def load_revocation_list(pem: bytes, authority: x509.Certificate) -> x509.CertificateRevocationList:
    """Read back what `revocation_list` gave. Raises ValueError when it is damaged, or signed by somebody else."""
    with _damage_as_value_error():
        revoked = x509.load_pem_x509_crl(pem)
        if not revoked.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]  # an authority's key signs
            raise ValueError("its signature is wrong")
        return revoked


@contextmanager
def _damage_as_value_error() -> Iterator[None]:
    try:
        yield
    except (TypeError, InternalError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ValueError(f"it is damaged: {error}") from error


def common_name(certificate: x509.Certificate) -> str:
    """The name that a certificate is for. Raises ValueError when it has not exactly one."""
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def new_authority(project_name: str, key_type: KeyType, days: int, now: datetime) -> Credential:
    """Make a self-signed authority that may sign leaves and revocation lists, and no further authority.

    Its subject is unique: two authorities with one subject in a bundle make OpenVPN 2.6 exit.
    """
    key = _new_key(key_type)
    serial_number = _new_serial_number()
    name = _common_name(f"{project_name} CA {serial_number:032x}"[:64])
    builder = _builder(name, key, serial_number, now, now + timedelta(days=days)).issuer_name(name)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, _digest(key))
    )
    return Credential(certificate, key)


def issue_server(authority: Credential, name: str, key_type: KeyType, days: int, now: datetime) -> Credential:
    """Issue a certificate that can only be a TLS server's."""
    # RFC 5480 lets an elliptic curve key agree on keys; RFC 8410 forbids it to Ed25519, and RSA has no such use.
    usage = _key_usage(digital_signature=True, key_agreement=key_type == "ecdsa-p256")
    alternative_name = x509.SubjectAlternativeName([x509.DNSName(name)])
    return _issue(authority, name, key_type, days, now, usage, ExtendedKeyUsageOID.SERVER_AUTH, alternative_name)


def issue_client(authority: Credential, name: str, key_type: KeyType, days: int, now: datetime) -> Credential:
    """Issue a certificate that can only be a TLS client's."""
    usage = _key_usage(digital_signature=True)
    return _issue(authority, name, key_type, days, now, usage, ExtendedKeyUsageOID.CLIENT_AUTH, None)


def revocation(serial_number: int, now: datetime) -> x509.RevokedCertificate:
    """Make an entry for a revocation list."""
    return x509.RevokedCertificateBuilder().serial_number(serial_number).revocation_date(now).build()


def list_number(revoked: x509.CertificateRevocationList) -> int:
    """The number of a revocation list: of two lists the one with the higher is newer."""
    return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def revocation_list(
    authority: Credential, revoked: Iterable[x509.RevokedCertificate], now: datetime, last_number: int
) -> bytes:
    """Make the authority's revocation list, as PEM.

    Its number is the time in microseconds, or the one after the last if the clock has not moved on since.
    It ends with its authority: OpenVPN rejects every client once a list has lapsed. One that is made later, of an
    authority that has ended, is dated back to that end.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(min(now, authority.end) - CLOCK_SKEW)
        .next_update(authority.end)
        .add_extension(_authority_key_identifier(authority.certificate), critical=False)
        .add_extension(x509.CRLNumber(max(int(now.timestamp() * 1_000_000), last_number + 1)), critical=False)
    )
    for certificate in revoked:
        builder = builder.add_revoked_certificate(certificate)
    return builder.sign(authority.key, _digest(authority.key)).public_bytes(Encoding.PEM)


def _issue(
    authority: Credential,
    name: str,
    key_type: KeyType,
    days: int,
    now: datetime,
    key_usage: x509.KeyUsage,
    purpose: x509.ObjectIdentifier,
    alternative_name: x509.SubjectAlternativeName | None,
) -> Credential:
    key = _new_key(key_type)
    # A leaf never outlives its authority.
    end = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    builder = (
        _builder(_common_name(name), key, _new_serial_number(), now, end)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_authority_key_identifier(authority.certificate), critical=False)
    )
    if alternative_name is not None:
        builder = builder.add_extension(alternative_name, critical=False)
    return Credential(builder.sign(authority.key, _digest(authority.key)), key)


def _new_key(key_type: KeyType) -> PrivateKey:
    match key_type:
        case "ecdsa-p256":
            return generate_ec_key(SECP256R1())
        case "ed25519":
            return Ed25519PrivateKey.generate()
        case "rsa-3072":
            return generate_rsa_key(public_exponent=65537, key_size=3072)


def _digest(key: PrivateKey) -> SHA256 | None:
    """What a signature by this key is over: Ed25519 brings a digest of its own (RFC 8410)."""
    return None if isinstance(key, Ed25519PrivateKey) else SHA256()


def _builder(
    subject: x509.Name, key: PrivateKey, serial_number: int, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(serial_number)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _new_serial_number() -> int:
    # 128 random bits below a leading one: positive, never zero, always 17 bytes (RFC 5280 4.1.2.2 allows 20).
    return secrets.randbits(128) | 1 << 128


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _authority_key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject)


def _key_usage(
    digital_signature: bool = False, key_agreement: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )

"""A public key infrastructure: CAs (certificate authorities), leaves by role, and CRLs (revocation lists).

Pure: nothing here touches a file. Certificates follow RFC 5280; times are UTC, serial numbers have 128 bits.
"""

import secrets
import warnings
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
    def expiry(self) -> datetime:
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
    """Read back `Credential.certificate_pem`; without issuers the certificate must be self-signed.

    Raises ValueError when it is damaged, or signed by somebody else and not among the revoked serial numbers.
    """
    with damage_as_value_error():
        certificate = x509.load_pem_x509_certificate(pem)
        if certificate.serial_number in revoked:
            return certificate
        by_name = [issuer for issuer in issuers or [certificate] if issuer.subject == certificate.issuer]
        if not by_name:
            raise ValueError("another CA issued it")
        certificate.verify_directly_issued_by(by_name[0])
        return certificate


def load_certificates(pem: bytes) -> Sequence[x509.Certificate]:
    """The certificates of a bundle, whoever signed them. Raises ValueError when there is none, or one is damaged."""
    with damage_as_value_error():
        return x509.load_pem_x509_certificates(pem)


def load_credential(certificate: x509.Certificate, key_pem: bytes) -> Credential:
    """Read back `Credential.key_pem`.

    Raises ValueError when it is damaged or does not belong to the certificate.
    """
    with damage_as_value_error():
        key = load_pem_private_key(key_pem, password=None)
        if not isinstance(key, PrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the private key does not belong to the certificate")
        return Credential(certificate, key)


def load_crl(pem: bytes, ca: x509.Certificate) -> x509.CertificateRevocationList:
    """Read back what `new_crl` made. Raises ValueError when it is damaged, or signed by somebody else."""
    with damage_as_value_error():
        crl = x509.load_pem_x509_crl(pem)
        if not crl.is_signature_valid(ca.public_key()):  # type: ignore[arg-type]  # a CA's key signs
            raise ValueError("its signature is wrong")
        return crl


@contextmanager
def damage_as_value_error() -> Iterator[None]:
    """Raise ValueError for whatever a damaged certificate or key makes cryptography raise, or only warn of."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except (TypeError, InternalError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, Warning) as error:
        raise ValueError(f"it is damaged: {error}") from error


def common_name(certificate: x509.Certificate) -> str:
    """The name that a certificate is for. Raises ValueError when it has not exactly one."""
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


@dataclass(frozen=True)
class Role:
    """What a leaf may be used for, and nothing else (RFC 5280, 4.2.1.3 and 4.2.1.12)."""

    purpose: x509.ObjectIdentifier
    agrees_on_keys: bool = False
    names_hosts: bool = False  # its names are DNS names of hosts, so they are in its subjectAltName, too


SERVER = Role(ExtendedKeyUsageOID.SERVER_AUTH, agrees_on_keys=True, names_hosts=True)
CLIENT = Role(ExtendedKeyUsageOID.CLIENT_AUTH)


def new_ca(
    name: str,
    key_type: KeyType,
    days: int,
    now: datetime,
    constraints: Sequence[x509.ExtensionType] = (),
    path_length: int = 0,
) -> Credential:
    """Make a self-signed CA that may sign leaves and CRLs, and no further CA unless `path_length` says so.

    Its subject is unique: two CAs with the same subject in a bundle make a server exit. `constraints` are further
    critical extensions, such as NameConstraints.
    """
    key = _new_key(key_type)
    serial_number = _new_serial_number()
    subject = _subject(f"{name} CA {serial_number:032x}"[:64])
    builder = (
        _builder(subject, key, serial_number, now, now + timedelta(days=days))
        .issuer_name(subject)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return Credential(_constrained(builder, path_length, constraints).sign(key, _digest(key)), key)


def issue_ca(
    ca: Credential, name: str, key_type: KeyType, lifetime: timedelta, now: datetime,
    constraints: Sequence[x509.ExtensionType],
) -> Credential:  # fmt: skip
    """Issue an intermediate CA, which may sign leaves and no further CA; its subject is unique, too."""
    key = _new_key(key_type)
    serial_number = _new_serial_number()
    subject = _subject(f"{name} {serial_number:032x}"[:64])
    builder = (
        _builder(subject, key, serial_number, now, min(now + lifetime, ca.expiry))
        .issuer_name(ca.certificate.subject)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_authority_key_identifier(ca.certificate), critical=False)
    )
    return Credential(_constrained(builder, 0, constraints).sign(ca.key, _digest(ca.key)), key)


def issue(ca: Credential, role: Role, names: Sequence[str], key_type: KeyType, days: int, now: datetime) -> Credential:
    """Issue a leaf; its common name is the first of the names."""
    key = _new_key(key_type)
    expiry = min(now + timedelta(days=days), ca.expiry)  # a leaf never outlives its CA
    # RFC 5480 lets an elliptic curve key agree on keys; RFC 8410 forbids it to Ed25519, and RSA has no such use.
    usage = _key_usage(digital_signature=True, key_agreement=role.agrees_on_keys and key_type == "ecdsa-p256")
    builder = (
        _builder(_subject(names[0]), key, _new_serial_number(), now, expiry)
        .issuer_name(ca.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([role.purpose]), critical=False)
        .add_extension(_authority_key_identifier(ca.certificate), critical=False)
    )
    if role.names_hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
    return Credential(builder.sign(ca.key, _digest(ca.key)), key)


def revocation(serial_number: int, now: datetime) -> x509.RevokedCertificate:
    """Make an entry for a CRL."""
    return x509.RevokedCertificateBuilder().serial_number(serial_number).revocation_date(now).build()


def crl_number(crl: x509.CertificateRevocationList) -> int:
    """A CRL's number: of two CRLs of one CA, the one with the higher number is newer."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def new_crl(ca: Credential, revoked: Iterable[x509.RevokedCertificate], now: datetime, last_number: int) -> bytes:
    """Make a CA's CRL, as PEM.

    Its number is the time in microseconds, or the one after the last if the clock has not moved on since.
    It expires with its CA: a server rejects every client once the CRL has expired. A CRL that is made after its CA has
    expired is dated back to that expiry.
    """
    builder = (
        x509.CertificateRevocationListBuilder(revoked_certificates=list(revoked))  # adding one copies all before it
        .issuer_name(ca.certificate.subject)
        .last_update(min(now, ca.expiry) - CLOCK_SKEW)
        .next_update(ca.expiry)
        .add_extension(_authority_key_identifier(ca.certificate), critical=False)
        .add_extension(x509.CRLNumber(max(int(now.timestamp() * 1_000_000), last_number + 1)), critical=False)
    )
    return builder.sign(ca.key, _digest(ca.key)).public_bytes(Encoding.PEM)


def _new_key(key_type: KeyType) -> PrivateKey:
    match key_type:
        case "ecdsa-p256":
            return generate_ec_key(SECP256R1())
        case "ed25519":
            return Ed25519PrivateKey.generate()
        case "rsa-3072":
            return generate_rsa_key(public_exponent=65537, key_size=3072)


def _constrained(
    builder: x509.CertificateBuilder, path_length: int, constraints: Sequence[x509.ExtensionType]
) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    for constraint in constraints:
        builder = builder.add_extension(constraint, critical=True)
    return builder


def _digest(key: PrivateKey) -> SHA256 | None:
    """The digest that this key signs; none for Ed25519, which has one of its own (RFC 8410)."""
    return None if isinstance(key, Ed25519PrivateKey) else SHA256()


def _builder(
    subject: x509.Name, key: PrivateKey, serial_number: int, now: datetime, expiry: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(serial_number)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(expiry)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _new_serial_number() -> int:
    # 128 random bits below a leading one: positive, never zero, always 17 bytes (RFC 5280 4.1.2.2 allows 20).
    return secrets.randbits(128) | 1 << 128


def _subject(name: str) -> x509.Name:
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

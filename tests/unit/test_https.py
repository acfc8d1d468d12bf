"""The CA for HTTPS: what it may vouch for, and what becomes of it over a project's life."""

from dataclasses import replace
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509 import BasicConstraints, DNSName, NameConstraints
from devkit.keys import https, x509
from devkit.keys.https import HttpsCA
from devkit.keys.model import Generation
from devkit.keys.x509 import Credential, KeyType
from devkit.material import contents
from devkit.material.contents import Readable
from devkit.material.expiry import expiries
from devkit.material.rotation import rotated, with_https
from devkit.vpn.openvpn.profile import names

from tests.unit.made import NOW, answers, generation

DOMAIN = "d4m.internal"
CA = https.new("shop", DOMAIN, "ecdsa-p256", 3650, NOW)


def days(number: float) -> timedelta:
    return timedelta(days=number)


def made(**changes: object) -> Generation:
    return generation(dns_domain=DOMAIN, **changes)


def https_of(generation: Generation) -> HttpsCA:
    assert generation.https is not None
    return generation.https


def intermediate(ca: HttpsCA) -> Credential:
    assert ca.intermediate is not None
    return ca.intermediate


def test_root_vouches_for_the_intermediate_and_that_for_leaves_alone() -> None:
    for credential, path_length in ((CA.root, 1), (intermediate(CA), 0)):
        basic = credential.certificate.extensions.get_extension_for_class(BasicConstraints)
        assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, path_length)
        names_ = credential.certificate.extensions.get_extension_for_class(NameConstraints)
        assert names_.critical
        assert names_.value.permitted_subtrees == [DNSName(DOMAIN)]
        assert https.domain(credential.certificate) == DOMAIN
    intermediate(CA).certificate.verify_directly_issued_by(CA.root.certificate)


@pytest.mark.parametrize("key_type", ["ecdsa-p256", "ed25519", "rsa-3072"])
def test_browsers_know_its_kind_of_key(key_type: KeyType) -> None:
    ca = https.new("shop", DOMAIN, key_type, 100, NOW)
    expected = RSAPrivateKey if key_type == "rsa-3072" else EllipticCurvePrivateKey
    renewed = https.with_new_intermediate(ca, NOW)
    assert all(isinstance(one.key, expected) for one in (ca.root, intermediate(ca), intermediate(renewed)))


@pytest.mark.parametrize(
    ("constraints", "path_length"),
    [
        ([], 1),
        ([NameConstraints([DNSName(DOMAIN)], None), https.PURPOSE], 1),
        ([NameConstraints([DNSName(DOMAIN)], https.NO_ADDRESSES)], 1),
        ([NameConstraints([DNSName(DOMAIN), DNSName("com")], https.NO_ADDRESSES), https.PURPOSE], 1),
        ([NameConstraints(None, https.NO_ADDRESSES), https.PURPOSE], 1),
    ],
)
def test_root_that_vouches_for_more_is_told(constraints: list[NameConstraints], path_length: int) -> None:
    root = x509.new_ca("evil", "ecdsa-p256", 10, NOW, constraints, path_length)
    with pytest.raises(ValueError, match=r"vouch|constrained"):
        https.domain(root.certificate)


@pytest.mark.parametrize(("passed", "due"), [(0, False), (264, False), (266, True), (500, True)])
def test_intermediate_is_due_when_a_third_is_left(passed: int, due: bool) -> None:
    assert https.is_due(CA, NOW + days(passed)) is due


def test_intermediate_that_ends_with_its_root_is_not_renewed_in_vain() -> None:
    ca = https.new("shop", DOMAIN, "ecdsa-p256", 100, NOW)
    assert intermediate(ca).expiry == ca.root.expiry
    assert not https.is_due(ca, NOW + days(99))


def test_lost_intermediate_is_made_anew_from_its_root() -> None:
    lost = replace(made(), https=replace(https_of(made()), intermediate=None))
    mended = https_of(with_https(lost, answers(dns_domain=DOMAIN), NOW))
    assert mended.root == https_of(lost).root
    intermediate(mended).certificate.verify_directly_issued_by(https_of(lost).root.certificate)


def test_there_is_one_as_long_as_there_is_a_domain() -> None:
    assert generation().https is None
    older = replace(made(), https=None)
    assert https_of(with_https(older, answers(dns_domain=DOMAIN), NOW)).domain == DOMAIN
    assert with_https(made(), answers(), NOW).https is not None  # nothing is lost that is wanted again later


def test_another_domain_takes_another_root() -> None:
    before = made()
    after = with_https(before, answers(dns_domain="shop.internal"), NOW)
    assert https_of(after).domain == "shop.internal"
    assert https_of(after).root != https_of(before).root


def test_rotation_renews_the_intermediate_and_a_new_ca_the_root() -> None:
    before = made()
    leaf, everything = (rotated(before, kind, False, answers(dns_domain=DOMAIN), NOW) for kind in ("leaf", "all"))
    assert https_of(leaf).root == https_of(before).root
    assert intermediate(https_of(leaf)) != intermediate(https_of(before))
    assert https_of(everything).root != https_of(before).root


def test_root_that_has_expired_is_made_anew() -> None:
    before = made(authority_days=200, certificate_days=100)
    later = NOW + days(201)
    settings = answers(dns_domain=DOMAIN)
    lost = replace(before, https=replace(https_of(before), intermediate=None))
    for after in (with_https(lost, settings, later), rotated(before, "all", False, settings, later)):
        assert https_of(after).root != https_of(before).root
        assert intermediate(https_of(after)).expiry > later


def test_its_ends_are_among_the_certificates() -> None:
    found = {one.name: (one.role, one.at, one.renewal.endswith("all")) for one in expiries(made())}
    assert found["HTTPS CA"] == ("https authority", NOW + days(1000), True)
    assert found["HTTPS intermediate"] == ("https intermediate", NOW + days(398), False)


def test_proxy_gets_the_intermediate_and_what_is_no_secret() -> None:
    before = made()
    files = {file.path: file for file in contents.files(before, Readable("client\n", ""), answers(dns_domain=DOMAIN))}
    proxy = {str(path): file.mode for path, file in files.items() if path.is_relative_to("https/proxy")}
    assert proxy == {
        "https/proxy/intermediate.crt": 0o644,
        "https/proxy/intermediate.key": 0o600,
        "https/proxy/expiries.json": 0o644,
    }
    assert files[PurePosixPath("https/root.key")].mode == 0o600
    secrets = [https_of(before).root.key_pem, before.ca.credential.key_pem, before.server.key_pem]
    assert not [path for path in proxy for key in secrets if key in files[PurePosixPath(path)].content]


def test_profile_names_the_root_in_a_comment() -> None:
    before = made()
    (profile,) = (
        file.content.decode()
        for file in contents.files(before, Readable("client\n", ""), answers(dns_domain=DOMAIN))
        if file.path.name == "laptop.ovpn"
    )
    found = names(profile)
    assert found is not None
    assert found.https_root == https_of(before).root.certificate_pem.decode()
    assert names(profile.replace("# -----END CERTIFICATE", "# -----END")).https_root is None  # type: ignore[union-attr]  # it has names

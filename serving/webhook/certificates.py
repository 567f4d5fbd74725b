"""When the webhook's certificate is renewed, and whom the API server must trust meanwhile: pure, time passed in.

Every serving certificate has an authority of its own whose key is thrown away at once, so there is nothing that
could sign more. A renewal has two steps, because replicas and API servers learn of it at different times:

1. *announce*: the successor is stored beside the certificate in use, and its authority joins the bundle. All
   replicas go on serving the old certificate.
2. *promote*: once the bundle of every webhook configuration names the new authority, and `OVERLAP_SECONDS` have
   passed, the successor is served. The old authority stays in the bundle until it expires.

So at any moment whatever a replica serves is signed by an authority that every API server has trusted for a while.
The state is a Secret; replicas decide alike, and the Secret's resourceVersion lets one of them write.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
from collections.abc import Collection, Mapping
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from serving.webhook.configurations import SERVICE_NAMES

VALID_SECONDS: Final = 90 * 86400.0
RENEW_SECONDS: Final = 30 * 86400.0
"""Time left of the certificate in use at which its successor is made."""
OVERLAP_SECONDS: Final = 600.0
"""From announcing the successor to serving it; API servers learn of a new bundle within a second or so."""
_SKEW_SECONDS: Final = 3600.0
"""Certificates begin in the past: clocks differ."""

TLS_CERTIFICATE: Final = "tls.crt"
TLS_KEY: Final = "tls.key"
NEXT_CERTIFICATE: Final = "next.crt"
NEXT_KEY: Final = "next.key"
AUTHORITIES: Final = "ca.crt"


class Pair(msgspec.Struct, frozen=True):
    """A serving certificate with its key, PEM."""

    certificate: bytes
    key: bytes


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """What the Secret holds. `authorities`: PEM certificates; each has signed one serving certificate."""

    serving: Pair
    successor: Pair | None = None
    authorities: tuple[bytes, ...]

    @property
    def bundle(self) -> str:
        """`caBundle` of the webhook configurations: base64 of all authorities' PEM."""
        return base64.b64encode(b"".join(self.authorities)).decode()

    def secret_data(self) -> dict[str, str | None]:
        """`data` of the Secret, as a merge patch: None removes a key."""
        successor = self.successor
        data = {
            TLS_CERTIFICATE: self.serving.certificate,
            TLS_KEY: self.serving.key,
            NEXT_CERTIFICATE: successor.certificate if successor else None,
            NEXT_KEY: successor.key if successor else None,
            AUTHORITIES: b"".join(self.authorities),
        }
        return {key: None if value is None else base64.b64encode(value).decode() for key, value in data.items()}


def read_secret(data: Mapping[str, str] | None) -> Certificates | None:
    """What a Secret's `data` holds; None when it is empty, incomplete, or not what we wrote."""
    data = data or {}
    try:
        values = {key: base64.b64decode(value, validate=True) for key, value in data.items()}
        serving = Pair(values[TLS_CERTIFICATE], values[TLS_KEY])
        successor = Pair(values[NEXT_CERTIFICATE], values[NEXT_KEY]) if NEXT_CERTIFICATE in values else None
        authorities = tuple(map(_pem, x509.load_pem_x509_certificates(values[AUTHORITIES])))
        found = Certificates(serving=serving, successor=successor, authorities=authorities)
        usable = all(_is_usable(pair, found) for pair in (serving, successor) if pair is not None)
    except (KeyError, ValueError, TypeError, binascii.Error, x509.ExtensionNotFound):
        return None
    return found if usable else None


def decide(
    stored: Certificates | None, *, hosts: Collection[str], bundles: Collection[str], now: float
) -> Certificates | None:
    """What the Secret should hold instead; None = it is right.

    `hosts`: names and addresses by which API servers reach this replica. `bundles`: the `caBundle` of each webhook
    configuration that exists. `now`: Unix seconds.
    """
    if stored is None:
        return _made(hosts, now)
    covered = hosts_of(stored.serving)
    fits = covered.issuperset(hosts) and now < expiry(stored.serving)
    successor = stored.successor
    if successor is not None and (now >= expiry(successor) or not hosts_of(successor).issuperset(hosts)):
        successor = None  # not worth being promoted
    if successor is None:
        if fits and now < expiry(stored.serving) - RENEW_SECONDS:
            return None
        made = _made(covered.union(hosts), now)
        return Certificates(
            serving=stored.serving,
            successor=made.serving,
            authorities=(*made.authorities, *_alive(stored.authorities, now)),
        )
    trusted = all(trusts(bundle, successor) for bundle in bundles)
    aged = now >= announced_at(successor) + OVERLAP_SECONDS
    if trusted and (aged or not fits):
        return Certificates(serving=successor, authorities=_alive(stored.authorities, now))
    return None


def next_decision(stored: Certificates, *, now: float) -> float:
    """Unix time at which `decide` may say something new although nothing changes."""
    if stored.successor is not None:
        due = announced_at(stored.successor) + OVERLAP_SECONDS
        return due if due > now else expiry(stored.serving)
    return expiry(stored.serving) - RENEW_SECONDS


def expiry(pair: Pair) -> float:
    """Unix time at which a certificate ends."""
    return _leaf(pair).not_valid_after_utc.timestamp()


def announced_at(pair: Pair) -> float:
    """Unix time at which a certificate was made."""
    return _leaf(pair).not_valid_before_utc.timestamp() + _SKEW_SECONDS


def hosts_of(pair: Pair) -> frozenset[str]:
    """The names and addresses for which a certificate is good."""
    names = _leaf(pair).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return frozenset(str(name.value) for name in names)


def trusts(bundle: str, pair: Pair) -> bool:
    """Whether a `caBundle` has the authority that signed a certificate."""
    try:
        authorities = x509.load_pem_x509_certificates(base64.b64decode(bundle))
    except (ValueError, binascii.Error):
        return False
    return any(_signed(_leaf(pair), authority) for authority in authorities)


def _made(hosts: Collection[str], now: float) -> Certificates:
    """A new certificate for `hosts` and for the webhook's Service, by a new authority."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own: chains are looked up by name, and two authorities of one name would be mixed up.
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"nodeless-webhook-{serial:x}"[:40])])
    authority = _certificate(issuer, authority_key.public_key(), issuer, now)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    authority = authority.add_extension(usage, critical=True)
    names = [*SERVICE_NAMES, *sorted(set(hosts).difference(SERVICE_NAMES))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVICE_NAMES[0])])
    leaf = _certificate(subject, key.public_key(), issuer, now)
    leaf = leaf.add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificates(
        serving=Pair(_pem(leaf.sign(authority_key, hashes.SHA256())), private),
        authorities=(_pem(authority.sign(authority_key, hashes.SHA256())),),
    )


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, now: float
) -> x509.CertificateBuilder:
    begin = datetime.datetime.fromtimestamp(int(now - _SKEW_SECONDS), datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(seconds=_SKEW_SECONDS + VALID_SECONDS))
    )


def _is_usable(pair: Pair, stored: Certificates) -> bool:
    leaf, private = _leaf(pair), serialization.load_pem_private_key(pair.key, password=None)
    hosts_of(pair)
    authorities = map(x509.load_pem_x509_certificate, stored.authorities)
    return private.public_key() == leaf.public_key() and any(_signed(leaf, one) for one in authorities)


def _signed(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _alive(authorities: tuple[bytes, ...], now: float) -> tuple[bytes, ...]:
    ends = ((x509.load_pem_x509_certificate(pem).not_valid_after_utc, pem) for pem in authorities)
    return tuple(pem for end, pem in ends if now < end.timestamp())


def _leaf(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)

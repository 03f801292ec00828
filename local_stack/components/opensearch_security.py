"""The configuration of OpenSearch's security plugin: one user with a password, and TLS between nodes.

Without it, every user of this machine could read and change the texts in the search index.
"""

import base64
import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PLUGIN = "org.opensearch.security.OpenSearchSecurityPlugin"
USERNAME = "argilla"
SETTINGS = """\
# The plugin encrypts the transport port and refuses clients without a certificate of ours, so nobody can join.
plugins.security.ssl.transport.pemcert_filepath: node.pem
plugins.security.ssl.transport.pemkey_filepath: node-key.pem
plugins.security.ssl.transport.pemtrustedcas_filepath: node.pem
plugins.security.ssl.transport.enforce_hostname_verification: false
plugins.security.nodes_dn: ["CN=node"]
plugins.security.ssl.http.enabled: false
# At the first start the plugin reads its users and roles from files, and then keeps them in an index of its own.
plugins.security.allow_default_init_securityindex: true
plugins.security.password.hashing.algorithm: pbkdf2
plugins.security.audit.type: noop
"""
# Few are enough: nobody can guess a random password of 192 bits.
_ITERATIONS = 1000
_BITS = 256


def write_security_files(configuration: Path, password: str) -> None:
    """Write a new certificate, and the user with `password`, into OpenSearch's `configuration` directory."""
    _write_certificate(configuration)
    folder = configuration / "opensearch-security"
    folder.mkdir(exist_ok=True)
    basic = {
        "http_enabled": True,
        "order": 0,
        "http_authenticator": {"type": "basic", "challenge": True},
        "authentication_backend": {"type": "intern"},
    }
    files: dict[str, tuple[str, dict[str, object]]] = {
        "config": ("config", {"config": {"dynamic": {"authc": {"basic": basic}}}}),
        "internal_users": ("internalusers", {USERNAME: {"hash": _hash(password), "backend_roles": ["admin"]}}),
        "roles_mapping": ("rolesmapping", {"all_access": {"backend_roles": ["admin"]}}),
        "roles": ("roles", {}),
        "action_groups": ("actiongroups", {}),
        "tenants": ("tenants", {}),
    }
    for name, (kind, content) in files.items():
        # JSON is YAML too.
        text = json.dumps({"_meta": {"type": kind, "config_version": 2}, **content})
        (folder / f"{name}.yml").write_text(text)


def _write_certificate(configuration: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (configuration / "node.pem").write_bytes(certificate.public_bytes(pem))
    (configuration / "node-key.pem").write_bytes(private)


def _hash(password: str) -> str:
    """Return the PBKDF2 hash in the format of Password4j, which the plugin uses: `$3$` means HMAC-SHA-256."""
    salt = secrets.token_bytes(32)
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS, _BITS // 8)
    parts = (str(_ITERATIONS << 32 | _BITS), base64.b64encode(salt).decode(), base64.b64encode(digest).decode())
    return "$3$" + "$".join(parts)

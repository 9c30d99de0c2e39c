"""What the machine that admend runs on knows of package sources: its apt configuration and its keyrings.

Owns the reading of /etc/apt and /usr/share/keyrings into `SourceSettings`. Parsing is the dpkg family's. No mirror
host is written down anywhere in admend: the default for Debian images is what this machine's own apt is set to.
"""

import base64
import re
from pathlib import Path

from proxy.config import ExtraSource, SourcesConfig
from proxy.engine.family import PackageSource, SourceSettings
from proxy.errors import MalformedInput

MAX_FILE = 4 << 20  # bytes of one source list or keyring
KEYRING_FILES = {
    "debian": ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp"),
    "ubuntu": ("ubuntu-archive-keyring.gpg",),
}
KEYRING_FOLDER = Path("/usr/share/keyrings")
OS_RELEASE = Path("/etc/os-release")
_HOST = re.compile(rb"\bhttps?://(?:[^/@\s]*@)?(\[[0-9a-fA-F:]+\]|[^/:\s\]]+)(?::[0-9]+)?")


def read_settings(config: SourcesConfig) -> SourceSettings:
    """Return the source settings of this machine and the operator.

    Raises MalformedInput when a keyring that the operator named cannot be read.
    """
    return SourceSettings(
        machine=_apt_files(config.machine) if config.machine else {},
        mirrors=dict(config.mirrors),
        allowed=config.allow,
        keyrings=_keyrings(config),
        archives=dict(config.archives),
        extra=tuple(
            PackageSource(
                family=item.family,
                uri=item.uri,
                suite=item.suite,
                components=item.components,
                keys=(item.keyring,),
                security=item.security,
                written="the setting sources.extra",
                options=_options(item),
            )
            for item in config.extra
        ),
    )


def _options(item: ExtraSource) -> dict[str, str]:
    """Return an extra source's options, as the family reads them."""
    options = {"architectures": " ".join(item.architectures)} if item.architectures else {}
    options |= {"fallback": "yes"} if item.fallback else {}
    return options if item.check_valid_until else {**options, "check-valid-until": "no"}


def read_source_credentials(config: SourcesConfig) -> dict[str, str]:
    """Return the Authorization header by address prefix; MalformedInput names a file that is wrong."""
    found: dict[str, str] = {}
    for item in config.credentials:
        path = item.token_file or item.password_file
        try:
            secret = path.read_text().split("\n", 1)[0].strip() if path else ""
        except (OSError, UnicodeDecodeError) as error:
            raise MalformedInput("the credentials of a source cannot be read", file=str(path)) from error
        if not secret or not secret.isascii() or not secret.isprintable():
            raise MalformedInput("needs a secret in its first line", file=str(path))
        plain = base64.b64encode(f"{item.user}:{secret}".encode()).decode()
        found[item.prefix] = f"Bearer {secret}" if item.token_file else f"Basic {plain}"
    return found


def source_hosts(config: SourcesConfig, settings: SourceSettings) -> frozenset[str]:
    """Return the hosts that the machine's apt configuration and the operator name: they may have private addresses."""
    texts = [*settings.machine.values(), *(item.encode() for item in _named_addresses(config))]
    found = {match.decode("ascii", "replace").lower() for text in texts for match in _HOST.findall(text)}
    return frozenset(found | set(config.private))


def _named_addresses(config: SourcesConfig) -> tuple[str, ...]:
    return (*config.mirrors.values(), *config.allow, *config.archives.values(), *(item.uri for item in config.extra))


def _apt_files(folder: Path) -> dict[str, bytes]:
    """Return the machine's source lists by name, and its os-release under the name `os-release`."""
    parts = folder / "sources.list.d"
    paths = [folder / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources")), OS_RELEASE]
    files = {}
    for path in paths:
        try:
            files["os-release" if path == OS_RELEASE else str(path)] = _read(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise MalformedInput(f"cannot be read: {error.strerror}", file=str(path)) from error
    return files


def _keyrings(config: SourcesConfig) -> dict[str, bytes]:
    rings: dict[str, bytes] = {}
    for name, files in KEYRING_FILES.items():
        present = [KEYRING_FOLDER / file for file in files if (KEYRING_FOLDER / file).exists()]
        if present:
            rings[name] = _read(present[0])
    for name, paths in config.keyrings.items():
        for path in paths:
            try:
                rings[name] = rings.get(name, b"") + _read(path)
            except OSError as error:
                raise MalformedInput(f"the keyring cannot be read: {error.strerror}", file=str(path)) from error
    return rings


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise MalformedInput(f"longer than {MAX_FILE} bytes", file=str(path))
    return data

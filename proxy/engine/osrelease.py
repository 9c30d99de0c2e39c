"""os-release: which distribution a root file system says it is.

Owns finding and parsing the file. Ignores lines that are no assignment, as shells and systemd's own readers do not
fail on them either; what matters here is four names.
Specification: os-release(5)
"""

import re

from proxy.engine.family import Distribution
from proxy.engine.rootfs import RootFS

OS_RELEASE_PATHS = ("etc/os-release", "usr/lib/os-release")  # the first that exists, os-release(5)
MAX_VALUE = 256  # characters of one value; they are names and versions

_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
_ESCAPE = re.compile(r"\\([\"'$`\\])")


def read_distribution(fs: RootFS) -> Distribution:
    """Return the distribution of `fs`; without an os-release every part is empty."""
    for path in OS_RELEASE_PATHS:
        data = fs.read(path)
        if data is not None:
            return parse_distribution(data)
    return Distribution("")


def parse_distribution(data: bytes) -> Distribution:
    """Parse an os-release file."""
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        match = _ASSIGNMENT.fullmatch(line.strip())
        if match is not None:
            values[match[1]] = _unquote(match[2].strip())[:MAX_VALUE]
    return Distribution(
        id=values.get("ID", ""),
        version=values.get("VERSION_ID", ""),
        codename=values.get("VERSION_CODENAME", ""),
        pretty=values.get("PRETTY_NAME", ""),
    )


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1] if text[0] == "'" else _ESCAPE.sub(r"\1", text[1:-1])
    return text

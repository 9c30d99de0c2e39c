"""apt's own configuration in an image, as far as it decides about versions and sources.

Owns the format and the order of the files. Refuses nothing: what is not of the format is passed over, since apt would
not run at all with it and nothing here makes apt run.
Specification: apt.conf(5).
"""

import re
from collections.abc import Iterator

from proxy.engine.rootfs import RootFS

FOLDER = "etc/apt/apt.conf.d"
MAIN = "etc/apt/apt.conf"
MAX_FILE = 1 << 20  # bytes
MAX_DEPTH = 64

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_TOKEN = re.compile(
    r'(?P<gap>\s+|//[^\n]*|\#(?!clear\b|include\b)[^\n]*|/\*.*?(?:\*/|\Z))|(?P<text>"[^"\n]*")'
    r'|(?P<mark>[{};])|(?P<word>[^\s{};"]+)',
    re.DOTALL,
)
_TRUE = frozenset({"yes", "true", "with", "on", "enable", "1"})


class AptConf(dict[str, str]):
    """Values by option, in lower case: ``apt::default-release``."""

    def truth(self, *names: str) -> bool | None:
        """Return the first of the options that is set as a truth, or None."""
        value = next((self[name] for name in names if self.get(name)), None)
        return None if value is None else value.lower() in _TRUE


def conf_files(fs: RootFS) -> Iterator[tuple[str, bytes]]:
    """Yield the files that apt reads, in its order: the parts, then the main file."""
    names = sorted(name for name in fs.listdir(FOLDER) if _NAME.fullmatch(name))
    parts = [f"{FOLDER}/{name}" for name in names if "." not in name or name.endswith(".conf")]
    for path in (*parts, MAIN):
        data = fs.read(path)
        if data is not None:
            yield path, data[:MAX_FILE]


def read_apt_conf(fs: RootFS) -> AptConf:
    """Return what the image's files set together; a later one wins."""
    found = AptConf()
    for _, data in conf_files(fs):
        apply_apt_conf(found, data)
    return found


def apply_apt_conf(conf: AptConf, data: bytes) -> None:
    """Set in `conf` what a file says."""
    scopes: list[str] = []
    words: list[str] = []
    for kind, text in _tokens(data.decode("utf-8", "replace")):
        if kind != "mark":
            words.append(text)
            continue
        name = "::".join((*scopes, *words[:1])).lower()
        if text == "{":
            scopes.append(words[0] if words else "")
            if len(scopes) > MAX_DEPTH:
                return
        elif words[:1] == ["#clear"]:
            for option in words[1:]:
                _clear(conf, option.lower())
        elif words and words[0] != "#include":
            conf[name] = words[1] if len(words) > 1 else conf.get(name, "")
        if text == "}" and scopes:
            scopes.pop()
        words = []


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind != "gap":
            yield kind, match[0].strip('"')


def _clear(conf: AptConf, option: str) -> None:
    for name in [name for name in conf if name == option or name.startswith(f"{option}::")]:
        del conf[name]

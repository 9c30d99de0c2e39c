"""What `update-ca-certificates` leaves behind: links, hashed links and the bundle in `/etc/ssl/certs`.

Owns doing to a stage what the program does, in the versions of Debian 11 to 13 and of Ubuntu, which end alike. The
bundle holds the certificates that /etc/ca-certificates.conf lists and those of /usr/local/share/ca-certificates.
Refuses (NotReproduced) hooks that are not known or have something to do, and names that a shell would take apart.
Specification: update-ca-certificates(8)

1. fresh: links into the folders of certificates go, and stale ones
2. lines with `!`: their link goes; other lines, then local files sorted: link and bundle
3. if a link came or went: stale links go, and the folder is hashed again (see `rehash`)
4. the bundle is put in place, and the hooks run
"""

import re
from collections.abc import Iterator, Sequence

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.keystore import KEYSTORE, is_keystore_hook, run_keystore_hook
from proxy.engine.families.dpkg.rehash import run_rehash
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind
from proxy.errors import AdmendError

CONFIGURATION = "etc/ca-certificates.conf"
CERTIFICATES = "/usr/share/ca-certificates"
LOCAL = "/usr/local/share/ca-certificates"
FOLDER = "etc/ssl/certs"
BUNDLE = f"{FOLDER}/ca-certificates.crt"
HOOKS = "etc/ca-certificates/update.d"

_HOOK = re.compile(r"[A-Za-z0-9_-]+")
_PROGRAM = "usr/sbin/update-ca-certificates"
_RENAMED = str.maketrans({" ": "_", "(": "=", ")": "=", ",": "_"})
_PENDING = b"cat - >> /var/lib/ca-certificates-java/pending"  # a hook that leaves the work to a trigger


def run_update_ca_certificates(stage: Stage, arguments: Sequence[str]) -> bool:
    """Do to `stage` what update-ca-certificates would do.

    Raises:
        NotReproduced: other options, or what is needed cannot be known.
    """
    fresh, hooks = _options(arguments)
    if not stage.is_dir(FOLDER) or not stage.read(CONFIGURATION):
        raise NotReproduced(f"update-ca-certificates without /{FOLDER} or /{CONFIGURATION}")
    if b"openssl rehash ." not in (stage.read(_PROGRAM) or b""):
        raise NotReproduced("update-ca-certificates of a version that is not known")
    try:
        changed = _update(stage, fresh=fresh)
    except AdmendError as error:
        raise NotReproduced(f"a certificate that cannot be read ({error})") from error
    if hooks and stage.is_dir(HOOKS):
        for name in stage.listdir(HOOKS):
            _run_hook(stage, name, changed=changed, fresh=fresh)
    return True


def _options(arguments: Sequence[str]) -> tuple[bool, bool]:
    """Return whether the links are made afresh, and whether hooks run."""
    words, fresh, hooks = list(arguments), False, True
    while words:
        word = words.pop(0)
        if word == "--hooksdir" and words[:1] == [""]:
            words.pop(0)
            hooks = False
        elif word in {"--fresh", "-f"}:
            fresh = True
        elif word not in {"--verbose", "-v"}:
            raise NotReproduced(f"update-ca-certificates {word}")
    return fresh, hooks


def _update(stage: Stage, *, fresh: bool) -> bool:
    """Do steps 1 to 4 but for the hooks; return whether a link came or went."""
    if fresh:
        _clear(stage)
    disabled, enabled = _listed(stage)
    links = [f"{FOLDER}/{_base(path)}.pem" for path in disabled]
    gone = [link for link in links if (there := stage.get(link)) is not None and there.kind is Kind.SYMLINK]
    for link in gone:
        stage.remove(link)
    changed = bool(gone)
    local = sorted(_local(stage, LOCAL), key=lambda path: path.encode("utf-8", "surrogateescape"))
    paths = [*(path for path in enabled if _is_file(stage, path)), *local]
    stage.fetch(paths)
    bundle: list[bytes] = []
    for path in paths:
        link = f"{FOLDER}/{_base(path).translate(_RENAMED)}.pem"
        there = stage.get(link)
        if there is not None and there.kind is Kind.DIR:
            raise NotReproduced(f"/{link} is a directory")
        if there is None or there.kind is not Kind.SYMLINK or there.target != path or stage.follow(link) is None:
            stage.symlink(path, link)
            changed = True
        content = stage.read(path) or b""
        bundle.append(content if content.endswith(b"\n") or not content else content + b"\n")
    if not paths:
        raise NotReproduced("no certificate is trusted")
    if changed:
        _hash_again(stage)
    there = stage.get(BUNDLE)
    if there is None or there.kind is not Kind.FILE or (there.mode, there.uid, there.gid) != (0o644, 0, 0):
        stage.remove(BUNDLE)
    stage.write(BUNDLE, b"".join(bundle))
    return changed


def _listed(stage: Stage) -> tuple[list[str], list[str]]:
    """Return the paths that the configuration switches off, and those that it lists, in order."""
    disabled, enabled = [], []
    text = (stage.read(CONFIGURATION) or b"").decode("utf-8", "surrogateescape")
    if "\\" in text or (text and not text.endswith("\n")):
        raise NotReproduced(f"/{CONFIGURATION} has backslashes or ends within a line")
    for line in text.split("\n")[:-1]:
        if line.startswith("!"):
            disabled.append(f"{CERTIFICATES}/{line[1:].strip(' ' + chr(9))}")
        elif line and not line.startswith("#"):
            disabled.append(f"{CERTIFICATES}/{line.strip(' ' + chr(9))}")
            enabled.append(disabled.pop())
    return disabled, enabled


def _local(stage: Stage, path: str) -> Iterator[str]:
    """Yield the certificates below a folder, links followed."""
    for name in stage.listdir(path):
        below = f"{path}/{name}"
        if stage.is_dir(below):
            there = stage.get(below)
            if there is not None and there.kind is Kind.SYMLINK:
                raise NotReproduced(f"{below} is a link to a directory of certificates")
            yield from _local(stage, below)
        elif name.endswith(".crt") and _is_file(stage, below):
            if "\\" in below or "\n" in below or below != below.strip():
                raise NotReproduced(f"the name of {below}")
            yield below


def _clear(stage: Stage) -> None:
    """Do step 1."""
    for entry in list(stage.walk(FOLDER)):
        if entry.kind is Kind.SYMLINK and entry.target.startswith((CERTIFICATES, LOCAL)):
            stage.remove(entry.path)
    for entry in list(stage.walk(FOLDER)):
        if entry.kind is Kind.SYMLINK and not _is_file(stage, entry.path):
            stage.remove(entry.path)


def _hash_again(stage: Stage) -> None:
    """Do step 3."""
    for entry in list(stage.walk(FOLDER)):
        if entry.kind is Kind.SYMLINK and stage.follow(entry.path) is None and not stage.is_dir(entry.path):
            stage.remove(entry.path)
    if stage.follow("usr/bin/openssl") is None:
        raise NotReproduced("links of certificates without openssl")
    run_rehash(stage, FOLDER)


def _run_hook(stage: Stage, name: str, *, changed: bool, fresh: bool) -> None:
    """Run one hook that is told of no change: Java's leaves nothing to its trigger then."""
    there = stage.follow(f"{HOOKS}/{name}")
    if _HOOK.fullmatch(name) is None or there is None or there.kind is Kind.DIR or not there.mode & 0o111:
        return
    script = stage.read(f"{HOOKS}/{name}") or b""
    if is_keystore_hook(script) and not changed and not fresh:
        run_keystore_hook(stage)
        return
    if _PENDING not in script or changed or fresh or stage.read("var/lib/ca-certificates-java/pending"):
        raise NotReproduced(f"the hook /{HOOKS}/{name}")
    if stage.follow(KEYSTORE) is None and stage.get("var/lib/ca-certificates-java") is not None:
        raise NotReproduced(f"/{KEYSTORE} would be made by Java")
    stage.make_dir("var/lib/ca-certificates-java")


def _is_file(stage: Stage, path: str) -> bool:
    there = stage.follow(path)
    return there is not None and there.kind in {Kind.FILE, Kind.HARDLINK}


def _base(path: str) -> str:
    """Return what basename(1) leaves of the path of a certificate."""
    name = path.rstrip("/").rpartition("/")[2]
    return name.removesuffix(".crt") if name != ".crt" else name

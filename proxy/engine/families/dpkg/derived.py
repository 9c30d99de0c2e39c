"""Distroless images: what their builders derive from a package's files, and would go stale with an upgrade.

In a status.d image nothing runs on upgrade, but something ran when the image was built: builders do by themselves some
of what maintainer scripts would have done, and no package owns the result. For every package that is known to be
treated so it was looked up what that is; each finding is followed or is a reason to skip, never left stale:

- ca-certificates: the bundle `/etc/ssl/certs/ca-certificates.crt` is made again when its recipe is recognized (see
  `certificates`). Other stores (Java's keystores, hashed directories, bundles of other systems) are a reason to skip.
- tzdata: `/etc/localtime` as a link follows the new files, unless its zone is gone; as a copy it is a reason to skip.
  `/etc/timezone` is a name and stays true.
- base-files: `/usr/lib/os-release` is often the builder's own ("Distroless"); such a file is kept, with a note.
  `/etc/os-release` is a link to it. `/etc/debian_version`, `/etc/issue` and `/etc/issue.net` are conffiles. What its
  postinst makes (`/etc/profile`, `/root/.bashrc`, `/usr/local`, links in `/var`) it makes on first installation only.
- netbase and media-types: only conffiles (`/etc/protocols`, `/etc/services`, `/etc/rpc`, `/etc/ethertypes`,
  `/etc/mime.types`); nothing is derived from them.
- libraries: where a builder left `/etc/ld.so.cache`, it is made again once all files are there (see `ldconfig`).
- `/etc/passwd`, `/etc/group` and `/etc/nsswitch.conf` are in no package; they stay as the builder wrote them.
"""

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from proxy.engine.families.dpkg.archive import OWN_SUMS
from proxy.engine.families.dpkg.certificates import BUNDLE, CERTIFICATES, find_recipe
from proxy.engine.families.dpkg.conffiles import md5_of
from proxy.engine.families.dpkg.database import DpkgDb, Record, parse_md5sums
from proxy.engine.families.dpkg.findings import Change, Finding, Note, Reason
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind

OS_RELEASE = "usr/lib/os-release"
LOCALTIME = "etc/localtime"
_OTHER_STORES = (
    "etc/ssl/certs/java/cacerts",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
    "usr/lib/ssl/cert.pem",
)


def find_derived(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Finding]:
    """Yield what has to happen, or stands in the way, beside the package's own files in a status.d image."""
    match record.installed.package.name:
        case "ca-certificates":
            yield from _certificates(fs, db, record, payload)
        case "tzdata":
            yield from _localtime(fs, db, record, payload)
        case "base-files":
            yield from _os_release(fs, db, record, payload)


def _certificates(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Finding]:
    stores = [*_OTHER_STORES, *(f"usr/lib/jvm/{name}/lib/security/cacerts" for name in fs.listdir("usr/lib/jvm"))]
    stores += [f"etc/ssl/certs/{name}" for name in fs.listdir("etc/ssl/certs") if name != BUNDLE.rpartition("/")[2]]
    for path in stores:
        there = fs.get(fs.resolve(path))
        if there is not None and there.kind is not Kind.DIR and there.path != fs.resolve(BUNDLE):
            yield Reason(f"/{path} was made from its certificates when the image was built; that is not reproduced yet")
            return
    bundle = fs.get(fs.resolve(BUNDLE))
    if bundle is None:
        return
    old = {e.path: e for e in fs.walk(CERTIFICATES) if e.kind is Kind.FILE and e.path.endswith(".crt")}
    new = {e.path: e.content for e in payload.entries if fnmatchcase(e.path, f"{CERTIFICATES}/*.crt")}
    owned = {fs.locate(path) for path in db.files(record)}
    contents = {path: content for path, content in new.items() if isinstance(content, bytes)}
    data = b"" if fs.missing([BUNDLE, *old]) else fs.read(BUNDLE) or b""
    recipe = find_recipe({path: fs.read(path) or b"" for path in old}, data) if data else None
    if recipe is None or len(contents) != len(new) or not contents or not set(old) <= owned:
        yield Reason(f"/{BUNDLE} was made from its certificates when the image was built, and it is not recognized how")
        return
    made = recipe.make(contents)
    time = max(entry.mtime for entry in payload.entries)
    if made != data:
        yield Change("/" + BUNDLE, (replace(bundle, mtime=time, size=len(made), content=made),))


def _localtime(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Finding]:
    there, real = fs.get(LOCALTIME), fs.resolve(LOCALTIME)
    if there is None:
        return
    if there.kind is not Kind.SYMLINK:
        yield Reason(f"/{LOCALTIME} is a copy of one of its files, which would be out of date")
        return
    new = {fs.locate(entry.path) for entry in payload.entries}
    if real not in new and (real in {fs.locate(path) for path in db.files(record)} or fs.get(real) is None):
        yield Reason(f"/{LOCALTIME} names a time zone that the new version does not have")


def _os_release(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Finding]:
    entry = next((entry for entry in payload.entries if entry.path == OS_RELEASE), None)
    there = fs.get(fs.resolve(OS_RELEASE))
    if entry is not None and there is not None and builders_own(fs, db, record, payload, entry):
        yield Note(f"/{OS_RELEASE} is not the package's own in this image and is kept")


def builders_own(fs: RootFS, db: DpkgDb, record: Record, payload: Payload, entry: Entry) -> bool:
    """Say whether `entry` is a file that the image's builder replaced by one of its own, which stays."""
    if entry.path != OS_RELEASE or fs.get(fs.resolve(OS_RELEASE)) is None:
        return False
    new = parse_md5sums(payload.control.get("md5sums") or payload.control.get(OWN_SUMS, b""))
    current = md5_of(fs.read(OS_RELEASE) or b"")
    return current not in {db.sums(record).get(OS_RELEASE), new.get(OS_RELEASE)}

"""The commands of maintainer scripts whose effect on an upgrade is known.

Owns the table, and the commands of dpkg and its helpers; those that change files are in `filecommands`, those that
print in `textcommands`. The table grows with what is understood.
Specification: dpkg-maintscript-helper(1), deb-systemd-helper(1p), update-alternatives(1), getent(1)
"""

from collections.abc import Mapping

from proxy.engine.families.dpkg.alternatives import list_alternatives, query_alternatives, run_update_alternatives
from proxy.engine.families.dpkg.cacertificates import run_update_ca_certificates
from proxy.engine.families.dpkg.call import DOES, Call, Command, Verdict
from proxy.engine.families.dpkg.dpkgquery import QUERIES, query
from proxy.engine.families.dpkg.filecommands import FILE_COMMANDS
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.ldconfig import run_ldconfig
from proxy.engine.families.dpkg.maintscript import help_maintainer_script
from proxy.engine.families.dpkg.programs import py3clean, py3compile
from proxy.engine.families.dpkg.registers import machine_id, pam_auth_update
from proxy.engine.families.dpkg.services import run_update_rc
from proxy.engine.families.dpkg.shells import run_add_shell, run_remove_shell, run_update_shells
from proxy.engine.families.dpkg.ucf import ucf, ucfr
from proxy.engine.families.dpkg.version import holds


def _dpkg(call: Call) -> Verdict:
    """`dpkg --compare-versions`; other questions only read."""
    words = call.arguments
    if words[:1] == ["--compare-versions"]:
        rest = [word for word in words[1:] if word != "--"]
        if len(rest) != 3 or None in rest:  # noqa: PLR2004 - version, operator, version
            return None
        return holds(rest[0] or "", rest[1] or "", rest[2] or "")
    if words == ["--print-architecture"]:
        call.output(f"{call.scene.arch}\n" if call.scene.arch else None)
        return True
    if words[:1] in (["-s"], ["-l"], ["-L"], ["-S"], ["--status"], ["--list"], ["--listfiles"], ["--search"]):
        return _query(call)
    return True if words[:1] and str(words[0]).startswith("--assert-") else DOES


def _query(call: Call) -> Verdict:
    try:
        return query(call)
    except NotReproduced:
        call.output(None)
        return None


def _systemd_helper(call: Call) -> Verdict:
    """deb-systemd-helper finds every link already made, or already refused, if the unit did not change."""
    scene, words = call.scene, call.arguments
    told = [word for word in words if word is None or not word.startswith("--")]
    call.output(None)
    if None in told or len(told) < 2:  # noqa: PLR2004 - action and unit
        return DOES
    kind = "user" if "--user" in words else "system"
    if told[0] in {"was-enabled", "is-enabled", "debian-installed"}:
        return None
    if told[0] in {"unmask", "enable", "update-state"} and all(scene.unit_same(kind, str(u)) for u in told[1:]):
        return None
    return DOES


def _getent(call: Call) -> Verdict:
    """`getent passwd NAME` and `getent group NAME`, from the image's files."""
    words = call.known()
    if words is None or len(words) != 2 or words[0] not in {"passwd", "group", "shadow"}:  # noqa: PLR2004
        call.output(None)
        return None
    for line in (call.stage.read(f"etc/{words[0]}") or b"").decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(":")
        if fields[0] == words[1] or (words[1].isdigit() and len(fields) > 2 and fields[2] == words[1]):  # noqa: PLR2004
            call.output(line + "\n")
            return True
    nss = call.stage.read("etc/nsswitch.conf") or b"passwd: files\ngroup: files\n"
    plain = all(
        set(line.split()[1:]) <= {b"files", b"compat"}
        for line in nss.split(b"\n")
        if line.startswith((b"passwd", b"group"))
    )
    return False if plain else None


def _alternatives(call: Call) -> Verdict:
    """`update-alternatives`, see there."""
    words = call.known()
    if words is None:
        return DOES
    if words[:1] == ["--list"] and len(words) == 2:  # noqa: PLR2004
        call.output(list_alternatives(call.stage, words[1]))
    elif words[:1] == ["--query"] and len(words) == 2:  # noqa: PLR2004
        call.output(query_alternatives(call.stage, words[1]))
    elif {"--query", "--display", "--get-selections"} & set(words):
        call.output(None)
    return run_update_alternatives(call.stage, words)


def _ldconfig(call: Call) -> Verdict:
    """`ldconfig`, see there."""
    words = call.known()
    if words is not None and words[-2:] == ["-r", "/"]:
        words = words[:-2]
    return DOES if words is None else run_ldconfig(call.stage, words, call.scene.arch)


def _init_links(call: Call) -> Verdict:
    """`update-rc.d`, see `services`."""
    words = call.known()
    return DOES if words is None else run_update_rc(call.stage, words)


def _shells(call: Call) -> Verdict:
    """`add-shell`, `remove-shell` and `update-shells`, see `shells`."""
    words = call.known()
    runs = {"add-shell": run_add_shell, "remove-shell": run_remove_shell}
    return DOES if words is None else runs.get(call.name, run_update_shells)(call.stage, words)


def _ca_certificates(call: Call) -> Verdict:
    """`update-ca-certificates`, see there."""
    words = call.known()
    return DOES if words is None else run_update_ca_certificates(call.stage, words)


_ADDUSER = "usr/share/perl5/Debian/AdduserCommon.pm"


def _add_user(call: Call) -> Verdict:
    """`adduser --system NAME` and its like, of users and groups that are there."""
    words = call.known()
    if words is None or not ({"--system", "-r", "--group"} & set(words) or call.name.endswith("add")):
        return DOES
    name = words[-1]
    wanted = ["etc/group"] if "group" in call.name else ["etc/passwd"]
    if "--group" in words and call.name == "adduser":
        wanted.append("etc/group")
    there = all(
        (call.stage.read(path) or b"").startswith(f"{name}:".encode())
        or f"\n{name}:".encode() in (call.stage.read(path) or b"")
        for path in wanted
    )
    if not there or name.startswith("-"):
        return DOES
    locks = call.name in {"adduser", "addgroup"} and b"'/run/adduser'" in (call.stage.read(_ADDUSER) or b"")
    if locks and call.stage.get("run/adduser") is None:  # the lock's file stays
        call.stage.write("run/adduser", b"")
    return None


def _trigger(call: Call) -> Verdict:
    """`dpkg-trigger NAME`: those that are interested are told at the end of the upgrade."""
    words = [word for word in call.known() or ("",) if word not in {"--no-await", "--await"}]
    if words == ["--check-supported"]:
        return True
    if len(words) != 1 or not words[0] or words[0].startswith("-"):
        return DOES
    if call.scene.activate is None or call.stage.frozen:
        return DOES
    call.scene.activate(words[0])
    return True


COMMANDS: Mapping[str, Command] = {
    **FILE_COMMANDS,
    **QUERIES,
    "dpkg-query": _query,
    "py3compile": py3compile,
    "pycompile": py3compile,
    "py3clean": py3clean,
    "pyclean": py3clean,
    "dpkg": _dpkg,
    "dpkg-maintscript-helper": help_maintainer_script,
    "deb-systemd-helper": _systemd_helper,
    "getent": _getent,
    "update-alternatives": _alternatives,
    "ldconfig": _ldconfig,
    "update-rc.d": _init_links,
    **dict.fromkeys(("add-shell", "remove-shell", "update-shells"), _shells),
    "update-ca-certificates": _ca_certificates,
    "pam-auth-update": pam_auth_update,
    "dbus-uuidgen": machine_id,
    "ucf": ucf,
    "ucfr": ucfr,
    "dpkg-trigger": _trigger,
    "adduser": _add_user,
    "addgroup": _add_user,
    "useradd": _add_user,
    "groupadd": _add_user,
}

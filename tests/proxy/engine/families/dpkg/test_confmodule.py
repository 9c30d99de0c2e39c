"""Scripts that talk to debconf: walked again under the frontend, after the package's config script."""

from collections.abc import Mapping

import pytest

from proxy.engine.families.dpkg.call import Scene
from proxy.engine.families.dpkg.confmodule import CONFMODULE, Frontend
from proxy.engine.families.dpkg.effects import run_script
from proxy.engine.families.dpkg.endings import Unknown
from proxy.engine.stage import Stage
from tests.proxy.engine.filesystems import Link, make_fs

TEMPLATES = b"""Template: zone/area
Type: select
Choices: Asia, Etc
Default: Etc
"""
CONFIG = b"""#!/bin/sh
. /usr/share/debconf/confmodule
area=$(cd "$DPKG_ROOT/etc" && realpath -m -s "$(readlink /etc/localtime)")
area=${area#/usr/share/zoneinfo/}
db_set zone/area "${area%%/*}"
[ -n "$DEBCONF_RECONFIGURE" ] || db_fset zone/area seen true
db_input high zone/area || true
db_go
"""
POSTINST = """#!/bin/sh
set -e
echo again >> /etc/log
. /usr/share/debconf/confmodule
db_version 2.0
if [ "$1" = configure ]; then
    db_get zone/area && AREA="$RET"
    db_stop
    echo "$AREA" > /etc/area
    UTC=$(TZ=UTC0 date)
    NOW=$(date -d "$UTC")
    echo "It is $NOW"
fi
"""


def run(
    postinst: str, *, config: bytes | None = CONFIG, files: Mapping[str, bytes | Link] | None = None
) -> tuple[Unknown | None, Stage]:
    image = {CONFMODULE[1:]: b"exec frontend", "etc/localtime": Link("../usr/share/zoneinfo/Asia/Tokyo")}
    stage = Stage(make_fs({**image, **(files or {})}, lambda _: True))
    frontend = Frontend(stage, "zone", TEMPLATES, config)
    scene = Scene(stage, "postinst", ("configure", "1"), "zone", "1", lambda _kind, _unit: False, frontend=frontend)
    return run_script(postinst.encode(), scene), stage


def test_the_config_script_sets_what_the_postinst_gets_and_the_script_runs_twice_up_to_the_frontend() -> None:
    unknown, stage = run(POSTINST)
    assert unknown is None
    assert stage.read("etc/area") == b"Asia\n"
    assert stage.read("etc/log") == b"again\nagain\n"


def test_without_a_config_script_the_database_and_the_default_answer() -> None:
    assert run(POSTINST, config=None)[1].read("etc/area") == b"Etc\n"
    database = {"var/cache/debconf/config.dat": b"Name: zone/area\nTemplate: zone/area\nValue: Asia\n\n"}
    assert run(POSTINST, config=None, files=database)[1].read("etc/area") == b"Asia\n"


@pytest.mark.parametrize(
    ("postinst", "what"),
    [
        (f". {CONFMODULE}\nif cmp -s /proc/x /y; then db_set zone/area Asia; fi\ndb_get zone/area", "db_get"),
        (f". {CONFMODULE}\nif cmp -s /proc/x /y; then db_input high zone/area; db_go; fi\ndb_get zone/area", "db_get"),
        (f'. {CONFMODULE}\ndb_set zone/area "$(cat /proc/x)"\ndb_fget zone/area seen', "db_fget"),
        (f'. {CONFMODULE}\ndb_set "$(cat /proc/x)" Asia', "not known"),
        (f". {CONFMODULE}\ndb_x_loadtemplatefile /x", "db_x_loadtemplatefile"),
        (f"if cmp -s /proc/x /y; then . {CONFMODULE}; fi", "exec"),
    ],
)
def test_what_may_or_may_not_be_said_to_debconf_is_not_understood(postinst: str, what: str) -> None:
    unknown, _ = run(f"#!/bin/sh\n{postinst}\n", config=None)
    assert unknown is not None
    assert what in unknown.what


def test_what_may_or_may_not_be_said_to_debconf_does_no_harm_if_nobody_asks() -> None:
    doubtful = "if cmp -s /proc/x /y; then db_fset zone/area seen false; db_input high zone/area || true; db_go; fi"
    assert run(f"#!/bin/sh\nset -e\n. {CONFMODULE}\n{doubtful}\n")[0] is None


def test_what_is_found_in_the_folder_that_a_script_changed_to_is_named_from_there() -> None:
    find = "cd /srv/certs\nfind . -type f -name '*.crt' -print | sed -e 's/^\\.\\///' | sort > /etc/found\n"
    files = {"srv/certs/a.crt": b"", "srv/certs/x/b.crt": b"", "srv/certs/c": b""}
    assert run(f"#!/bin/sh\n{find}", files=files)[1].read("etc/found") == b"a.crt\nx/b.crt\n"


def test_a_config_script_that_is_not_understood_and_databases_elsewhere_are_told() -> None:
    unknown, _ = run(POSTINST, config=b"#!/bin/sh\nreboot\n")
    assert unknown == Unknown(2, "in its config: reboot")
    unknown, _ = run(POSTINST, files={"etc/debconf.conf": b"Name: c\nDriver: LDAP\nFilename: /x\n"})
    assert unknown is not None
    assert "elsewhere" in unknown.what


def test_an_initctl_that_does_nothing_answers_nothing_and_another_is_not_understood() -> None:
    asks = '#!/bin/sh\nset -e\nif [ -z "$(initctl version 2>/dev/null)" ]; then echo none > /etc/upstart; fi\n'
    unknown, stage = run(asks, files={"sbin/initctl": b"#!/bin/sh\nexit 0\n"})
    assert unknown is None
    assert stage.read("etc/upstart") == b"none\n"
    assert run(asks, files={"sbin/initctl": b"\x7fELF"})[0] is not None

"""The command line around its subcommands: settings, exit codes, and what stays in the cache."""

import json
import os
import socket

import pytest

from proxy.cli import main, make_parser
from proxy.command import run
from tests.simulators.world import RELEASED, World


def call(capsys, *arguments):
    """Run `admend` and return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_a_wrong_settings_file_is_a_usage_error_that_names_the_key(capsys, tmp_path):
    file = tmp_path / "proxy.yaml"
    file.write_text("cash: /tmp")
    code, out, err = call(capsys, "proxy", "--config", file)
    assert (code, out) == (2, "")
    assert err.startswith(f"admend: {file}: unknown key cash (known here: audit, auth, cache, ")
    code, out, err = call(capsys, "inspect", "a.example/b:1", "--config", file, "--json")
    assert (code, err) == (2, "")
    assert "unknown key cash" in json.loads(out)["reason"]


def configure(tmp_path, port, **listen):
    home = {"signing_key": f"{tmp_path}/key.pem", "cache": f"{tmp_path}/cache", "sources": {"machine": None}}
    mirror = {"reference": "mirror.example", "path": f"{tmp_path}/mirror"}
    file = tmp_path / "proxy.json"
    file.write_text(json.dumps({**home, "mirror": mirror, "listen": {"port": port, **listen}}))
    return file


def test_certificates_that_are_missing_are_named(capsys, tmp_path):
    tls = {"cert_file": f"{tmp_path}/server.crt", "key_file": f"{tmp_path}/server.key"}
    code, _, err = call(capsys, "proxy", "--config", configure(tmp_path, 0, tls=tls))
    assert code == 1
    assert err.startswith(f"admend: {tmp_path}/server.crt is not there")


def test_a_port_that_is_taken_is_named(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = call(capsys, "proxy", "--config", configure(tmp_path, port))
    assert code == 1
    assert f"admend: cannot serve on 127.0.0.1:{port}: " in err


async def test_a_command_leaves_nothing_of_older_versions_in_the_cache(tmp_path):
    async with World(tmp_path / "world") as world:
        config = world.config()
        old = config.cache / "layers" / "0-old" / "aa.json"
        old.parent.mkdir(parents=True)
        old.write_text("{}")
        os.utime(old, (1, 1))
        options = make_parser().parse_args(["inspect", world.add_image(RELEASED), "--json"])
        answer = await run(options, config)
    assert answer.code == 0
    assert not old.parent.exists()

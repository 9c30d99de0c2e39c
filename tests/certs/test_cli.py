import json
import os
import signal
import subprocess
import sys
import time

import pytest

from certs.cli import main


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, *capsys.readouterr()


def test_issue_makes_certificates_and_says_which(capsys, tmp_path):
    code, out, _ = run(
        capsys, "issue", "--dir", str(tmp_path / "d"), "--dns", "a.example", "--ip", "10.0.0.1", "--json"
    )
    rows = {row["role"]: row for row in json.loads(out)["certificates"]}
    assert code == 0
    assert rows["server"]["names"] == ["a.example", "10.0.0.1"]
    assert set(rows) == {"authority", "server"}


def test_issue_again_changes_nothing(capsys, tmp_path):
    arguments = ("issue", "--dir", str(tmp_path), "--dns", "a.example", "--client", "webhook", "--json")
    assert run(capsys, *arguments)[1] == run(capsys, *arguments)[1]


def test_show_never_shows_a_key(capsys, tmp_path):
    run(capsys, "issue", "--dir", str(tmp_path), "--dns", "a.example", "--signing")
    code, out, _ = run(capsys, "show", "--dir", str(tmp_path))
    assert code == 0
    assert "not_after" in out
    assert "PRIVATE" not in out


def test_show_of_an_empty_folder_is_a_clear_error(capsys, tmp_path):
    code, out, err = run(capsys, "show", "--dir", str(tmp_path))
    assert (code, out) == (1, "")
    assert "holds no certificate authority; admend-certs issue makes one" in err


def test_issue_without_names_is_a_clear_error(capsys, tmp_path):
    code, _, err = run(capsys, "issue", "--dir", str(tmp_path))
    assert code == 1
    assert "--dns NAME, --ip IP" in err


def test_an_unknown_option_is_a_usage_error(capsys):
    assert run(capsys, "issue", "--nonsense")[0] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folder: d\nnonsense: 1\n", "nonsense"),
        ("{}", "either a folder or a cluster"),
        ("folder: [", "is not YAML"),
        ("folder: d\ncheck_seconds: 0\n", "check_seconds"),
        ("- list", "document"),
    ],
)
def test_a_wrong_configuration_names_the_file_and_the_key(capsys, tmp_path, text, message):
    file = tmp_path / "certs.yaml"
    file.write_text(text)
    code, _, err = run(capsys, "rotate", "--config", str(file))
    assert code == 2
    assert str(file) in err
    assert message in err


def test_rotate_once_makes_one_pass(capsys, tmp_path):
    file = tmp_path / "certs.yaml"
    file.write_text(json.dumps({"folder": str(tmp_path / "d"), "dns_names": ["a.example"], "signing": True}))
    assert run(capsys, "rotate", "--once", "--config", str(file))[0] == 0
    assert (tmp_path / "d" / "signing.pub").exists()


def test_rotate_ends_well_on_sigterm(tmp_path):
    file = tmp_path / "certs.yaml"
    file.write_text(json.dumps({"folder": str(tmp_path / "d"), "dns_names": ["a.example"]}))
    process = subprocess.Popen([sys.executable, "-m", "certs.cli", "rotate", "--config", str(file)])
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "d" / "tls.crt").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()


def test_the_signing_key_is_replaced_on_demand_and_the_command_says_when(capsys, tmp_path):
    assert run(capsys, "rotate-signing-key", "--dir", str(tmp_path))[0] == 1
    run(capsys, "issue", "--dir", str(tmp_path), "--dns", "a.example", "--signing")
    before = (tmp_path / "signing.pub").read_bytes()
    code, out, _ = run(capsys, "rotate-signing-key", "--dir", str(tmp_path))
    assert code == 0
    assert "the new key signs from 20" in out
    after = (tmp_path / "signing.pub").read_bytes()
    assert after.startswith(before)
    assert after.count(b"BEGIN PUBLIC KEY") == 2


def test_a_reader_that_goes_away_gets_no_trace(capsys, tmp_path):
    run(capsys, "issue", "--dir", str(tmp_path), "--dns", "a.example")
    read, write = os.pipe()
    os.close(read)
    command = (sys.executable, "-m", "certs.cli", "show", "--dir", str(tmp_path))
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_an_interrupt_ends_the_command_with_130_and_no_trace(capsys, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("certs.cli.reconcile", interrupt)
    assert run(capsys, "issue", "--dir", str(tmp_path), "--dns", "a.example") == (130, "", "")

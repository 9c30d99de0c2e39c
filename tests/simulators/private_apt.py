"""The real apt, on a state of its own: it reads the given sources and package database and touches nothing else."""

from collections.abc import Sequence
from pathlib import Path


def private_apt(
    folder: Path, lines: str, status: str, preferences: str, default: str, *, archs: Sequence[str] = ("amd64",)
) -> str:
    """Write apt's configuration for a root of its own below `folder`; returns the path for APT_CONFIG.

    The first of `archs` is native there, whatever this machine is.
    """
    for name in ("lists/partial", "cache/archives/partial", "etc"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/sources.list").write_text(lines)
    (folder / "etc/preferences").write_text(preferences)
    (folder / "status").write_text(status)
    conf = folder / "apt.conf"
    conf.write_text(
        f'Dir::State "{folder}"; Dir::State::lists "{folder}/lists"; Dir::State::status "{folder}/status";\n'
        f'Dir::Cache "{folder}/cache"; Dir::Etc "{folder}/etc"; Dir::Log "{folder}";\n'
        f'APT::Architecture "{archs[0]}"; APT::Sandbox::User "root";\n'
        "APT::Architectures { " + " ".join(f'"{arch}";' for arch in archs) + " };\n"
        'Acquire::Languages "none"; Acquire::http::Proxy "false";\n'
        + (f'APT::Default-Release "{default}";\n' if default else "")
    )
    return str(conf)


def render_status(packages: str) -> str:
    """Return a dpkg status file of installed packages, from their control stanzas."""
    stanzas = packages.strip().split("\n\n")
    return "".join(f"{stanza.strip()}\nStatus: install ok installed\n\n" for stanza in stanzas)

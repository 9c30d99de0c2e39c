"""The command with a patcher that takes every package for one that can be recorded: what it tells is the choice alone.

Owns that difference: no package is fetched or unpacked, and nothing is built.
"""

from collections.abc import Sequence
from typing import Any
from unittest import mock

from proxy import cli, serve
from proxy.engine.family import Upgrade
from proxy.jobs import Built
from proxy.patcher import Patcher


class Planner(Patcher):
    """Plans, and goes no further."""

    async def _unpack(self, _family: str, upgrades: Sequence[Upgrade]) -> tuple[dict[str, str], dict[str, str]]:
        return dict.fromkeys((upgrade.key for upgrade in upgrades), "nowhere"), {}

    async def _build(self, *_: Any, **__: Any) -> Built:
        return Built()


def main() -> None:
    with mock.patch.object(serve, "Patcher", Planner):
        cli.main()

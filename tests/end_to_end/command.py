"""The real command, run in a folder of a world with a registry and a package source on loopback."""

import asyncio
import sys


async def admend(world, *arguments, stdin=b""):
    """Run the command; returns exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.cli", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=world.folder,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    return process.returncode, out.decode(), err.decode()


async def patch(world, image, *more):
    return await admend(world, "patch", image, "-o", "oci:out:patched", "--config", "proxy.json", *more)

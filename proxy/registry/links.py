"""Pagination by Link headers: https://www.rfc-editor.org/rfc/rfc8288, as the distribution specification uses it."""

import re

from proxy.egress import Response
from proxy.errors import TrustFailure
from proxy.oci.reference import ImageRef
from proxy.registry.session import Session

_NEXT = re.compile(r'<([^<>]{1,4096})>\s*;[^<]*\brel\s*=\s*"?next"?', re.IGNORECASE)


async def next_link(session: Session, name: ImageRef, response: Response) -> str | None:
    """Return the address of the next page, or None; a page on another host is refused."""
    match = _NEXT.search(response.headers.get("link", ""))
    if match is None:
        return None
    target = await session.same_origin(name, response.url, match[1])
    if target is None:
        raise TrustFailure(f"{response.url}: its next page is on another host; refused")
    return target

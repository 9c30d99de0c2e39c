"""What may happen to one container's image.

Owns the words, and which word says that something would have happened.
"""

from collections.abc import Mapping
from enum import StrEnum


class Verdict(StrEnum):
    """What happens to one container's image; `would-*` where the pod is left as it is."""

    REWRITE = "rewrite"
    PIN = "pin"
    KEEP = "keep"
    DENY = "deny"
    WOULD_REWRITE = "would-rewrite"
    WOULD_PIN = "would-pin"
    WOULD_DENY = "would-deny"


WOULD: Mapping[Verdict, Verdict] = {
    verdict: Verdict(f"would-{verdict}") if verdict in {Verdict.REWRITE, Verdict.PIN, Verdict.DENY} else verdict
    for verdict in Verdict
}

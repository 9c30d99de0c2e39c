"""The one way out: every URL, redirect hop and resolved address is checked before a byte is sent.

`policy` says what may be talked to, `network` resolves names and connects to the checked address, `client` sends
requests, follows redirects and tries again.
"""

from proxy.egress.client import Egress, Response, StreamedResponse
from proxy.egress.policy import EgressPolicy, Purpose

__all__ = ["Egress", "EgressPolicy", "Purpose", "Response", "StreamedResponse"]

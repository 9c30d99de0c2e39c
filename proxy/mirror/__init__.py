"""Where patched images live: an OCI layout on this machine, or any registry.

`protocol` says what a mirror does, `tags` and `proxy.oci.naming` how things are called, `embedded` and `external` are
the two kinds.
"""

from proxy.mirror.embedded import EmbeddedMirror
from proxy.mirror.protocol import Mirror
from proxy.mirror.tags import patched_tag
from proxy.oci.naming import Naming

__all__ = ["EmbeddedMirror", "Mirror", "Naming", "patched_tag"]

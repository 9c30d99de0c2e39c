"""OCI artifacts of one blob: small documents of admend's own, kept in a registry beside the images.

Specification: https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md#guidelines-for-artifact-usage
"""

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_EMPTY, OCI_MANIFEST, Manifest, parse_manifest, render_json

EMPTY = b"{}"


def render_artifact(kind: str, raw: bytes) -> tuple[Manifest, dict[Digest, bytes]]:
    """Return the manifest of an artifact of type `kind` whose only blob is `raw`, and all its blobs."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": OCI_EMPTY, "digest": str(Digest.of(EMPTY)), "size": len(EMPTY)},
        "layers": [{"mediaType": kind, "digest": str(Digest.of(raw)), "size": len(raw)}],
    }
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    if not isinstance(manifest, Manifest):
        raise MalformedInput("an artifact's manifest is no index")
    return manifest, {Digest.of(raw): raw, Digest.of(EMPTY): EMPTY}

"""What the demonstration checks before it says that it worked.

Owns pulling the patched image back from the mirror as a node would, every digest checked on the way, and reading the
package versions that are really inside it; and the signature as a verifier finds it in the registry.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from proxy.api import UpgradeInfo
from proxy.errors import TrustFailure
from proxy.images import RegistryImage
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.patcher import Target
from proxy.phases import Phases
from proxy.registry import Registry
from proxy.serve import Engine
from proxy.trust import Claim, VerifyKey, check_claim, signature_tag, verify_attached

MAX_SIGNATURE_AGE = timedelta(hours=1)
MAX_PAYLOAD = 64 << 10


async def check_versions(engine: Engine, patched: ImageRef, upgrades: Sequence[UpgradeInfo]) -> Mapping[str, str]:
    """Pull `patched` into `engine`'s own empty cache and return the versions of the upgraded packages in it.

    Raises TrustFailure when a digest does not hold or a package has another version than `upgrades` say.
    """
    source = RegistryImage(engine.registry, patched)
    if patched.digest is None:
        raise TrustFailure(f"{patched}: the pod's image has no digest")
    top = await source.get_manifest(patched.digest)
    manifests = [top] if isinstance(top, Manifest) else [await _child(source, entry) for entry in top.manifests]
    found: dict[str, str] = {}
    for manifest in manifests:
        with ExitStack() as keep:
            image = await engine.patcher.open(manifest, Target(source, patched.name, Phases(), keep), any_image=True)
        found |= {item.key: item.package.version for item in image.inspection.packages}
    for upgrade in upgrades:
        has = found.get(upgrade.package, "")
        if has != upgrade.to_version:  # none where the package was removed
            raise TrustFailure(
                f"{patched} holds {upgrade.package} {has or 'nothing'}, not {upgrade.to_version or 'nothing'}"
            )
    return {upgrade.package: upgrade.to_version for upgrade in upgrades}


async def check_signature(registry: Registry, patched: ImageRef, original: str, key: VerifyKey) -> Claim:
    """Fetch the image's signature from the registry and check that it is about this image and its original."""
    if patched.digest is None:
        raise TrustFailure(f"{patched}: the pod's image has no digest")
    manifest = await registry.get_manifest(patched.with_tag(signature_tag(patched.digest)))
    if not isinstance(manifest, Manifest):
        raise TrustFailure(f"{patched}: its signature manifest is an index")
    blobs = {layer.digest: await _read(registry, patched, layer) for layer in manifest.layers}
    source, digest = ImageRef.parse(original), patched.digest

    def check(claim: Claim) -> None:
        check_claim(
            claim,
            source_repository=source.name,
            source_digest=source.digest,
            patched_digest=digest,
            patched_repository=patched.name,
            policy_hash=None,
            max_age=MAX_SIGNATURE_AGE,
            now=datetime.now(UTC),
        )

    claim, _ = verify_attached([manifest], lambda layer: blobs[layer.digest], [key], check)
    return claim


async def _child(source: RegistryImage, entry: Descriptor) -> Manifest:
    child = await source.get_manifest(entry.digest)
    if isinstance(child, Index):
        raise TrustFailure(f"{entry.digest}: an index inside an index")
    return child


async def _read(registry: Registry, name: ImageRef, descriptor: Descriptor) -> bytes:
    if descriptor.size > MAX_PAYLOAD:
        raise TrustFailure(f"a signed payload of {descriptor.size} bytes")
    return b"".join([piece async for piece in registry.stream_blob(name, descriptor)])

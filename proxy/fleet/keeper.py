"""The report's place: signed in the mirror, so that every proxy can show what the one that leads has seen.

Owns the artifact `admend.internal/fleet:report`. What is not signed with a key that is believed is not shown.
"""

from proxy.errors import MalformedInput, TrustFailure
from proxy.fleet.report import StatusReport
from proxy.mirror import Mirror
from proxy.oci.artifact import render_artifact
from proxy.oci.manifest import Manifest
from proxy.oci.reference import ImageRef
from proxy.trust import KeyRing
from proxy.trust.envelope import sign_document, verify_document

NAME = ImageRef("admend.internal", "fleet", "report")  # no registry: the mirror's own corner
KIND = "application/vnd.admend.fleet.v1+json"
MAX_REPORT = 16 << 20  # bytes


class Keeper:
    """Writes and reads the report."""

    def __init__(self, mirror: Mirror, keys: KeyRing) -> None:
        self._mirror, self._keys = mirror, keys
        self._name = mirror.name_for(NAME)

    async def save(self, report: StatusReport) -> None:
        """Keep a report in place of the last one."""
        document = sign_document(KIND, report.model_dump_json().encode(), self._keys.signing)
        manifest, blobs = render_artifact(KIND, document)
        await self._mirror.put_artifact(self._name, manifest, blobs)

    async def load(self) -> StatusReport | None:
        """Return the report that is kept; None where there is none.

        Raises:
            MalformedInput: what is there is no report.
            TrustFailure: it is signed by nobody who is believed.
        """
        manifest = await self._mirror.get_manifest(self._name)
        if manifest is None:
            return None
        if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
            raise MalformedInput("no report", file=str(self._name))
        raw = await self._mirror.read_blob(self._name, manifest.layers[0], limit=2 * MAX_REPORT)
        payload = verify_document(raw, KIND, self._keys.accepted, where=str(self._name), limit=MAX_REPORT)
        try:
            return StatusReport.model_validate_json(payload)
        except ValueError as error:
            raise TrustFailure(f"{self._name}: signed, but of another version: {error}") from error

"""What becomes of private images: whether they are patched and rewritten, and how nodes may pull them then.

Owns the decision (`mirror.private`), what the embedded mirror knows of its repositories, and the way to a pull secret:
a grant for namespace and repository, and a Secret with the namespace's password for the mirror. An external registry
has an access control of its own: none of this is for it but the decision.
"""

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from proxy.access import Caller
from proxy.api import MIRROR_SECRET
from proxy.entrance import Asker, Entrance
from proxy.errors import AdmendError, Unsupported
from proxy.grants import NAME as GRANTS
from proxy.grants import GrantBook
from proxy.kube.secrets import Secrets, render_login
from proxy.mirror import EmbeddedMirror, Mirror
from proxy.oci.reference import ImageRef
from proxy.pulltokens import NamespacePasswords
from proxy.rights import Rights

MAX_KEPT = 10_000  # namespaces whose Secret was seen to

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PullSecretMaker:
    """What pull secrets for the mirror are made with."""

    grants: GrantBook
    secrets: Secrets
    passwords: NamespacePasswords
    seconds: float = 10.0  # for which a Secret that was seen to is believed to be there; namespaces come and go


class Privacy:
    """The decisions for one mirror.

    Args:
        mirror: the mirror.
        entrance: knows which images the proxy's own credentials open.
        private: the setting `mirror.private`.
        maker: makes pull secrets; None where there are none.
    """

    def __init__(
        self,
        mirror: Mirror,
        entrance: Entrance,
        private: Literal["keep", "rewrite"] | None,
        maker: PullSecretMaker | None,
    ) -> None:
        self._mirror, self._entrance, self._private, self._maker = mirror, entrance, private, maker
        self._kept: OrderedDict[str, float] = OrderedDict()
        granted = maker.grants.granted if maker else lambda _namespace, _repository: False
        self.rights = Rights(self._visibility, self._is_suspect, granted, self._is_held)

    async def open(self) -> None:
        """Read the grants, and see that every namespace with one has the password of this time in its Secret."""
        if self._maker is None:
            return
        await self._maker.grants.open()
        for namespace in self._maker.grants.namespaces:
            try:
                await self._keep_secret(self._maker, namespace)
            except AdmendError as error:  # the next admission there tries again, and tells its pod why
                _log.warning("%s", error)

    def keeps(self, asker: Asker) -> str:
        """Return why a private image stays as it is, or "" when it is patched and rewritten."""
        if not asker.namespace and isinstance(self._mirror, EmbeddedMirror):
            return ""  # no pod's: the operator's own, who may pull everything
        if self._private == "keep" or (self._private is None and self._maker is None):
            embedded = isinstance(self._mirror, EmbeddedMirror)
            how = "mirror.grants.enabled makes pull secrets" if embedded else "mirror.private: rewrite says they have"
            return f"a private image, and nodes are not known to have credentials for the mirror ({how})"
        if self._maker is not None and asker.namespace and not self._maker.secrets.covers(asker.namespace):
            setting = "cluster.pull_secrets.namespaces"
            return f"a private image, and no pull secret may be made in the namespace {asker.namespace} ({setting})"
        return ""

    def is_private(self, name: ImageRef) -> bool:
        """Say whether the mirror's repository is closed to who has no grant."""
        return isinstance(self._mirror, EmbeddedMirror) and self.rights.is_private(name.repository)

    async def note(self, name: ImageRef, *, private: bool) -> None:
        """Note what was just learnt of an image, before anything of it is in the mirror's repository."""
        if isinstance(self._mirror, EmbeddedMirror) and (private or self.rights.wants_login(name.repository)):
            await self._mirror.set_visibility(name.repository, "private" if private else "public")

    async def make_pull_secret(self, namespace: str, name: ImageRef, *, dry_run: bool) -> str:
        """Return the Secret in the namespace that opens a private repository, made if need be; "" if none is needed.

        Raises Unsupported, with what to do, when there can be none now.
        """
        if self._maker is None or not namespace:
            return ""
        if not dry_run:
            try:
                await self._maker.grants.grant(namespace, name.repository)
                await self._keep_secret(self._maker, namespace)
            except AdmendError as error:
                raise Unsupported(f"a private image, and nodes would lack its pull secret: {error}") from error
        return MIRROR_SECRET

    async def _keep_secret(self, maker: PullSecretMaker, namespace: str) -> None:
        if self._kept.get(namespace, 0.0) > time.monotonic():
            return
        host = self._mirror.name_for(GRANTS).host
        content = render_login(host, namespace, maker.passwords.password(namespace))
        await maker.secrets.keep(namespace, MIRROR_SECRET, content)
        self._kept[namespace] = time.monotonic() + maker.seconds
        self._kept.move_to_end(namespace)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def _visibility(self, repository: str) -> Literal["public", "private", ""]:
        if not isinstance(self._mirror, EmbeddedMirror):
            return "public"
        corner = self._mirror.name_for(GRANTS).repository
        return "private" if repository == corner else self._mirror.visibility(repository)

    def _is_held(self, repository: str) -> bool:
        return isinstance(self._mirror, EmbeddedMirror) and self._mirror.layout.has(repository)

    def _is_suspect(self, repository: str) -> bool:
        original = self._mirror.original_of(ImageRef(self._mirror.name_for(GRANTS).host, repository))
        return original is not None and self._entrance.is_suspect(original)

    def asker(self, caller: Caller) -> Asker:
        """Return for whom somebody asks who pulls through the mirror."""
        return Asker(caller.namespace, own=caller.trusted or self._entrance.is_open)

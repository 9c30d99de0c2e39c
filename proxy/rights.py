"""Which repositories of the embedded mirror are private, and who may pull from those.

Owns that decision. A repository is private when its image was opened upstream with credentials and not without them;
as long as nothing is known of one that holds something, it counts as private where the proxy's own credentials could
have opened it. One that holds nothing has nothing to close: what is pulled through it is asked of its registry. The
operator's own may pull everything, a namespace what it was granted (see `grants`), nobody else anything.
"""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.access import Caller
from proxy.mirror.layout import Visibility


@dataclass(frozen=True, slots=True)
class Rights:
    """The decision.

    Args:
        visibility: what is known of a repository of the mirror.
        suspected: whether one of which nothing is known may hold what credentials opened.
        granted: whether a namespace may pull from a private one.
        held: whether the mirror has anything of a repository.
    """

    visibility: Callable[[str], Visibility]
    suspected: Callable[[str], bool] = lambda _: False
    granted: Callable[[str, str], bool] = lambda _namespace, _repository: False
    held: Callable[[str], bool] = lambda _: True

    def is_private(self, repository: str) -> bool:
        """Say whether a repository is private."""
        known = self.visibility(repository)
        return known == "private" or (not known and self.held(repository) and self.suspected(repository))

    def wants_login(self, repository: str) -> bool:
        """Say whether somebody with credentials might get what somebody without was not given."""
        known = self.visibility(repository)
        return known == "private" or (not known and self.suspected(repository))

    def may_pull(self, caller: Caller, repository: str) -> bool:
        """Say whether a caller may pull from a repository."""
        if caller.trusted or not self.is_private(repository):
            return True
        return bool(caller.namespace) and self.granted(caller.namespace, repository)

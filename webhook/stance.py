"""What keeps a whole pod from being changed, though its images are looked at.

Owns two matters that are the pod's and not one image's: an owner that may fight a rewrite (`selection.foreign_owners`),
and nodes that are not known to reach the mirror (the proxy's `hold`). Either turns verdicts into what would have been
done, or, where the operator says so, denies. Pure. Anybody may write an owner reference, so under mode enforce only
`foreign_owners: deny` makes a made-up one worthless.
"""

from dataclasses import dataclass

from proxy.api import make_printable
from webhook.config import EnforceConfig, Mode, SelectionConfig
from webhook.pod import Pod
from webhook.verdict import WOULD, Verdict

WORKLOADS = {("ReplicaSet", "apps"), ("StatefulSet", "apps"), ("DaemonSet", "apps"), ("Job", "batch")}
MAX_HOLD = 768  # characters of the proxy's reason that are told


@dataclass(frozen=True, slots=True)
class Stance:
    """How a pod is treated: `foreign` and `held` are the reasons for leaving it alone, empty where there is none.

    `deny_foreign` and `deny_held` say that what would have to change is denied instead; `audit` is mode audit, in which
    every pod is left alone.
    """

    foreign: str = ""
    held: str = ""
    deny_foreign: bool = False
    deny_held: bool = False
    audit: bool = False

    @property
    def reason(self) -> str:
        """Why the pod is left alone, for the log."""
        return "; ".join(part for part in (self.foreign, f"held: {self.held}" if self.held else "") if part)

    @property
    def frozen(self) -> bool:
        """Whether nothing of the pod is edited."""
        return self.audit or bool(self.foreign) or bool(self.held and not self.deny_held)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the person at the keyboard should know."""
        if self.audit or self.foreign or self.deny_held or not self.held:
            return ()
        return (f"admitted unchanged, nodes are not known to reach the mirror: {self.held}",)

    def apply(self, verdict: Verdict, *, changes: bool) -> Verdict:
        """Return what becomes of a container's verdict; `changes` says whether it would change the image.

        1. A foreign owner's pod is denied where it would have to change and the operator says deny.
        2. Held, a rewrite is denied where the operator says deny: the nodes could not pull it. A pin names the
           upstream's own image and needs no mirror.
        3. Otherwise either reason, and mode audit, leaves it at what would have been done.
        """
        refused = bool(self.foreign) and self.deny_foreign and changes  # (1)
        refused = refused or (bool(self.held) and self.deny_held and verdict is Verdict.REWRITE)  # (2)
        settled = Verdict.DENY if refused else verdict
        if self.audit or (self.foreign and not self.deny_foreign) or (self.held and not self.deny_held):
            return WOULD[settled]  # (3)
        return settled


def take_stance(pod: Pod, hold: str, mode: Mode, selection: SelectionConfig, enforce: EnforceConfig) -> Stance:
    """Return how a pod is treated whose images were resolved; `hold` is what the proxy said, if it did."""
    enforced = mode is not Mode.PERMISSIVE  # audit tells what enforce would do
    return Stance(
        foreign=find_foreign(pod, selection),
        held=make_printable(hold)[:MAX_HOLD],
        deny_foreign=enforced and selection.foreign_owners == "deny",
        deny_held=enforced and enforce.held == "deny",
        audit=mode is Mode.AUDIT,
    )


def find_foreign(pod: Pod, settings: SelectionConfig) -> str:
    """Return why the pod's owner may fight a rewrite and what to do, or nothing for one that is known or listed."""
    owner = pod.owner
    if owner is None or (owner.kind, owner.group) in WORKLOADS:
        return ""
    kind = f"{owner.kind}.{owner.group}" if owner.group else owner.kind
    if {owner.kind, kind} & set(settings.owners):
        return ""
    return f"the pod's owner {owner} may fight a rewrite; to include it, add {kind} to selection.owners"

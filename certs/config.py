"""The configuration of `admend-certs rotate`: one YAML or JSON file, one frozen model, unknown keys refused.

Owns the model; `settings` reads the file.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from certs.holdings import Wanted
from certs.logs import LogConfig
from certs.settings import Section


class ClusterConfig(Section):
    """Certificates in a Secret instead of a folder.

    `webhook_configuration` names the MutatingWebhookConfiguration whose caBundle is kept up to date. `lease` names the
    Lease by which one of several processes is the one that writes. `kubeconfig` is for a process outside of the
    cluster; inside, the service account is used.
    """

    namespace: str
    secret: str
    webhook_configuration: str | None = None
    lease: str = "admend-certs"
    kubeconfig: Path | None = None


class CertsConfig(Section):
    """The whole configuration: where certificates are kept (`folder` or `cluster`), and which there must be."""

    folder: Path | None = None
    cluster: ClusterConfig | None = None
    dns_names: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    client: str | None = None
    signing: bool = False  # also make the key pair that signs patched images
    authority: bool = True  # false: certificates are somebody else's matter (cert-manager), only signing keys are kept
    check_seconds: Annotated[float, Field(ge=1)] = 30.0  # a Secret that was deleted or damaged heals as fast
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.cluster is None):
            raise ValueError("name either a folder or a cluster's Secret")
        if not self.authority and (self.dns_names or self.ips or self.client):
            raise ValueError("authority: false makes no certificates: leave dns_names, ips and client out")
        return self

    @property
    def wanted(self) -> Wanted:
        """What there must be."""
        return Wanted(self.dns_names, self.ips, self.client, self.signing, self.authority)

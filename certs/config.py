"""The configuration of `admend-certs rotate`: one YAML or JSON file, one frozen model, unknown keys refused.

Owns the model and its reading. Nothing else in this package reads the environment or a settings file. Durations are in
seconds.
"""

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from certs.errors import CertificateError
from certs.holdings import Wanted

MAX_CONFIG = 1 << 20


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClusterConfig(Section):
    """Certificates in a Secret instead of a folder.

    `webhook_configuration` names the MutatingWebhookConfiguration whose caBundle is kept up to date. `kubeconfig` is
    for a process outside of the cluster; inside, the service account is used.
    """

    namespace: str
    secret: str
    webhook_configuration: str | None = None
    kubeconfig: Path | None = None


class CertsConfig(Section):
    """The whole configuration: where certificates are kept (`folder` or `cluster`), and which there must be."""

    folder: Path | None = None
    cluster: ClusterConfig | None = None
    dns_names: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    client: str | None = None
    signing: bool = False  # also make the key pair that signs patched images
    check_seconds: Annotated[float, Field(ge=1)] = 3600.0

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.cluster is None):
            raise ValueError("name either a folder or a cluster's Secret")
        return self

    @property
    def wanted(self) -> Wanted:
        """What there must be."""
        return Wanted(self.dns_names, self.ips, self.client, self.signing)


def load_config(file: Path) -> CertsConfig:
    """Read and check a configuration file (JSON is YAML); CertificateError names the file and the key."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_CONFIG + 1)
    except OSError as error:
        raise CertificateError(f"{file}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_CONFIG:
        raise CertificateError(f"{file}: a configuration file has {MAX_CONFIG} bytes at the most")
    try:
        return CertsConfig.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise CertificateError(f"{file}: is not YAML: {error}") from error
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, each['loc'])) or 'document'}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise CertificateError(f"{file}: {'; '.join(problems)}") from error

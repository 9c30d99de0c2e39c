"""AdmissionReview v1, in and out.

Owns the wire models, their checks and the way to and from values. Tolerates fields that it does not know (the API
server adds some with every release), is strict about those it uses, and refuses a body that is no AdmissionReview with
MalformedInput. A review of anything but a pod or its ephemeral containers parses to a request without a pod.
Specification: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from proxy.audit import AuditEvent
from proxy.errors import MalformedInput
from proxy.placement import OS_KEYS, Affinity, bound_architectures
from webhook.pod import Container, Edit, ImageVolume, Owner, Pod

API_VERSION = "admission.k8s.io/v1"
MAX_NAME = 253  # characters of an object's name (DNS subdomain)
MAX_SECRETS = 32


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """One request; `pod` is None where there is nothing for admend to look at, `old` is the pod before an update."""

    uid: str
    operation: str
    namespace: str
    user: str
    dry_run: bool
    subresource: str = ""
    pod: Pod | None = None
    old: Pod | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request; `message` says why it is denied."""

    allowed: bool = True
    message: str = ""
    edits: tuple[Edit, ...] = ()
    warnings: tuple[str, ...] = ()
    audit_annotations: Mapping[str, str] = field(default_factory=dict)
    events: tuple[AuditEvent, ...] = ()


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, alias_generator=to_camel)


def _or_blank(value: object) -> object:
    return "" if value is None else value


Text = Annotated[str, BeforeValidator(_or_blank)]


class _Owner(_Wire):
    api_version: str
    kind: str
    name: str
    controller: bool | None = None


class _Metadata(_Wire):
    name: Text = ""
    generate_name: Text = ""
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None
    deletion_timestamp: str | None = None


class _Container(_Wire):
    name: Text = ""
    image: Text = ""
    image_pull_policy: Text = ""


class _ImageSource(_Wire):
    reference: Text = ""


class _Volume(_Wire):
    name: Text = ""
    image: _ImageSource | None = None


class _Secret(_Wire):
    name: Text = ""


class _Os(_Wire):
    name: Text = ""


class _Spec(_Wire):
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    ephemeral_containers: list[_Container] | None = None
    volumes: list[_Volume] | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    os: _Os | None = None
    image_pull_secrets: list[_Secret] | None = None
    service_account_name: Text = ""


class _Pod(_Wire):
    metadata: _Metadata
    spec: _Spec


class _Kind(_Wire):
    group: str
    kind: str


class _Resource(_Wire):
    group: str
    resource: str


class _User(_Wire):
    username: Text = ""


class _Request(_Wire):
    uid: Annotated[str, Field(min_length=1, max_length=128)]
    kind: _Kind
    resource: _Resource
    sub_resource: Text = ""
    name: Text = ""
    namespace: Annotated[str, Field(max_length=MAX_NAME), BeforeValidator(_or_blank)] = ""
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    user_info: _User = _User()
    dry_run: bool | None = None
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None


class _Review(_Wire):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: _Request


def parse_review(body: bytes) -> AdmissionRequest:
    """Parse the body of the API server's POST; MalformedInput says which field is wrong."""
    try:
        request = _Review.model_validate_json(body).request
        if not _concerns(request):
            return _value(request, None, None)
        if not request.namespace:  # the proxy opens what the operator's login opens for who is of no namespace
            raise MalformedInput("request.namespace: a pod is in one", file=f"not an AdmissionReview of {API_VERSION}")
        pod = _Pod.model_validate(request.object)
        old = _Pod.model_validate(request.old_object) if request.old_object is not None else None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise MalformedInput(f"{place}: {first['msg']}", file=f"not an AdmissionReview of {API_VERSION}") from error
    return _value(request, pod, old)


def render_review(uid: str, decision: Decision) -> bytes:
    """Return the response body; edits go in as a base64 JSON Patch."""
    response: dict[str, Any] = {"uid": uid, "allowed": decision.allowed}
    if not decision.allowed:
        response["status"] = {"code": 403, "reason": "Forbidden", "message": decision.message}
    elif decision.edits:
        edits = json.dumps([edit.to_json() for edit in decision.edits], separators=(",", ":"))
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(edits.encode()).decode()
    if decision.warnings:
        response["warnings"] = list(decision.warnings)
    if decision.audit_annotations:
        response["auditAnnotations"] = dict(decision.audit_annotations)
    document = {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
    return json.dumps(document, separators=(",", ":")).encode()


def _concerns(request: _Request) -> bool:
    """Say whether the request creates or changes a pod, or its ephemeral containers."""
    is_pod = (request.resource.group, request.resource.resource, request.kind.kind) == ("", "pods", "Pod")
    wanted = request.operation in {"CREATE", "UPDATE"} and request.sub_resource in {"", "ephemeralcontainers"}
    return is_pod and wanted


def _value(request: _Request, pod: _Pod | None, old: _Pod | None) -> AdmissionRequest:
    return AdmissionRequest(
        uid=request.uid,
        operation=request.operation,
        namespace=request.namespace,
        user=request.user_info.username,
        dry_run=bool(request.dry_run),
        subresource=request.sub_resource,
        pod=_pod(pod, request) if pod else None,
        old=_pod(old, request) if old else None,
    )


def _pod(wire: _Pod, request: _Request) -> Pod:
    metadata, spec = wire.metadata, wire.spec
    lists = (
        ("initContainers", spec.init_containers),
        ("containers", spec.containers),
        ("ephemeralContainers", spec.ephemeral_containers),
    )
    secrets = spec.image_pull_secrets or []
    selector = spec.node_selector or {}
    system = (spec.os.name if spec.os else "") or next((selector[key] for key in OS_KEYS if key in selector), "linux")
    return Pod(
        name=metadata.name or request.name or metadata.generate_name,
        namespace=request.namespace,
        containers=tuple(
            Container(name, index, item.name, item.image, item.image_pull_policy)
            for name, items in lists
            for index, item in enumerate(items or ())
        ),
        annotations=metadata.annotations,
        labels=metadata.labels,
        owner=_owner(metadata.owner_references or []),
        deleting=metadata.deletion_timestamp is not None,
        os=system,
        architectures=bound_architectures(spec.node_selector, spec.affinity),
        image_volumes=tuple(
            ImageVolume(item.name, item.image.reference) for item in spec.volumes or () if item.image is not None
        ),
        pull_secrets=tuple(item.name for item in secrets if 0 < len(item.name) <= MAX_NAME)[:MAX_SECRETS],
        lists_secrets=spec.image_pull_secrets is not None,
        service_account=spec.service_account_name if len(spec.service_account_name) <= MAX_NAME else "",
    )


def _owner(references: list[_Owner]) -> Owner | None:
    """Return the controller; where owners exist and none controls, the first."""
    chosen = next((item for item in references if item.controller), references[0] if references else None)
    if chosen is None:
        return None
    group, slash, _ = chosen.api_version.partition("/")
    return Owner(chosen.kind, group if slash else "", chosen.name)

"""On which architectures a pod can run, by its node selector and its required node affinity.

Owns the wire models of these two and the judgement, so that an image is asked for with the same platforms at admission
and ahead of need. Only what binds surely counts: a simple `In`, in every term; anything else means any architecture.
Specification: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

ARCHITECTURE_KEYS = ("kubernetes.io/arch", "beta.kubernetes.io/arch")
OS_KEYS = ("kubernetes.io/os", "beta.kubernetes.io/os")
MAX_ARCHITECTURES = 16
MAX_GOARCH = 32  # characters; those that there are have up to 8


def _or_empty(value: Any) -> Any:
    return () if value is None else value


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, alias_generator=to_camel)


class Expression(_Wire):
    """One requirement on a node's labels."""

    key: str
    operator: str
    values: Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_or_empty)] = ()


class Term(_Wire):
    """Requirements that a node meets all of."""

    match_expressions: list[Expression] | None = None


class NodeSelectorTerms(_Wire):
    """Terms of which a node meets one."""

    node_selector_terms: list[Term] | None = None


class NodeAffinity(_Wire):
    """What is required of nodes; what is only preferred binds nothing."""

    required: NodeSelectorTerms | None = Field(default=None, alias="requiredDuringSchedulingIgnoredDuringExecution")


class Affinity(_Wire):
    """A pod's affinity as far as nodes go."""

    node_affinity: NodeAffinity | None = None


def bound_architectures(selector: Mapping[str, str] | None, affinity: Affinity | None) -> tuple[str, ...]:
    """Return the architectures that a pod is bound to; empty where it may run on any, or the answer is not simple."""
    for key in ARCHITECTURE_KEYS:
        if selector and key in selector:
            return (selector[key],)
    node = affinity.node_affinity if affinity else None
    terms = (node.required.node_selector_terms if node and node.required else None) or []
    found: set[str] = set()
    for term in terms:  # one term of several must hold, and in it every expression
        allowed = [
            set(item.values)
            for item in term.match_expressions or ()
            if item.key in ARCHITECTURE_KEYS and item.operator == "In"
        ]
        if not allowed:
            return ()
        found |= set.intersection(*allowed)
    return tuple(sorted(found)) if len(found) <= MAX_ARCHITECTURES else ()


def platforms_of(architectures: Iterable[str]) -> tuple[str, ...]:
    """Return the platforms to ask for; empty means those of the proxy's configuration."""
    wanted = [name for name in architectures if name.isascii() and name.isalnum() and len(name) <= MAX_GOARCH]
    return tuple(f"linux/{name}" for name in wanted)

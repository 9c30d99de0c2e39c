"""The chart, rendered by helm for a matrix of values; once per set of values, however many tests look at it.

Owns the sets and the questions that several test files ask of what was rendered.
"""

import json
import subprocess
from functools import cache

import yaml

from certs.config import CertsConfig
from proxy.config import ProxyConfig
from tests.support import REPOSITORY, require_tool
from webhook.config import WebhookConfig

CHART = REPOSITORY / "charts" / "admend"
NAMESPACE = "admend-system"
MODELS = {"proxy": ProxyConfig, "webhook": WebhookConfig, "certs": CertsConfig}
DIGEST = "sha256:" + "a" * 64
HOSTILE = "x: {y}\n\"'`$(id) {{ .Values }} \\ # - & * ! | > %"

VALUES = {
    "default": {},
    "external registry": {
        "mirror": {"reference": "mirror.example:5443/team", "registry": "mirror.example:5443/team", "naming": "flat"},
        "registryCredentials": {"existingSecret": "registries", "namespaces": ["team-*"]},
        "proxy": {"replicas": 3, "config": {"upstream": {"allow": ["*.example"]}}, "spread": "DoNotSchedule"},
        "image": {"digest": DIGEST, "pullSecrets": [{"name": "own"}]},
        "webhook": {"replicas": 3, "config": {"margin": 1.5}},
        "certs": {"extraDnsNames": ["mirror.example"], "extraIps": ["10.0.0.9"], "secret": "other-name"},
    },
    "opt-out": {
        "namespaces": {"optIn": False, "exclude": ["other"], "platform": []},
        "selection": {"optOut": False},
        "certs": {"keep": True},
        "mirror": {"persistence": {"keep": False}},
    },
    "enforce with policy": {
        "mode": "enforce",
        "enforce": {"held": "deny"},
        "selection": {
            "exclude": ["*/pause*", "docker.io/library/nginx", "registry.example/*:v?"],
            "owners": ["Rollout.argoproj.io", "Widget"],
        },
        "validatingPolicy": {"enabled": True},
    },
    "policy on the mirror only": {
        "enforce": {"held": "deny", "clean": "pin", "blocked": "deny", "unsupported": "deny"},
        "selection": {"include": ["registry.example/*"], "optOut": False, "foreignOwners": "deny"},
        "validatingPolicy": {"enabled": True, "allow": "mirror", "actions": ["Deny", "Audit"]},
        "webhook": {"skipPriorityClasses": [], "objectSelector": {"matchLabels": {"team": "a"}}},
    },
    "cert-manager": {
        "certs": {"certManager": {"enabled": True}, "extraIps": ["10.0.0.9"]},
        "serviceMonitor": {"enabled": True},
    },
    "cert-manager with an issuer": {
        "certs": {"certManager": {"enabled": True, "issuerRef": {"name": "corporate", "kind": "ClusterIssuer"}}},
        "registryCredentials": {"existingSecret": "registries", "open": True},
        "pullSecrets": {"namespaces": ["team-a"]},
    },
    "monitoring": {
        "audit": {
            "stdout": False,
            "http": {"url": "https://audit.example/x", "existingSecret": "audit", "keys": ["token"]},
        },
        "tracing": {
            "endpoint": "https://collector.example:4318/v1/traces",
            "attributes": {"deployment.environment.name": "test"},
            "existingSecret": "traces",
            "keys": ["ca.crt", "token"],
        },
        "log": {"level": "debug", "format": "text"},
        "networkPolicy": {"webhookEgress": [{"ports": [{"port": 443}, {"port": 4318}]}]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"folder": "Security"}},
    },
    "autoscaling": {
        "prometheusRule": {"enabled": True},
        "mirror": {"reference": "mirror.example", "registry": "mirror.example"},
        "webhook": {"autoscaling": {"enabled": True, "minReplicas": 3}, "priorityClassName": "platform"},
        "proxy": {"autoscaling": {"enabled": True}, "affinity": {"nodeAffinity": {}}},
    },
    "IPv6": {
        "listenHost": "::",
        "mirror": {"reference": "[fd00::1]:30443"},
        "networkPolicy": {"nodes": ["fd00::/64"], "except": []},
        "certs": {"extraIps": ["fd00::1"]},
    },
    "no persistence": {
        "mirror": {"reference": "10.0.0.9:8443", "persistence": {"enabled": False}, "probe": {"enabled": False}},
        "fleet": {"enabled": False},
        "nameOverride": "patches",
        "proxy": {"service": {"type": "ClusterIP"}, "nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "x"}]},
    },
    "existing claim": {
        "mirror": {"persistence": {"existingClaim": "held-elsewhere", "size": "24Gi"}},
        "proxy": {"cache": {"sizeLimit": "3072Mi"}},
    },
    "hostile texts": {
        "webhook": {
            "podAnnotations": {"note": HOSTILE, "admend.dev/config": "forged"},
            "podLabels": {"app.kubernetes.io/name": "forged", "team": "a"},
            "objectSelector": {"matchLabels": {"team": "true"}},
            "tolerations": [{"key": "k", "value": HOSTILE}],
        },
        "selection": {"exclude": ["*\"'\\{{ x }}*", "a.b/c+d(e)|f*"]},
        "enforce": {"held": "deny"},
        "validatingPolicy": {"enabled": True},
        "proxy": {"config": {"sources": {"mirrors": {HOSTILE: HOSTILE}}}, "service": {"annotations": {"a": HOSTILE}}},
        "dashboard": {"enabled": True, "annotations": {"a": HOSTILE}},
        "serviceMonitor": {"enabled": True, "labels": {"a": "true"}},
    },
    "private images": {
        "runAsUser": 0,
        "pullSecrets": {"namespaces": ["team-a", "team-b"]},
        "mirror": {"grants": {"enabled": True, "days": 7}, "probe": {"imagePullSecrets": [{"name": "mirror"}]}},
        "auth": {
            "pull": "token",
            "existingSecret": "people",
            "tokenReview": {"allow": ["system:serviceaccount:ci:builder"]},
        },
        "registryCredentials": {"existingSecret": "registries"},
        "proxy": {
            "config": {"sources": {"keyrings": {"vendor.example": ["/etc/vendor/key.gpg"]}}},
            "extraVolumes": [{"name": "vendor", "secret": {"secretName": "vendor"}}],
            "extraVolumeMounts": [{"name": "vendor", "mountPath": "/etc/vendor", "readOnly": True}],
        },
    },
    "ingress": {
        "mirror": {"reference": "mirror.example"},
        "proxy": {
            "service": {"type": "ClusterIP"},
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "host": "mirror.example",
                "tlsSecret": "mirror-tls",
                "annotations": {"nginx.ingress.kubernetes.io/backend-protocol": "HTTPS"},
            },
        },
    },
    "restarts": {
        "fleet": {"restart": {"enabled": True, "namespaces": ["team-a", "team-b"]}, "events": {"enabled": False}},
        "audit": {"http": {"url": "https://audit.example/x", "existingSecret": "audit", "keys": ["ca.crt"]}},
        "networkPolicy": {"webhookEgress": [{"ports": [{"port": 443}]}]},
    },
    "restarts everywhere": {"fleet": {"restart": {"enabled": True, "dryRun": True}, "every": 60}, "mode": "audit"},
    "bare": {
        "fleet": {"enabled": False},
        "mirror": {"probe": {"enabled": False}},
        "networkPolicy": {"enabled": False},
        "webhook": {"replicas": 1},
        "certs": {"replicas": 1},
    },
}


def helm(*arguments, values=None):
    """Run helm, with values on its standard input."""
    command = [require_tool("helm"), *arguments, *(["--values", "-"] if values is not None else [])]
    text = json.dumps(values) if values is not None else None
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@cache
def text_of(name):
    """Return what helm renders for the set of values of that name."""
    done = helm("template", "admend", str(CHART), "--namespace", NAMESPACE, values=VALUES[name])
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def render(name):
    """Return the objects of a set of values."""
    return tuple(document for document in yaml.safe_load_all(text_of(name)) if document)


def of_kind(objects, *kinds):
    """Return the objects of these kinds by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in kinds}


def one(objects, kind, ending=""):
    """Return the only object of that kind whose name has that ending."""
    [found] = [each for name, each in of_kind(objects, kind).items() if name.endswith(ending)]
    return found


def pods(objects):
    """Return what is a pod or makes one, as kind/name -> the pod (metadata and spec)."""
    found = {f"Pod/{name}": each for name, each in of_kind(objects, "Pod").items()}
    for kind in ("Deployment", "DaemonSet"):
        found |= {f"{kind}/{name}": each["spec"]["template"] for name, each in of_kind(objects, kind).items()}
    return found


def config_text(objects, part):
    """Return a configuration file."""
    return one(objects, "ConfigMap", f"-{part}")["data"][f"{part}.yaml"]


def config(objects, part):
    """Return a configuration file as its process reads it."""
    return MODELS[part].model_validate(yaml.safe_load(config_text(objects, part)))

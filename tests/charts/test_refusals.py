"""Values that cannot work are refused before anything is installed, with the reason."""

import pytest

from tests.charts.rendering import CHART, helm

pytestmark = pytest.mark.interop
POLICY = {"validatingPolicy": {"enabled": True}, "enforce": {"held": "deny"}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"proxy": {"replicas": 2}}, "set mirror.registry to run more than one"),
        ({"proxy": {"autoscaling": {"enabled": True}}}, "set mirror.registry to run more than one"),
        (
            {"proxy": {"ingress": {"enabled": True, "host": "m.example"}}, "mirror": {"reference": "n.example:444/x"}},
            "m.example is not the host in mirror.reference, n.example:444",
        ),
        ({"mirror": {"registry": "m.example"}}, "localhost:30443 is no name of the registry m.example"),
        ({"proxy": {"service": {"nodePort": 31000}}}, "nodes reach localhost:30443 over a node port"),
        ({"proxy": {"service": {"type": "ClusterIP"}}}, "nodes reach localhost:30443 over a node port"),
        (
            {
                "mirror": {"registry": "m.example", "reference": "m.example"},
                "proxy": {"ingress": {"enabled": True, "host": "m.example"}},
            },
            "disable the ingress",
        ),
        ({"webhook": {"autoscaling": {"enabled": True, "minReplicas": 9}}}, "minReplicas is more than maxReplicas"),
        ({"validatingPolicy": {"enabled": True}}, "enforce.held: admit lets images in by tag"),
        (POLICY | {"enforce": {"held": "deny", "clean": "leave"}}, "enforce.clean: leave lets images in by tag"),
        ({"validatingPolicy": {"enabled": True, "actions": ["Deny", "Warn"]}}, "Deny or Warn, not both"),
        (
            POLICY | {"selection": {"exclude": ["a[bc]"]}},
            "selection.exclude: the pattern a[bc] holds a character class",
        ),
        ({"mirror": {"grants": {"enabled": True}}}, "pullSecrets.namespaces says where pull secrets are kept"),
        (
            {"mirror": {"registry": "m.example", "reference": "m.example", "grants": {"enabled": True}}},
            "an external registry has an access control of its own",
        ),
        (
            {"audit": {"http": {"url": "https://audit.example"}}},
            "add a rule for https://audit.example to networkPolicy",
        ),
        ({"tracing": {"endpoint": "http://c.example:4318"}}, "tracing.endpoint: the network policy"),
        (
            {
                "tracing": {"endpoint": "http://c.example:4318", "existingSecret": "t", "keys": ["token"]},
                "networkPolicy": {"enabled": False},
            },
            "tracing.keys: a token goes over TLS only",
        ),
        (
            {
                "audit": {"http": {"url": "http://a.example", "existingSecret": "a", "keys": ["token"]}},
                "networkPolicy": {"enabled": False},
            },
            "audit.http.keys: a token goes over TLS only",
        ),
        ({"tracing": {"attributes": {"Team": "x"}}}, "Team"),
        ({"audit": {"http": {"url": "https://user:password@audit.example"}}}, "url"),
        ({"pullSecrets": {"namespaces": ["team-*"]}}, "namespaces"),
        ({"mode": "sometimes"}, "mode"),
        ({"webhok": {}}, "webhok"),
        ({"webhook": {"replica": 2}}, "replica"),
        ({"webhook": {"replicas": "two"}}, "replicas"),
        ({"webhook": {"timeoutSeconds": 31}}, "timeoutSeconds"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"image": {"tag": "a b"}}, "tag"),
        ({"namespaces": {"optIn": "yes"}}, "optIn"),
        ({"namespaces": {"exclude": ["Kube"]}}, "exclude"),
        ({"nameOverride": "x: y"}, "nameOverride"),
        ({"mirror": {"reference": ""}}, "reference"),
        ({"mirror": {"persistence": {"size": "much"}}}, "size"),
        ({"networkPolicy": {"nodes": ["everywhere"]}}, "nodes"),
        ({"auth": {"tokenReview": {"allow": ["somebody"]}}}, "allow"),
        ({"certs": {"certManager": {"duration": "a year"}}}, "duration"),
        ({"enforce": {"failed": "maybe"}}, "failed"),
        ({"enforce": None}, "enforce"),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_reason(values, message):
    done = helm("template", "admend", str(CHART), values=values)
    assert done.returncode != 0
    assert message in done.stderr


def test_an_older_cluster_is_refused():
    done = helm("template", "admend", str(CHART), "--kube-version", "1.29.0", values={})
    assert done.returncode != 0
    assert "kubeVersion" in done.stderr

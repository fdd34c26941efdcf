"""Every rendering against the strict schemas of each supported Kubernetes, and of the Prometheus operator."""

import functools
import unittest

import jsonschema
import kubernetes_validate
import yaml
from rendered import OVERLAYS, PROJECT, VALUES, chart, parsed, text, thyme_alone

VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35")
OPERATOR = "monitoring.coreos.com/v1"


def renderings():
    """Pairs of a name and YAML: the overlays, thyme alone, the chart with each set of values."""
    for overlay in OVERLAYS:
        yield f"deployment/{overlay}", text(overlay)
    yield "deployment/thyme", text(thyme_alone())
    for values in VALUES:
        yield f"charts/thyme with {values}", chart(values)


@functools.cache
def custom_resource(kind):
    """The schema of one of the operator's kinds, that knows no other field."""
    path = PROJECT / f"local/tools/crds/{kind.lower()}s.yaml"
    (version,) = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft7Validator(schema)


def strict(schema):
    """The schema, with objects that have properties closed, as `kubectl apply --validate=strict` reads it."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("type", None)
    return closed


def complaint(document, version):
    """What a strict API server would say, or nothing."""
    try:
        if document["apiVersion"] == OPERATOR:
            custom_resource(document["kind"]).validate(document)
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return f"{document['kind']} {document['metadata']['name']}: {error}"
    return None


class Schemas(unittest.TestCase):
    """Strict: an unknown field is an error."""

    def test_all_renderings_are_valid(self):
        """Scenario: every object of every rendering, in each version of Kubernetes.
        Guarantees: the schemas take it."""
        kinds = set()
        for version in VERSIONS:
            for name, rendering in renderings():
                for document in parsed(rendering):
                    kinds.add(document["kind"])
                    with self.subTest(version=version, rendering=name):
                        self.assertIsNone(complaint(document, version))
        self.assertLessEqual({"DaemonSet", "Secret", "NetworkPolicy", "PodMonitor", "ServiceMonitor",
                              "PrometheusRule", "Service", "PodDisruptionBudget"}, kinds)  # fmt: skip

    def test_the_schemas_are_strict(self):
        """Scenario: each kind with a field that it does not have, and one of the wrong type.
        Guarantees: both are found, so that the test above can fail."""
        seen = set()
        for _, rendering in renderings():
            for document in parsed(rendering):
                if document["kind"] in seen or "spec" not in document:
                    continue
                seen.add(document["kind"])
                for wrong in ({"spec": document["spec"] | {"hostNetwrk": True}}, {"spec": "text"}):
                    self.assertIsNotNone(complaint(document | wrong, VERSIONS[-1]), document["kind"])
        self.assertGreaterEqual(len(seen), 8)


if __name__ == "__main__":
    unittest.main()

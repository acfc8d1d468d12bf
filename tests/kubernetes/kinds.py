"""Which kinds of object the stand-in for the API server knows; a CustomResourceDefinition adds its own."""

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Kind:
    """One kind of object, and what its addresses are made of."""

    group: str
    version: str
    name: str
    resource: str
    namespaced: bool = True
    short: str = ""

    @property
    def api_version(self) -> str:
        """As documents say it."""
        return f"{self.group}/{self.version}".removeprefix("/")

    def discovery(self) -> list[Document]:
        """What discovery says of it and of its status."""
        common = {"kind": self.name, "namespaced": self.namespaced, "singularName": self.name.lower()}
        return [
            common | {"name": self.resource, "verbs": VERBS, "shortNames": [self.short] if self.short else []},
            common | {"name": f"{self.resource}/status", "verbs": ["get", "patch", "update"]},
        ]

    def open_api(self) -> Document:
        """The one thing that clients look for there: that the server itself refuses unknown fields."""
        is_kind = {"group": self.group, "version": self.version, "kind": self.name}
        parameters = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
        return {"patch": {"x-kubernetes-group-version-kind": is_kind, "parameters": parameters, "responses": {}}}


NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False, short="ns")
DEFINITION = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
BUILT_IN = (
    NAMESPACE,
    DEFINITION,
    Kind("", "v1", "Node", "nodes", namespaced=False, short="no"),
    Kind("", "v1", "ConfigMap", "configmaps", short="cm"),
    Kind("", "v1", "Endpoints", "endpoints"),
    Kind("", "v1", "Event", "events"),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short="pvc"),
    Kind("", "v1", "Pod", "pods", short="po"),
    Kind("", "v1", "Secret", "secrets"),
    Kind("", "v1", "Service", "services", short="svc"),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", short="sa"),
    Kind("apps", "v1", "DaemonSet", "daemonsets", short="ds"),
    Kind("apps", "v1", "Deployment", "deployments", short="deploy"),
    Kind("apps", "v1", "ReplicaSet", "replicasets", short="rs"),
    Kind("apps", "v1", "StatefulSet", "statefulsets", short="sts"),
    Kind("batch", "v1", "CronJob", "cronjobs"),
    Kind("batch", "v1", "Job", "jobs"),
    Kind("coordination.k8s.io", "v1", "Lease", "leases"),
    Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    Kind("events.k8s.io", "v1", "Event", "events"),
    Kind("networking.k8s.io", "v1", "Ingress", "ingresses", short="ing"),
    Kind("networking.k8s.io", "v1", "IngressClass", "ingressclasses", namespaced=False),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", short="netpol"),
    Kind("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", namespaced=False),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short="pdb"),
    Kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False),
    Kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    Kind("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False),
)


def kinds_of_definition(definition: Document) -> list[Kind]:
    """What a CustomResourceDefinition adds."""
    spec = definition["spec"]
    names, namespaced = spec["names"], spec["scope"] == "Namespaced"
    return [
        Kind(spec["group"], version["name"], names["kind"], names["plural"], namespaced)
        for version in spec["versions"]
        if version["served"]
    ]


def discover(parts: list[str], kinds: list[Kind], version: str) -> Document | None:
    """What the server says at the path of these parts of itself and of these kinds; none if it is about objects."""
    match parts:
        case ["version"]:
            major, minor = version.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{version}.0"}
        case ["healthz" | "livez" | "readyz"]:
            return {"status": "ok"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            versions: dict[str, list[Document]] = {}
            for group, name in dict.fromkeys((kind.group, kind.version) for kind in kinds if kind.group):
                versions.setdefault(group, []).append({"groupVersion": f"{group}/{name}", "version": name})
            groups = [{"name": name, "versions": all_, "preferredVersion": all_[0]} for name, all_ in versions.items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["api", _] | ["apis", _, _]:
            api_version = "/".join(parts[1:])
            resources = [entry for kind in kinds if kind.api_version == api_version for entry in kind.discovery()]
            return {"kind": "APIResourceList", "groupVersion": api_version, "resources": resources}
        case ["openapi", "v3"]:
            paths = {("apis/" if kind.group else "api/") + kind.api_version for kind in kinds}
            return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in sorted(paths)}}
        case ["openapi", "v3", _, *api]:
            patches = {f"/{kind.resource}": kind.open_api() for kind in kinds if kind.api_version == "/".join(api)}
            return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": patches}
        case _:
            return None

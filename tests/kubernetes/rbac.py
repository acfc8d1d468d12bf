"""Role-based access control, as far as the project's own roles go."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.kubernetes.kinds import Document

RBAC_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True, order=True)
class ServiceAccount:
    """Who asks."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        """The name of its user."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @property
    def groups(self) -> set[str]:
        """The groups of its user."""
        return {"system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{self.namespace}"}


@dataclass(frozen=True, order=True)
class Request:
    """What is asked for, in the words of RBAC; without a namespace it is about all of them or none."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


def granted(request: Request, documents: Iterable[Document], subject: ServiceAccount) -> bool:
    """Whether the roles and bindings among these documents grant this to a service account."""
    documents = [document for document in documents if document["apiVersion"].startswith(f"{RBAC_GROUP}/")]
    for binding in documents:
        namespace = binding["metadata"].get("namespace", "")
        if not binding["kind"].endswith("Binding") or namespace not in ("", request.namespace):
            continue
        if not any(_is_meant(entry, subject) for entry in binding.get("subjects", [])):
            continue
        reference = binding["roleRef"]
        role_namespace = namespace if reference["kind"] == "Role" else ""
        for role in documents:
            has = (role["kind"], role["metadata"]["name"], role["metadata"].get("namespace", ""))
            if has == (reference["kind"], reference["name"], role_namespace) and any(
                _allows(rule, request) for rule in role.get("rules") or []
            ):
                return True
    return False


def _is_meant(entry: Document, subject: ServiceAccount) -> bool:
    if entry["kind"] == "ServiceAccount":
        return (entry["namespace"], entry["name"]) == (subject.namespace, subject.name)
    return entry["name"] in ({subject.user} if entry["kind"] == "User" else subject.groups)


def _allows(rule: Document, request: Request) -> bool:
    wanted = {"apiGroups": request.group, "resources": request.resource, "verbs": request.verb}
    if not all({"*", value} & set(rule.get(field, ())) for field, value in wanted.items()):
        return False
    return "resourceNames" not in rule or (request.name != "" and request.name in rule["resourceNames"])

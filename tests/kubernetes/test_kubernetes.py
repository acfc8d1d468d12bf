"""The stand-in for the Kubernetes API server, with the real kubectl and Helm that later tests trust it with."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from tests.kubernetes.api import api_server
from tests.kubernetes.programs import AGES, Programs
from tests.kubernetes.rbac import Request, ServiceAccount, granted
from tests.kubernetes.store import Api, Refusal

MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: web}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx, env: [{name: A, value: "1"}, {name: B, value: "2"}]}]}
"""


@pytest.fixture(params=AGES)
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Programs]:
    with api_server(request.param) as api:
        yield Programs(api, tmp_path)


def test_kubectl_applies_changes_and_deletes(programs: Programs) -> None:
    apply = ("apply", "--filename=-")
    names = ["namespace/web", "service/web", "deployment.apps/web"]
    created = programs.output("kubectl", *apply, manifests=MANIFESTS)
    assert created.splitlines() == [f"{name} created" for name in names]
    address = programs.api.get("Service", "web", "web")["spec"]["clusterIP"]
    assert address.startswith("10.96.")
    again = programs.output("kubectl", *apply, manifests=MANIFESTS)
    assert again.splitlines() == [f"{name} unchanged" for name in names]

    changed = MANIFESTS.replace('{name: A, value: "1"}, ', "").replace("port: 80", "port: 81")
    outcome = programs.output("kubectl", *apply, manifests=changed)
    assert outcome.splitlines() == ["namespace/web unchanged", *(f"{name} configured" for name in names[1:])]
    (container,) = programs.api.get("Deployment", "web", "web")["spec"]["template"]["spec"]["containers"]
    assert container == {"name": "web", "image": "nginx", "env": [{"name": "B", "value": "2"}]}
    service = programs.api.get("Service", "web", "web")["spec"]
    ports = [{"name": "http", "port": 81, "protocol": "TCP", "targetPort": 81}]
    assert (service["clusterIP"], service["ports"]) == (address, ports)

    programs.output("kubectl", *apply, "--server-side", manifests=MANIFESTS)
    programs.output("kubectl", *apply, "--server-side", manifests=MANIFESTS.replace(', {name: B, value: "2"}', ""))
    (container,) = programs.api.get("Deployment", "web", "web")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "A", "value": "1"}]

    programs.output("kubectl", "delete", "--filename=-", "--ignore-not-found", manifests=MANIFESTS)
    assert programs.api.find("Deployment") == []


@pytest.mark.parametrize("option", ["--server-side=false", "--server-side"])
def test_what_a_real_server_refuses_is_refused(programs: Programs, option: str) -> None:
    misspelt = MANIFESTS.replace("image:", "imag:")
    refusal = programs.run("kubectl", "apply", option, "--filename=-", manifests=misspelt)
    assert refusal.returncode != 0
    assert "spec.template.spec.containers.0" in refusal.stderr
    assert "'imag' was unexpected" in refusal.stderr
    assert programs.api.find("Deployment") == []
    no_namespace = MANIFESTS.partition("---")[2]
    programs.api.delete("Namespace", "web")
    refusal = programs.run("kubectl", "apply", option, "--filename=-", manifests=no_namespace)
    assert 'namespaces "web" not found' in refusal.stderr


def test_helm_installs_upgrades_and_uninstalls(programs: Programs, tmp_path: Path) -> None:
    programs.output("helm", "create", "chart")
    programs.output("helm", "install", "web", "chart", "--namespace=web", "--create-namespace")
    programs.output("helm", "upgrade", "web", "chart", "--namespace=web", "--set=replicaCount=2")
    assert programs.api.get("Deployment", "web-chart", "web")["spec"]["replicas"] == 2
    assert '"revision":"2"' in programs.output("helm", "list", "--namespace=web", "--output=json")
    programs.output("helm", "uninstall", "web", "--namespace=web")
    assert programs.api.find("Deployment") == programs.api.find("Secret") == []


def test_watchers_and_subscribers_hear_of_every_write() -> None:
    with api_server() as api:
        heard: list[tuple[str, str]] = []
        api.subscribe(lambda event, document: heard.append((event, document["metadata"]["name"])))
        api.put(config_map("early"))
        watch = "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=30"
        with closing(get(api, f"configmaps{watch}")) as stream:
            events = (json.loads(line) for line in stream)
            assert (event := next(events))["type"] == "ADDED"
            assert event["object"]["metadata"]["name"] == "early"
            assert (event := next(events))["type"] == "BOOKMARK"
            assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            writer = threading.Thread(target=api.put, args=(config_map("late"),))
            writer.start()
            assert (event := next(events))["object"]["metadata"]["name"] == "late"
            writer.join()
            api.put(config_map("late", key="value"))
            assert (event := next(events))["type"] == "MODIFIED"
            api.delete("ConfigMap", "late", "default")
            assert (event := next(events))["type"] == "DELETED"
    assert heard == [("ADDED", "early"), ("ADDED", "late"), ("MODIFIED", "late"), ("DELETED", "late")]


def test_service_account_may_do_what_its_roles_grant() -> None:
    with api_server() as api:
        group = "rbac.authorization.k8s.io"
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["page"]}]
        account = {"kind": "ServiceAccount", "name": "reader", "namespace": "default"}
        api.put(config_map("page"))
        metadata = {"name": "reader", "namespace": "default"}
        api.put({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
        reference = {"apiGroup": group, "kind": "Role", "name": "reader"}
        binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": metadata}
        api.put(binding | {"subjects": [account], "roleRef": reference})
        token = api.token("default", "reader")

        def status(path: str) -> int:
            with closing(get(api, path, token)) as answer:
                assert json.load(answer)["kind"] == ("ConfigMap" if answer.status == 200 else "Status")
                return answer.status

        assert status("namespaces/default/configmaps/page") == 200
        refused = ["namespaces/default/configmaps", "namespaces/default/configmaps/other", "configmaps", "nodes"]
        assert [status(path) for path in refused] == [403] * 4
        assert api.requests_of("default", "reader") == {
            Request("get", "", "configmaps", "default", "page"),
            Request("get", "", "configmaps", "default", "other"),
            Request("list", "", "configmaps", "default"),
            Request("list", "", "configmaps"),
            Request("list", "", "nodes"),
        }
        documents = [*api.find("Role"), *api.find("RoleBinding")]
        reading = Request("get", "", "configmaps", "default", "page")
        assert granted(reading, documents, ServiceAccount("default", "reader"))
        assert not granted(reading, documents, ServiceAccount("other", "reader"))


def test_write_from_a_stale_copy_is_a_conflict() -> None:
    with api_server() as api:
        stale = api.put(config_map("page"))
        api.put(config_map("page", key="value"))
        with pytest.raises(Refusal, match="has been modified"):
            api.put(stale)


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def get(api: Api, path: str, token: str | None = None) -> HTTPResponse:
    connection = HTTPConnection(api.url.removeprefix("http://"), timeout=60)
    connection.request("GET", f"/api/v1/{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
    return connection.getresponse()

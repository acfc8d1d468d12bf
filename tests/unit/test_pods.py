"""How pods are doing, from what the cluster says of them."""

from typing import Any

import pytest
from devkit.sites.pods import has_no_image, is_leaving, is_ready, restarts, states, waits_for


def pod(status: dict[str, Any] | None = None, uid: str = "1", leaving: bool = False) -> dict[str, Any]:
    metadata = {"name": "devkit-0", "uid": uid} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {})
    return {"metadata": metadata} | ({} if status is None else {"status": status})


def waiting(reason: str = "", message: str = "", name: str = "vpn") -> dict[str, Any]:
    return {"name": name, "state": {"waiting": {"reason": reason, "message": message}}}


ENDED = {"name": "vpn", "ready": False, "lastState": {"terminated": {"message": "no key"}}}
SCHEDULED = {"type": "PodScheduled", "status": "False", "message": "no node is free"}
READY = {"conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, []),
        ({"containerStatuses": [ENDED | {"ready": True}]}, []),
        ({"containerStatuses": [ENDED | waiting("CrashLoopBackOff", "back-off")]}, ["vpn ended with: no key"]),
        ({"containerStatuses": [waiting("", "no such volume")]}, [": no such volume"]),
        ({"containerStatuses": [{"name": "vpn", "state": {"waiting": {"message": "late"}}}]}, [": late"]),
        (
            {"containerStatuses": [ENDED], "initContainerStatuses": [waiting("ErrImagePull", "not found", "sysctl")]},
            ["ErrImagePull: not found", "vpn ended with: no key"],
        ),
        # The first container is fine; the next one is not.
        ({"containerStatuses": [{"name": "firewall", "ready": True}, ENDED]}, ["vpn ended with: no key"]),
        ({"conditions": [SCHEDULED]}, ["no node is free"]),
        ({"conditions": [{"type": "PodScheduled", "status": "False"}]}, ["not scheduled"]),
        ({"conditions": [SCHEDULED | {"status": "True"}, SCHEDULED | {"type": "Ready"}]}, []),
    ],
)
def test_pod_that_is_not_ready_says_what_it_waits_for(status: dict[str, Any] | None, said: list[str]) -> None:
    assert list(waits_for(pod(status))) == [f"devkit-0: {line}" for line in said]
    assert list(waits_for(pod(status, leaving=True))) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pod(READY | {"phase": "Running"}), []),
        (pod(), ["devkit-0: Pending"]),
        (pod({"phase": "Failed"}), ["devkit-0: Failed"]),
        (pod({"phase": "Running", "containerStatuses": [{"name": "vpn"}]}), ["devkit-0: not ready yet"]),
        (pod({"phase": "Pending", "containerStatuses": [{"name": "vpn", "state": {"running": {}}},
                                                       waiting("ContainerCreating")]}),
         ["devkit-0: ContainerCreating"]),
        (pod({"phase": "Running", "containerStatuses": [ENDED]}), ["devkit-0: vpn ended with: no key"]),
        (pod({"phase": "Running"}, leaving=True), ["devkit-0: Terminating"]),
    ],
)  # fmt: skip
def test_pod_that_is_not_ready_says_what_it_does(given: dict[str, Any], said: list[str]) -> None:
    assert list(states([given])) == said


def test_ready_pod_hides_none_that_comes_after_it() -> None:
    assert list(states([pod(READY), pod()])) == ["devkit-0: Pending"]


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ([{"type": "Ready", "status": "True"}], True),
        ([{"type": "Ready", "status": "False"}], False),
        ([{"type": "PodScheduled", "status": "True"}], False),
        ([], False),
    ],
)
def test_pod_is_ready_when_it_says_so(conditions: list[dict[str, str]], ready: bool) -> None:
    assert is_ready(pod({"conditions": conditions})) is ready
    assert not is_ready(pod())
    assert not is_leaving(pod())


def test_restarts_are_counted_by_container_and_pod_and_only_of_pods_that_stay() -> None:
    status = {"containerStatuses": [{"name": "vpn", "restartCount": 3}], "initContainerStatuses": [{"name": "init"}]}
    counted = restarts([pod(status, "1"), pod(status, "2", leaving=True), pod(status, "3")])
    assert counted == {("1", "vpn"): 3, ("1", "init"): 0, ("3", "vpn"): 3, ("3", "init"): 0}


def test_image_that_a_node_cannot_pull_is_told_from_one_that_is_on_its_way() -> None:
    assert has_no_image(pod({"containerStatuses": [{"name": "a"}, waiting("ImagePullBackOff")]}))
    assert has_no_image(pod({"initContainerStatuses": [waiting("ImagePullBackOff")]}))
    assert not has_no_image(pod({"containerStatuses": [waiting("ContainerCreating"), {"name": "b", "state": {}}]}))
    assert not has_no_image(pod())

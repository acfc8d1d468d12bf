"""How pods are doing, from what the cluster says of them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from devkit.errors import most_telling

PodStatus = Mapping[str, Any]


def waits_for(pod: PodStatus) -> Iterator[str]:
    """What a pod that is not ready waits for, or what its containers said when they ended.

    Nothing where the cluster has not said it yet: that a container is being created is no reason. Nothing, either, for
    a pod that makes way for another.
    """
    if is_leaving(pod):
        return
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in _containers(pod):
        ended = container.get("lastState", {}).get("terminated", {}).get("message", "")
        waiting = container.get("state", {}).get("waiting", {})
        if container.get("ready"):
            continue
        if ended:
            yield f"{name}: {container['name']} ended with: {most_telling(ended)}"
        elif waiting.get("message"):
            yield f"{name}: {waiting.get('reason', '')}: {waiting['message']}"
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"{name}: {condition.get('message', 'not scheduled')}"


def states(pods: Iterable[PodStatus]) -> Iterator[str]:
    """What each pod that is not ready is doing."""
    for pod in pods:
        if is_ready(pod):
            continue
        waiting = (one.get("state", {}).get("waiting", {}).get("reason") for one in _containers(pod))
        state = next(filter(None, waiting), pod.get("status", {}).get("phase", "Pending"))
        if is_leaving(pod):
            state = "Terminating"
        plain = f"{pod['metadata']['name']}: {'not ready yet' if state == 'Running' else state}"
        yield next(waits_for(pod), plain)


def restarts(pods: Iterable[PodStatus]) -> Counter[tuple[str, str]]:
    """How often each container was restarted, by its pod's identity and its name; only of pods that stay."""
    return Counter(
        {
            (identity(pod), container["name"]): container.get("restartCount", 0)
            for pod in pods
            if not is_leaving(pod)
            for container in _containers(pod)
        }
    )


def identity(pod: PodStatus) -> str:
    """What tells a pod from all others, even from those of the same name."""
    return str(pod["metadata"]["uid"])


def is_ready(pod: PodStatus) -> bool:
    """Whether a pod serves."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_leaving(pod: PodStatus) -> bool:
    """Whether a pod makes way for another."""
    return "deletionTimestamp" in pod["metadata"]


def has_no_image(pod: PodStatus) -> bool:
    """Whether a pod's node cannot pull its image."""
    return any(one.get("state", {}).get("waiting", {}).get("reason") == "ImagePullBackOff" for one in _containers(pod))


def _containers(pod: PodStatus) -> list[dict[str, Any]]:
    """How a pod's containers are doing, its init containers among them."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]

"""Why a release does not become ready, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from devkit.answers import CHANGE_ANSWER, Answers, Kubernetes
from devkit.sites.pods import PodStatus, has_no_image, waits_for


def what_is_missing(
    answers: Answers, context: str, image: str, pods: Sequence[PodStatus], warnings: Sequence[Mapping[str, Any]]
) -> str | None:
    """What keeps pods from becoming ready, as far as the cluster says; `warnings` are its events."""
    if not answers.image_registry and any(map(has_no_image, pods)):
        return how_to_load(image, answers.kubernetes, context)
    for line in (line for pod in pods for line in waits_for(pod)):
        return line
    if warnings:
        newest = max(warnings, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return f"{newest['involvedObject']['name']}: {newest.get('message', '')}"
    return None


def helm_error(text: str, context_option: str) -> str:
    """What Helm says after the last `Error:`, on one line, and the way out where there is one."""
    said = text.rpartition("Error: ")[2]
    words = " ".join(said.split()).removesuffix(" Use --debug flag to render out invalid YAML")
    if "another operation" in words:  # an earlier run was killed, and Helm with it
        words += f": if none is running, start over with `./scripts/down.py --kubernetes{context_option}`."
    return words or "it said nothing"


def how_to_load(image: str, kubernetes: Kubernetes, context: str) -> str:
    """What to do where the nodes do not see the image that is built here."""
    if kubernetes == "k3s":
        load = f", or load the image into each with `docker save {image} | sudo k3s ctr images import -`"
    elif kubernetes == "kind" or context == "docker-desktop" or context.startswith("kind-"):
        name = "desktop" if context == "docker-desktop" else context.removeprefix("kind-")
        load = f", or load the image into them with `kind load docker-image {image} --name {name}`"
    else:
        load = ""
    return (
        f"its nodes do not have the image {image}, which is built here and in no registry: name a registry that they "
        f"pull from with `{CHANGE_ANSWER} image_registry=HOST/PATH`{load}, and run this again."
    )

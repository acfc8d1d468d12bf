"""Why a release does not become ready, in words."""

from typing import Any

import pytest
from devkit.sites.obstacles import helm_error, how_to_load, what_is_missing

from tests.unit.made import answers

NO_IMAGE = {
    "metadata": {"name": "devkit-0"},
    "status": {"containerStatuses": [{"name": "vpn", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
}
NOT_SCHEDULED = {
    "metadata": {"name": "devkit-1"},
    "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no node is free"}]},
}


def event(name: str, message: str, **times: str | None) -> dict[str, Any]:
    return {"involvedObject": {"name": name}, "message": message, **times}


def missing(*pods: dict[str, Any], warnings: tuple[dict[str, Any], ...] = (), registry: str = "") -> str | None:
    return what_is_missing(
        answers(image_registry=registry, kubernetes="k3s"), "lab", "devkit-gateway:1", pods, warnings
    )


def test_image_that_is_in_no_registry_comes_before_all_else() -> None:
    said = missing(NOT_SCHEDULED, NO_IMAGE)
    assert said is not None
    assert "devkit-gateway:1, which is built here and in no registry" in said
    assert "k3s ctr images import" in said
    assert missing(NOT_SCHEDULED, NO_IMAGE, registry="registry.example.org") == "devkit-1: no node is free"


def test_image_is_loaded_into_the_cluster_that_the_context_leads_to() -> None:
    said = what_is_missing(answers(kubernetes="kind"), "kind-lab", "devkit-gateway:1", [NO_IMAGE], [])
    assert said is not None
    assert "`kind load docker-image devkit-gateway:1 --name lab`" in said


def test_newest_warning_is_told_where_no_pod_says_anything() -> None:
    warnings = (
        event("old", "long ago", lastTimestamp="2026-01-01T00:00:00Z"),
        event("new", "just now", lastTimestamp=None, eventTime="2026-01-03T00:00:00Z"),
        event("older", "before", lastTimestamp="2026-01-02T00:00:00Z", eventTime="2026-01-04T00:00:00Z"),
        event("never", "at no time"),
    )
    assert missing(warnings=warnings) == "new: just now"
    assert missing(warnings=({"involvedObject": {"name": "mute"}},)) == "mute: "
    assert missing(NOT_SCHEDULED, warnings=warnings) == "devkit-1: no node is free"
    assert missing() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Error: first\nlevel=error\nError: UPGRADE FAILED:\n  no  matches", "UPGRADE FAILED: no matches"),
        ("helm: not\nfound", "helm: not found"),
        ("Error: bad YAML\n\nUse --debug flag to render out invalid YAML", "bad YAML"),
        ("Error: another operation is in progress", "another operation is in progress: if none is running, start over "
                                                    "with `./scripts/down.py --kubernetes --context lab`."),
        ("", "it said nothing"),
    ],
)  # fmt: skip
def test_helms_last_error_is_told_on_one_line(text: str, said: str) -> None:
    assert helm_error(text, " --context lab") == said


@pytest.mark.parametrize(
    ("kubernetes", "context", "command"),
    [
        ("k3s", "default", "docker save web:1 | sudo k3s ctr images import -"),
        ("kind", "kind-lab", "kind load docker-image web:1 --name lab"),
        ("kind", "lab", "kind load docker-image web:1 --name lab"),
        ("none", "kind-lab", "kind load docker-image web:1 --name lab"),
        ("docker-desktop", "docker-desktop", "kind load docker-image web:1 --name desktop"),
        ("none", "far-away", None),
    ],
)
def test_image_is_loaded_in_the_way_of_the_cluster(kubernetes: Any, context: str, command: str | None) -> None:
    said = how_to_load("web:1", kubernetes, context)
    assert "image_registry=HOST/PATH`" in said
    assert ("or load the image" in said) is (command is not None)
    assert f"`{command}`" in said or said.endswith("image_registry=HOST/PATH`, and run this again.")

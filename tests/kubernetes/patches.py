"""The three patches that kubectl, Helm and controllers send."""

from tests.kubernetes.kinds import Document

# Lists that are merged by a field of their items, of which the first that every item has is taken.
MERGE_KEYS = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "topologySpreadConstraints": ("topologyKey",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}


def merge(live: object, patch: object) -> object:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(live) if isinstance(live, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def strategic_merge(live: Document, patch: Document) -> Document:
    """Strategic merge patch: as above, but lists of named things are merged by name."""
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    kept = patch.get("$retainKeys")
    merged = {name: value for name, value in live.items() if kept is None or name in kept}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = strategic_merge(merged.get(name) or {}, value)
        elif key := _merge_key(name, value, merged.get(name)):
            items = {item[key]: item for item in merged.get(name) or []}
            for item in value:
                if item.get("$patch") == "delete":
                    items.pop(item[key], None)
                else:
                    items[item[key]] = strategic_merge(items.get(item[key], {}), item)
            order = [item[key] for item in patch.get(f"$setElementOrder/{name}", [])]
            merged[name] = sorted(items.values(), key=lambda item: (*order, item[key]).index(item[key]))
        else:
            merged[name] = value
    return merged


def server_side_apply(live: object, previous: object, desired: object, name: str = "") -> object:
    """What an applier wants now, over what it wanted before, whose other fields go, and what others have set."""
    if isinstance(desired, dict):
        before = previous if isinstance(previous, dict) else {}
        now = live if isinstance(live, dict) else {}
        kept = {field: value for field, value in now.items() if field not in before}
        return kept | {
            field: server_side_apply(now.get(field), before.get(field), value, field)
            for field, value in desired.items()
        }
    if isinstance(desired, list) and (key := _merge_key(name, desired, live)):
        before_items = {item[key]: item for item in previous} if isinstance(previous, list) else {}
        now_items = {item[key]: item for item in live} if isinstance(live, list) else {}
        wanted = [server_side_apply(now_items.get(item[key]), before_items.get(item[key]), item) for item in desired]
        named = {item[key] for item in desired} | set(before_items)
        return wanted + [item for value, item in now_items.items() if value not in named]
    return desired


def _merge_key(name: str, *lists: object) -> str | None:
    """The field that these lists of this name are merged by, if they are."""
    items = [item for items in lists if isinstance(items, list) for item in items]
    for key in MERGE_KEYS.get(name, ()):
        if all(isinstance(item, dict) and key in item for item in items):
            return key
    return None

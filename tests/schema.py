"""Whether a JSON document is what docs/report.schema.json says."""

import json
from typing import Any, cast

import jsonschema

from tests.conftest import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "docs/report.schema.json").read_text())


def document(text: str) -> dict[str, Any]:
    """The document that a command has printed. Raises ValidationError when it is not what the schema says."""
    found = json.loads(text)
    jsonschema.validate(found, SCHEMA, jsonschema.Draft202012Validator)
    return cast("dict[str, Any]", found)

"""JSON Schema of corral.toml, for editors and for checking files elsewhere."""

from __future__ import annotations

import msgspec

from .tables import ConfigTable


def json_schema() -> dict[str, object]:
    """The schema of corral.toml (JSON Schema 2020-12), made from the model itself."""
    (reference,), parts = msgspec.json.schema_components(
        [ConfigTable], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "corral.toml",
        **reference,
        "$defs": parts,
    }

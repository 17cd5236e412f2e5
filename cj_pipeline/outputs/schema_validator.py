"""The library that holds documents to JSON schemas, imported without what takes it seconds.

Where `rfc3987_syntax` is installed (notebooks bring it), jsonschema imports it for the formats of
international addresses, which compiles 38 grammars: 1.6 s of processor time for formats that no
contract here has. Imported heavily, so import this where it is needed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonschema.protocols import Validator as AnyValidator

_SLOW = "rfc3987_syntax"


def _import_validator() -> type[AnyValidator]:
    absent = object()
    before = sys.modules.get(_SLOW, absent)
    sys.modules.setdefault(_SLOW, None)  # type: ignore[arg-type] # makes its import fail
    try:
        from jsonschema import Draft202012Validator
    finally:
        if before is absent:
            del sys.modules[_SLOW]
    return Draft202012Validator


Validator = _import_validator()

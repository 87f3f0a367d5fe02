"""JSON that every reader takes: no bare NaN or Infinity, bytes and keys as text."""

import base64
import json
import math
from typing import Any


def dumps(value: Any) -> bytes:
    """Write JSON; what JSON cannot say is replaced: NaN and infinities by null, bytes by their text.

    Bytes that are not UTF-8 become ``{"base64": …}``.
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError):
        return json.dumps(_plain(value), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

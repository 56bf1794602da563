"""What msgspec says of a value that does not fit: asked of it, since its words change with its versions."""

from __future__ import annotations

from typing import Any

import msgspec


def words_of_msgspec(value: Any, annotation: Any) -> str:
    try:
        msgspec.json.decode(msgspec.json.encode(value), type=annotation)
    except msgspec.ValidationError as error:
        return str(error)
    raise AssertionError(f"{value!r} fits {annotation!r}")

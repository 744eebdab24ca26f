"""What is wrong with a value, in words for somebody who need not know Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ARRAY, _OBJECT = "Input should be a JSON array", "Input should be a JSON object"
#: By pydantic's type of error: what to say in place of its message, which has Python's words.
_MESSAGES = {
    "tuple_type": _ARRAY,
    "list_type": _ARRAY,
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
}
#: How pydantic begins a message, and with what to begin it.
_BEGINNINGS = {"Value error, ": "", "Tuple ": "Array ", "List ": "Array ", "Dictionary ": "Object "}


def sentence(fault: Mapping[str, Any]) -> str:
    """The message of one of the errors of a pydantic ``ValidationError``; it repeats no value of the input."""
    message = _MESSAGES.get(fault["type"], str(fault["msg"]))
    for beginning, ours in _BEGINNINGS.items():
        if message.startswith(beginning):
            return ours + message.removeprefix(beginning)
    return message

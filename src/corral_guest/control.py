"""Control messages of the channel: JSON-RPC 2.0 objects, built and strictly decoded.

After https://www.jsonrpc.org/specification, with less freedom: params, where there are any, is an
object, an id is a number, there are no batches. Users import all of this from `wire`.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 32
MAX_ID = (1 << 53) - 1  # what every JSON implementation carries exactly (RFC 8259, section 6)
MAX_METHOD = 64

_METHOD_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_INFINITE = float("inf")


class ProtocolError(Exception):
    """The peer sent something that the protocol does not allow; the connection is over."""


class Request:
    """A call that wants an answer."""

    __slots__ = ("id", "method", "params")

    def __init__(self, id: int, method: str, params: dict[str, Any]) -> None:
        self.id = id
        self.method = method
        self.params = params


class Notification:
    """Something that happened; there is no answer."""

    __slots__ = ("method", "params")

    def __init__(self, method: str, params: dict[str, Any]) -> None:
        self.method = method
        self.params = params


class Response:
    """The result of a call."""

    __slots__ = ("id", "result")

    def __init__(self, id: int, result: Any) -> None:
        self.id = id
        self.result = result


class Failure:
    """A call failed. data: an object with more, perhaps empty."""

    __slots__ = ("code", "data", "id", "message")

    def __init__(self, id: int, code: int, message: str, data: dict[str, Any]) -> None:
        self.id = id
        self.code = code
        self.message = message
        self.data = data


Call = Request | Notification | Response | Failure


def request(id: int, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of a Request."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}


def notification(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of a Notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params or {}}


def response(id: int, result: Any) -> dict[str, Any]:
    """The body of a Response."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error(id: int, code: int, message: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of a Failure; bytes in message that are no text are shown as escapes."""
    readable = message.encode("utf-8", "backslashreplace").decode()
    return {
        "jsonrpc": "2.0",
        "id": id,
        "error": {"code": code, "message": readable, "data": data or {}},
    }


def parse_message(body: dict[str, Any]) -> Call:
    """What a control message says. Raises ProtocolError unless it is exactly one of the four."""
    keys = frozenset(body)
    if body.get("jsonrpc") != "2.0" or keys not in _SHAPES:
        raise ProtocolError("a control message is not JSON-RPC 2.0")
    number = body.get("id", 0)
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise ProtocolError("the id of a control message is not a number within 0 to 2**53-1")
    if "method" in keys:
        method, params = body["method"], body.get("params", {})
        if type(method) is not str or not _is_method(method) or type(params) is not dict:
            raise ProtocolError("a control message has a bad method or params that are no object")
        return Request(number, method, params) if "id" in keys else Notification(method, params)
    if "result" in keys:
        return Response(number, body["result"])
    return _parse_failure(number, body["error"])


def _parse_failure(number: int, value: Any) -> Failure:
    if type(value) is not dict or not {"code", "message"} <= value.keys() <= _FAILURE_KEYS:
        raise ProtocolError("the error of a control message has wrong members")
    code, message, data = value["code"], value["message"], value.get("data", {})
    if type(code) is not int or type(message) is not str or type(data) is not dict:
        raise ProtocolError("the error of a control message has members of wrong types")
    return Failure(number, code, message, data)


def _is_method(name: str) -> bool:
    return 0 < len(name) <= MAX_METHOD and _METHOD_CHARACTERS.issuperset(name)


_FAILURE_KEYS = frozenset(("code", "message", "data"))
_SHAPES = frozenset(
    frozenset(("jsonrpc", *rest))
    for rest in (
        ("id", "method"),
        ("id", "method", "params"),
        ("method",),
        ("method", "params"),
        ("id", "result"),
        ("id", "error"),
    )
)


def encode_body(body: dict[str, Any]) -> bytes:
    """The bytes of a control message. Raises ValueError for what is not JSON, or not Unicode."""
    try:
        return _ENCODER.encode(body).encode()
    except TypeError as error:
        raise ValueError(f"not a JSON value: {error}") from error


def decode_body(payload: bytes) -> dict[str, Any]:
    """One JSON object, strictly. Raises ProtocolError.

    Refused besides what is not JSON: a name twice in one object, NaN and infinities (also as
    1e999), integers of more than 19 digits, nesting deeper than MAX_DEPTH, lone surrogates.
    """
    try:
        text = payload.decode()
        body = _DECODER.decode(text)
    except RecursionError:
        raise ProtocolError("a control message is nested too deeply") from None
    except ValueError as error:
        raise ProtocolError(f"a control message is not valid JSON: {error}") from None
    if type(body) is not dict:
        raise ProtocolError("a control message is not a JSON object")
    # Both are rare, so that honest messages are not walked through twice.
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        _check_tree(body)
    return body


def _check_tree(body: dict[str, Any]) -> None:
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if type(value) is str:
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise ProtocolError("a control message has half of a character") from None
            elif type(value) is dict:
                below += value
                below += value.values()
            elif type(value) is list:
                below += value
        if not below:
            return
        level = below
    raise ProtocolError("a control message is nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a name appears twice in an object")
    return body


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("an integer is too long")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (_INFINITE, -_INFINITE):
        raise ValueError("a number is too large")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_integer,
    parse_float=_finite,
    parse_constant=_no_constant,
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

"""Keys for requests to language models: equal for requests that ask the same, whatever they look like.

What is digested is the list [1, messages, params, sample] as canonical.py writes it; 1 is the number of these rules,
never to be used again for others. Where rules could be wrong in two ways, they rather tell equal requests apart, which
costs a call, than take different ones for equal, which gives a wrong answer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from persistdict.canonical import Canonical, digest, field_names, full_name
from persistdict.codecs import SafeCodec
from persistdict.errors import KeyTypeError

__all__ = ["LEFT_OUT", "make_key"]

RULES = 1

_SECRET = "a secret; it says who asks, not what"
_TRANSPORT = "how the answer is brought here, not what it is"
_ACCOUNT = "for the provider's accounts and logs; the model does not see it"

LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "api_key": _SECRET,
        "authorization": _SECRET,
        "organization": _ACCOUNT,
        "project": _ACCOUNT,
        "user": _ACCOUNT,
        "safety_identifier": _ACCOUNT,
        "metadata": _ACCOUNT,
        "tags": _ACCOUNT,
        "store": _ACCOUNT,
        "service_tier": _ACCOUNT,
        "request_id": _ACCOUNT,
        "idempotency_key": _ACCOUNT,
        "run_id": _ACCOUNT,
        "run_name": _ACCOUNT,
        "prompt_cache_key": _TRANSPORT,
        "timeout": _TRANSPORT,
        "request_timeout": _TRANSPORT,
        "max_retries": _TRANSPORT,
        "num_retries": _TRANSPORT,
        "stream": _TRANSPORT,
        "stream_options": _TRANSPORT,
        "http_client": _TRANSPORT,
        "client": _TRANSPORT,
        "callbacks": _TRANSPORT,
        "verbose": _TRANSPORT,
    }
)
"""The parameters that `make_key` leaves out, each with the reason."""

_HEADERS = frozenset(("headers", "extra_headers", "default_headers"))
_LEFT_OUT_HEADERS = frozenset(("authorization", "cookie", "user-agent", "idempotency-key", "content-length", "date"))
_PLAIN_ITEMS = frozenset(("message", "function_call", "function_call_output", "human", "ai", "system", "tool"))

_CALL_IDS = frozenset(("tool_call_id", "tool_use_id", "call_id"))
_CALLS = frozenset(("tool_calls", "invalid_tool_calls"))
_CALL_BLOCKS = frozenset(("tool_use", "server_tool_use", "mcp_tool_use", "tool_call"))
_ABOUT = frozenset(("response_metadata", "usage_metadata", "artifact"))  # of LangChain's messages; not sent
_BASES: tuple[Any, ...] = (str, bool, int, float, bytes)  # what their subclasses count as
_canonical = Canonical(SafeCodec(), truth=True)


def make_key(model: str, messages: Any, *, sample: int = 0, **params: Any) -> tuple[str, str]:
    """A key for a request to a language model: the name of the model, and a digest of all that makes a difference.

    In it are the messages and every parameter: temperature, top_p, seed, tools, response_format, stop, base_url and
    whatever else is given, but not those of `persistdict.requests.LEFT_OUT` (credentials, transport, accounting), those
    whose name ends in api_key, and those that are None.

    - Dicts are equal in any order, lists are equal to tuples, 1 to 1.0 (not to True), a member of an Enum to its value.
    - Objects with `model_dump` (pydantic, and so the messages of LangChain and the OpenAI client) or `dict` count as
      the dict that these return, with the name of their class unless it has a "role" or a "type"; dataclasses likewise.
      A pydantic class counts as its name and its JSON schema.
    - Of a message, what is None is left out, and what tells how it came about: "response_metadata", "usage_metadata",
      "artifact", and its "id" if it has a "role" or is a plain message or call: elsewhere that may say what is meant.
    - Of headers, those are left out that tell who asks: authorization, keys, tokens, cookies, user-agent.
    - The ids of tool calls are drawn anew in every run. They are numbered in the order in which they appear, so that
      which result belongs to which call is in the key, and the ids are not.
    - The same conversation in the form of another library has another key.

    Args:
        model: its name, with all that tells it from others.
        messages: a list of messages, or a text.
        sample: to keep several answers to one request, the number of the answer.
        params: the other parameters of the request.

    Raises TypeError for what is of none of these types nor of those that the safe codec stores; leave such a parameter
    out, or convert it.

    >>> from persistdict import PersistDict, make_key
    >>> d = PersistDict("memory://")
    >>> question = [{"role": "user", "content": "Why?"}]
    >>> d[make_key("gpt-4o", question, temperature=0, api_key="secret")] = "Because."
    >>> d[make_key("gpt-4o", [{"content": "Why?", "role": "user"}], temperature=0.0)]
    'Because.'
    >>> make_key("gpt-4o", question, sample=1) in d
    False
    """
    if not isinstance(model, str):
        raise KeyTypeError(f"model must be its name, a str, not {type(model).__qualname__}")
    if isinstance(sample, bool) or not isinstance(sample, int):
        raise KeyTypeError(f"sample must be an int, not {type(sample).__qualname__}")
    parts = [b"L", _canonical.encode(RULES), _encoded("messages", messages, _Conversation().normal), b"L"]
    for name in sorted(params):
        if params[name] is not None and name not in LEFT_OUT and not name.endswith("api_key"):
            parts += [_canonical.encode(name), _encoded(name, params[name], _headers if name in _HEADERS else _plain)]
    parts += [b".", _canonical.encode(sample), b"."]
    return str(model), digest(b"".join(parts))


def _encoded(name: str, value: Any, normal: Callable[[Any], Any]) -> bytes:
    try:
        return _canonical.encode(normal(value))
    except (KeyTypeError, RecursionError) as error:
        what = "it is nested too deep, or contains itself" if isinstance(error, RecursionError) else error
        raise KeyTypeError(
            f"{name} of the request cannot be part of its key: {what}; leave it out, or convert it"
        ) from error


def _plain(value: Any) -> Any:
    """A value built of dicts, lists and what is in them; what is unknown stays as it is."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    for base in _BASES:
        if isinstance(value, base):
            return base(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, type):
        schema = getattr(value, "model_json_schema", None)
        return value if schema is None else ["class", full_name(value), _plain(schema())]
    dump = _dumped(value)
    if dump is None:
        return value
    plain = _plain(dump)
    return plain if "role" in plain or "type" in plain else ["object", full_name(type(value)), plain]


def _headers(headers: Any) -> Any:
    """Headers, by their names in lower case, without those that tell who asks."""
    plain = _plain(headers)
    if not isinstance(plain, dict):
        return plain
    named = {str(name).lower(): value for name, value in plain.items()}
    secret = ("api-key", "api_key", "token", "request-id")
    return {name: it for name, it in named.items() if name not in _LEFT_OUT_HEADERS and not name.endswith(secret)}


def _dumped(value: Any) -> Mapping[Any, Any] | None:
    """The fields of an object; None if it has none that are known."""
    names = field_names(type(value))
    if names is not None:
        return {name: getattr(value, name) for name in names}
    for name in ("model_dump", "dict"):
        dump = getattr(value, name, None)
        if callable(dump):
            found = dump()
            if isinstance(found, Mapping):
                return found
    return None


class _Conversation:
    """Messages, and the numbers of the tool calls in them."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def normal(self, messages: Any) -> Any:
        """The messages without what makes no difference."""
        plain = _plain(messages)
        return [self._message(message) for message in plain] if isinstance(plain, list) else plain

    def _message(self, message: Any) -> Any:
        if not isinstance(message, dict):
            return message
        named = "role" in message or message.get("type") in _PLAIN_ITEMS
        dropped = {*_ABOUT, "id"} if named else _ABOUT  # elsewhere an id may say which thing is meant
        kept = {name: value for name, value in message.items() if value is not None and name not in dropped}
        return {name: self._part(name, kept[name]) for name in sorted(kept, key=str)}

    def _part(self, name: Any, value: Any) -> Any:
        """A part of a message. What is within the arguments of a call is never looked at."""
        if name in _CALL_IDS:
            return self._number(value)
        if name in _CALLS and isinstance(value, list):
            return [self._numbered(call, {"id"}) for call in value]
        if name == "content" and isinstance(value, list):
            return [self._block(block) for block in value]
        if name == "additional_kwargs" and isinstance(value, dict):
            return {inner: self._part(inner, value[inner]) if inner in _CALLS else value[inner] for inner in value}
        return value

    def _block(self, block: Any) -> Any:
        is_call = isinstance(block, dict) and block.get("type") in _CALL_BLOCKS
        return self._numbered(block, {"id", *_CALL_IDS} if is_call else _CALL_IDS)

    def _numbered(self, thing: Any, names: Any) -> Any:
        if not isinstance(thing, dict):
            return thing
        return {name: self._number(value) if name in names else value for name, value in thing.items()}

    def _number(self, value: Any) -> Any:
        return self._numbers.setdefault(value, f"call {len(self._numbers)}") if isinstance(value, str) else value

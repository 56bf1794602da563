"""
The AsyncAPI 3 document of an app: what it receives and returns, for whoever writes the other end.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. Made from the handler's annotations, the options and the
table of refusals; nothing is served, and nothing but the handler's module was run for it.

Payloads are in AsyncAPI's own schema language, which is JSON Schema draft 7 and a little more; msgspec's are in a later
draft, and what differs is rewritten here.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import msgspec

from mtserver.app import App
from mtserver.codecs import REFUSAL_SIZE, TypedCodec
from mtserver.codecs.message_type import sent_of
from mtserver.dispatch.plan import Plan, plan
from mtserver.errors import ConfigurationError, Refusal
from mtserver.framing import framing_named
from mtserver.refusals import CODES
from mtserver.settings import Settings

#: A ``--port`` that a client can be told of: a number, or an endpoint string that begins with a scheme and one.
_PORT = re.compile(r"(?:(tcp|tcp4|tcp6|ssl|tls):(?:port=)?)?(\d+)(?::|$)")


def describe(app: App, settings: Settings) -> dict[str, Any]:
    """
    The document, to be written as JSON.

    :raises ConfigurationError: where a type has no JSON Schema (MessagePack's extension types have none).
    """
    planned = plan(app.handler, settings)
    message, reply, schemas = _payloads(planned)
    content_type = planned.codec.content_type
    names = ["message"]
    names += [] if reply is None else ["reply"]
    names += [] if settings.quiet else ["refusal"]
    messages = {
        "message": {
            "title": "What the server receives" + (", behind @<id> and a space" if settings.message_ids else ""),
            "contentType": content_type,
            "payload": message,
        },
        "reply": {"title": "What it answers", "contentType": content_type, "payload": reply},
        "refusal": {
            "title": "What it answers instead, or says before it closes",
            "contentType": _refusal_type(planned),
            "payload": _refusal(planned),
        },
    }
    schemes = _security(settings)
    encoding = {"x-encoding": settings.encoding} if isinstance(planned.codec, TypedCodec) else {}
    return {
        "asyncapi": "3.0.0",
        "info": _info(app, settings),
        "defaultContentType": content_type,
        "servers": _servers(settings),
        "channels": {
            "connection": {
                "address": None,
                "title": "One TCP connection",
                "description": inspect.getdoc(framing_named(settings.framing)),
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
                "x-framing": settings.framing,
                **encoding,
                **({"x-message-ids": True} if settings.message_ids else {}),
                "x-max-message": settings.max_message,
            }
        },
        "operations": _operations(names),
        "components": {
            "messages": {name: messages[name] for name in names},
            "schemas": schemas,
            **({"securitySchemes": schemes} if schemes else {}),
        },
    }


def _info(app: App, settings: Settings) -> dict[str, Any]:
    handler = app.handler
    module = sys.modules.get(getattr(handler, "__module__", None) or "")
    info = {"title": settings.app, "version": str(getattr(module, "__version__", "0"))}
    if handler.__doc__:
        info["description"] = inspect.cleandoc(handler.__doc__)
    return info


def _security(settings: Settings) -> dict[str, Any]:
    """How a client may say who it is."""
    bearer = {"type": "http", "scheme": "bearer", "description": "First of all: AUTH OAUTHBEARER (RFC 7628)"}
    plain = {"type": "plain", "description": "First of all: AUTH PLAIN (RFC 4616)"}
    methods = {method.partition(":")[0] for method in settings.auth}
    schemes = {"plain": plain} if methods - {"jwt", "introspect"} else {}
    return schemes | ({"bearer": bearer} if methods & {"jwt", "introspect"} else {})


def _servers(settings: Settings) -> dict[str, Any]:
    """List the ports that have a number; where the machine is, a client has to be told by others."""
    servers = {}
    schemes = [{"$ref": f"#/components/securitySchemes/{name}"} for name in _security(settings)]
    for port in settings.port:
        if match := _PORT.match(port):
            scheme = "tls" if match[1] in ("ssl", "tls") else "tcp"
            servers[f"{scheme}-{match[2]}"] = {
                "host": f"{{host}}:{match[2]}",
                "protocol": scheme,
                "variables": {"host": {"default": "localhost"}},
                **({"security": schemes} if schemes else {}),
            }
    return servers


def _operations(names: list[str]) -> dict[str, Any]:
    channel = {"$ref": "#/channels/connection"}

    def of(*chosen: str) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/connection/messages/{name}"} for name in chosen if name in names]

    operations: dict[str, Any] = {
        "receive": {
            "action": "receive",
            "channel": channel,
            "summary": "Messages are handled one after another, and answered in their order.",
            "messages": of("message"),
        }
    }
    if answers := of("reply", "refusal"):
        operations["receive"]["reply"] = {"channel": channel, "messages": answers}
    if "refusal" in names:
        operations["refuse"] = {
            "action": "send",
            "channel": channel,
            "summary": "Also without a message: the server says why it closes.",
            "messages": of("refusal"),
        }
    return operations


def _payloads(planned: Plan) -> tuple[Any, Any, dict[str, Any]]:
    """The schemas of a message and of a reply, None if there is none, and those that they refer to."""
    codec = planned.codec
    if not isinstance(codec, TypedCodec):
        binary = codec.content_type == "application/octet-stream"
        plain = {"type": "string", "format": "binary"} if binary else {"type": "string"}
        return plain, None if _is_silent(planned) else plain, {}
    reply = sent_of(planned.reply)
    try:
        (message, answer), schemas = msgspec.json.schema_components(
            (planned.message, reply), ref_template="#/components/schemas/{name}"
        )
    except Exception as error:  # msgspec's, and whatever an author's own types raise
        text = " ".join(str(error).split())
        raise ConfigurationError(f"--describe: {text}") from None
    described = {name: _rewritten(schema) for name, schema in schemas.items()}
    return _rewritten(message), None if _is_silent(planned) else _rewritten(answer), described


def _is_silent(planned: Plan) -> bool:
    return planned.reply in (None, type(None))


def _rewritten(schema: Any) -> Any:
    """A schema of draft 2020-12 in the words of draft 7, and with AsyncAPI's discriminator, which is a name alone."""
    if isinstance(schema, list):
        return [_rewritten(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("prefixItems"), list):
        schema = {**schema, "items": schema["prefixItems"], "additionalItems": schema.get("items", True)}
        del schema["prefixItems"]
    found = {key: _rewritten(value) for key, value in schema.items()}
    if isinstance(found.get("discriminator"), dict) and "propertyName" in found["discriminator"]:
        found["discriminator"] = found["discriminator"]["propertyName"]
    return found


def _refusal_type(planned: Plan) -> str:
    return planned.codec.content_type if isinstance(planned.codec, TypedCodec) else "text/plain; charset=utf-8"


def _refusal(planned: Plan) -> dict[str, Any]:
    description = "\n".join(f"* `{code}`: {when}" for code, when in CODES.items())
    if not isinstance(planned.codec, TypedCodec):
        examples = [planned.codec.refuse(Refusal("unavailable", "the journal is away", retry_after=1)).decode()]
        return {
            "type": "string",
            "pattern": r"^ERR [^ ]+( retry-after=[0-9]+)? ",
            "maxLength": REFUSAL_SIZE,
            "description": description,
            "examples": examples,
        }
    return {
        "type": "object",
        "required": ["error", "text"],
        "properties": {
            "error": {"type": "string", "description": description, "examples": list(CODES)},
            "retry_after": {"type": "integer", "minimum": 0, "description": "Seconds after which to try again."},
            "text": {"type": "string", "description": "For people."},
        },
    }

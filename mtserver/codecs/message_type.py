"""
Reading a message type: whether it can be decoded at all, what its values are made of, and what hashing one may cost.

Everything here is done once, at the start; none of it per message.
"""

from __future__ import annotations

import decimal
import itertools
import typing
import uuid
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from types import NoneType, UnionType
from typing import Any

import msgspec
from msgspec import inspect

from mtserver.acks import DURABLE, Ack
from mtserver.errors import ConfigurationError, Refusal

_ARRAY = (list, tuple, set, frozenset)

#: What a value of a type is an instance of, where the type does not name its class itself.
_CLASSES: dict[type[inspect.Type], tuple[type, ...]] = {
    inspect.NoneType: (NoneType,),
    inspect.BoolType: (bool,),
    inspect.IntType: (int,),
    inspect.FloatType: (float, int),
    inspect.StrType: (str,),
    inspect.BytesType: (bytes,),
    inspect.ByteArrayType: (bytearray,),
    inspect.MemoryViewType: (memoryview,),
    inspect.DateTimeType: (datetime,),
    inspect.DateType: (date,),
    inspect.TimeType: (time,),
    inspect.TimeDeltaType: (timedelta,),
    inspect.UUIDType: (uuid.UUID,),
    inspect.DecimalType: (decimal.Decimal,),
    inspect.RawType: (msgspec.Raw,),
    inspect.ExtType: (msgspec.msgpack.Ext,),
    # All of these are one and the same on the wire, and Sequence is read as a list.
    inspect.ListType: _ARRAY,
    inspect.SetType: _ARRAY,
    inspect.FrozenSetType: _ARRAY,
    inspect.TupleType: _ARRAY,
    inspect.VarTupleType: _ARRAY,
    inspect.CollectionType: _ARRAY,
    inspect.DictType: (dict,),
    inspect.TypedDictType: (dict,),
}

_APART = (NoneType, Refusal)

#: Whose hashes a peer cannot choose (Python's are seeded for text), or of which there are too few to matter.
_HASHED_SAFELY = (
    inspect.StrType,
    inspect.BytesType,
    inspect.BoolType,
    inspect.NoneType,
    inspect.FloatType,
    inspect.EnumType,
    inspect.LiteralType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.TimeType,
    inspect.TimeDeltaType,
)


#: What can be a key in JSON.
_WRITTEN_AS_TEXT = (
    *_HASHED_SAFELY,
    inspect.AnyType,
    inspect.IntType,
    inspect.DecimalType,
    inspect.UUIDType,
)


def name_of(annotation: Any) -> str:
    """A type as its author would write it."""
    if typing.get_origin(annotation) is not None:
        return str(annotation)
    return getattr(annotation, "__name__", None) or repr(annotation)


def read_type(annotation: Any, what: str) -> inspect.Type:
    """
    What msgspec makes of a type.

    :param what: what it is the type of, for whoever reads the error.
    :raises ConfigurationError: for a type that msgspec does not know, wherever in it that stands.
    """
    try:
        found = inspect.type_info(annotation)
    except Exception as error:  # evaluating what an author wrote within a Struct or dataclass can raise anything
        text = " ".join(str(error).split())
        raise ConfigurationError(f"{what} of type {name_of(annotation)} are not supported: {text}") from None
    for part in parts(found):
        if isinstance(part, inspect.CustomType):
            inside = "" if part is found else f": nobody knows how to read a {part.cls.__name__}"
            raise ConfigurationError(f"{what} of type {name_of(annotation)} are not supported{inside}")
    return found


def parts(found: inspect.Type) -> Iterator[inspect.Type]:
    """A type and all that it is made of, each once, however it refers to itself."""
    seen: set[int] = set()
    waiting: list[Any] = [found]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (tuple, list)):
            waiting.extend(part)
        elif isinstance(part, (inspect.Type, inspect.Field)) and id(part) not in seen:
            seen.add(id(part))
            if isinstance(part, inspect.Type):
                yield part
            waiting.extend(getattr(part, field) for field in part.__struct_fields__)


def has_container_keys(found: inspect.Type) -> bool:
    """Whether its values hold dicts whose keys are arrays or objects: in JSON a key is text, also of a number."""
    keys = [part.key_type for part in parts(found) if isinstance(part, inspect.DictType)]
    return any(not isinstance(piece, (*_WRITTEN_AS_TEXT, inspect.UnionType)) for key in keys for piece in parts(key))


def hashes_numbers(found: inspect.Type, *, any_keys: bool) -> bool:
    """
    Whether its values hold sets, or dicts, of something whose hash a peer can choose.

    :param any_keys: whether a key of no particular type may be anything; in JSON it is text.
    """
    for part in parts(found):
        if isinstance(part, (inspect.SetType, inspect.FrozenSetType)):
            key = part.item_type
        elif isinstance(part, inspect.DictType) and not isinstance(part.key_type, inspect.AnyType):
            key = part.key_type
        elif isinstance(part, (inspect.DictType, inspect.AnyType)) and any_keys:
            return True
        else:
            continue
        if any(not isinstance(piece, (*_HASHED_SAFELY, inspect.UnionType)) for piece in parts(key)):
            return True
    return False


class Acknowledgement(msgspec.Struct, omit_defaults=True):
    """What is sent of an :class:`~mtserver.acks.Ack` where messages are typed."""

    #: The message's number in the journal.
    ok: int
    level: str = DURABLE
    id: str = ""
    #: It was stored before.
    dup: bool = False


def sent_of(reply: Any) -> Any:
    """The type of what is sent of a reply: None sends nothing, and acks and refusals have forms of their own."""
    if reply is Ack:
        return Acknowledgement
    if typing.get_origin(reply) not in (typing.Union, UnionType):
        return reply
    members = [
        Acknowledgement if each is Ack else each
        for each in typing.get_args(reply)
        if not (isinstance(each, type) and issubclass(each, _APART))
    ]
    return typing.Union[tuple(members)] if members else None  # noqa: UP007 - of any number


def reply_classes(reply: Any) -> tuple[type, ...] | None:
    """What is sent of a reply is an instance of one of these; None if it may be anything."""
    if reply in (typing.NoReturn, typing.Never):
        return ()
    found = read_type(sent_of(reply), "replies")
    members = found.types if isinstance(found, inspect.UnionType) else (found,)
    classes = [_classes_of(member) for member in members]
    return None if None in classes else tuple(itertools.chain.from_iterable(filter(None, classes)))


def _classes_of(found: inspect.Type) -> tuple[type, ...] | None:
    if isinstance(found, inspect.AnyType):
        return None
    if isinstance(found, inspect.LiteralType):
        return tuple({type(value) for value in found.values})
    if isinstance(found, (inspect.StructType, inspect.DataclassType, inspect.NamedTupleType, inspect.EnumType)):
        return (found.cls,)
    return _CLASSES.get(type(found))

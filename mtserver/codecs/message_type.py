"""
Inspection of a message type: whether it can be decoded, the classes of its values, and whether hashing one is safe.

All of it happens once, at the start, and nothing per message.
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

#: Python classes of the values of msgspec's types that do not name their class themselves.
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
    # The array types look alike on the wire, and Sequence is decoded as a list.
    inspect.ListType: _ARRAY,
    inspect.SetType: _ARRAY,
    inspect.FrozenSetType: _ARRAY,
    inspect.TupleType: _ARRAY,
    inspect.VarTupleType: _ARRAY,
    inspect.CollectionType: _ARRAY,
    inspect.DictType: (dict,),
    inspect.TypedDictType: (dict,),
}

#: Members of a reply type that are not sent as values: None sends nothing, and a Refusal has a form of its own.
_NOT_SENT = (NoneType, Refusal)

#: Types whose hashes a client cannot choose (text: Python's are seeded) or that have too few values to matter.
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


#: Types that can be a key in JSON.
_WRITTEN_AS_TEXT = (
    *_HASHED_SAFELY,
    inspect.AnyType,
    inspect.IntType,
    inspect.DecimalType,
    inspect.UUIDType,
)


def name_of(annotation: Any) -> str:
    """Write a type as its author would."""
    if typing.get_origin(annotation) is not None:
        return str(annotation)
    return getattr(annotation, "__name__", None) or repr(annotation)


def read_type(annotation: Any, what: str) -> inspect.Type:
    """
    Describe a type in msgspec's terms.

    :param what: the word for its values in the error, ``messages`` or ``replies``.
    :raises ConfigurationError: for a type that msgspec does not know, or one that contains such a type.
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
    """Walk a type and its parts, each once, even where it refers to itself."""
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
    """Whether values of the type hold dicts whose keys are arrays or objects; in JSON a key is text."""
    keys = [part.key_type for part in parts(found) if isinstance(part, inspect.DictType)]
    return any(not isinstance(piece, (*_WRITTEN_AS_TEXT, inspect.UnionType)) for key in keys for piece in parts(key))


def hashes_numbers(found: inspect.Type, *, any_keys: bool) -> bool:
    """
    Whether values of the type hold sets or dicts of something whose hash a client can choose.

    :param any_keys: whether an untyped key may be of any type; in JSON it is text.
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
    """The form of an :class:`~mtserver.acks.Ack` on the wire where messages are typed."""

    #: Number of the message in the journal.
    ok: int
    level: str = DURABLE
    id: str = ""
    #: Whether the message was stored before.
    dup: bool = False


def sent_of(reply: Any) -> Any:
    """Reduce a reply type to the values that are encoded: acks in their wire form, without None and refusals."""
    if reply is Ack:
        return Acknowledgement
    if typing.get_origin(reply) not in (typing.Union, UnionType):
        return reply
    members = [
        Acknowledgement if each is Ack else each
        for each in typing.get_args(reply)
        if not (isinstance(each, type) and issubclass(each, _NOT_SENT))
    ]
    return typing.Union[tuple(members)] if members else None  # noqa: UP007 - of any number


def reply_classes(reply: Any) -> tuple[type, ...] | None:
    """List the classes that a value of the reply type is an instance of; None: any class."""
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

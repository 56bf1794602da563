"""
Stream that a journal is kept in: the configuration of a new one, and the judgement of what an existing one can promise.

Pure: configurations as JetStream's API has them (ADR-8, ``nats stream info``) in and out. An existing stream is never
changed, only judged, since other programs may use it, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mtserver.acks import ACCEPTED, DURABLE, LEVELS, REPLICATED
from mtserver.journal.options import JetStreamOptions, Keep

#: Seconds of the shortest window for ids that a server takes.
_SHORTEST = 0.1
_NANOSECONDS = 1_000_000_000
#: Bytes for subject and headers of a message, at most: an identity alone has up to 1,024 characters, escaped.
_AROUND = 16 * 1024


class Requirements(NamedTuple):
    """Options that a stream has to meet."""

    options: JetStreamOptions
    #: ``--ack``.
    ack: str
    #: ``--dedupe-window``, in seconds.
    window: float
    keep: Keep
    #: ``--max-message``, in bytes.
    size: int
    #: Whether messages have ids.
    ids: bool

    @property
    def replicas(self) -> int:
        """Number of replicas of a new stream."""
        return self.options.replicas or (3 if self.ack == REPLICATED else 1)


class Judgement(NamedTuple):
    """Judgement of what a stream can do."""

    level: str = ACCEPTED
    #: Whether it takes atomic publishes: several messages, all or none.
    is_atomic: bool = False
    #: Whether pages of it can be read, from whichever server.
    is_direct: bool = False
    #: Whether ids are known for as long as ``--dedupe-window`` says.
    knows_ids: bool = False
    #: Bytes of a message with its headers, at most.
    size: int = 0
    #: Reason why nothing may be stored in it; empty if there is none.
    trouble: str = ""
    #: Remarks for the operator.
    notes: tuple[str, ...] = ()


#: Judgement before the first check.
UNKNOWN = Judgement()


def configuration(wanted: Requirements) -> dict[str, Any]:
    """Return the configuration of a new stream."""
    name, keep = wanted.options.stream, wanted.keep
    return {
        "name": name,
        "description": "a journal of mtserver",
        "subjects": [f"{name}.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": wanted.replicas,
        "max_age": round(max(keep.age, _SHORTEST) * _NANOSECONDS) if keep.age else 0,
        "max_bytes": keep.size or -1,
        "duplicate_window": round(max(_window(wanted), _SHORTEST) * _NANOSECONDS),
        "allow_direct": True,
        "allow_atomic": True,
    }


def _window(wanted: Requirements) -> float:
    """Return the seconds for which ids are to be known; a server takes no longer window than messages are kept."""
    return min(wanted.window, wanted.keep.age) if wanted.keep.age else wanted.window


def judge(config: Mapping[str, Any], wanted: Requirements, payload: int, version: tuple[int, int]) -> Judgement:
    """
    Judge what a stream of this configuration can do.

    :param payload: bytes that the server takes in one message, at most.
    :param version: version of the server.
    """
    level = _level(config, syncs=wanted.options.syncs)
    most = config.get("max_msg_size", -1)
    size = min(payload, most) if most > 0 else payload
    is_atomic = bool(config.get("allow_atomic"))
    return Judgement(
        level,
        is_atomic,
        bool(config.get("allow_direct")) and version >= (2, 11),
        _known_for(config) >= _window(wanted),
        size,
        _unfit(config, wanted, level, size),
        tuple(_notes(config, wanted, is_atomic=is_atomic)),
    )


def _level(config: Mapping[str, Any], *, syncs: bool) -> str:
    if not syncs or config.get("storage") != "file" or config.get("persist_mode", "default") == "async":
        return ACCEPTED
    return REPLICATED if config.get("num_replicas", 1) >= 3 else DURABLE


def _unfit(config: Mapping[str, Any], wanted: Requirements, level: str, size: int) -> str:
    """Return why nothing may be stored in a stream; empty if it is fit."""
    name = wanted.options.stream
    taken = config.get("subjects") or []
    if config.get("no_ack"):
        return "it acknowledges nothing (no_ack)"
    if config.get("sealed") or config.get("mirror"):
        return "nothing can be published to it (it is sealed, or a mirror)"
    if not all(any(_covers(each, needed) for each in taken) for needed in (f"{name}.plain", f"{name}.from.?.?")):
        return f"it does not take the subjects {name}.>"
    if config.get("subject_transform"):
        # The last message of a source is looked for under the subject that it was published to.
        return "it stores messages under other subjects than they are published to (subject_transform)"
    rule = _dropping_rule(config)
    if rule:
        return f"it drops what it has acknowledged ({rule})"
    if LEVELS.index(level) < LEVELS.index(wanted.ack):
        return f"it is {level} at most ({_properties(config)}), and --ack is {wanted.ack}"
    if wanted.ids and _known_for(config) < _window(wanted):
        return _window_text(config, wanted)
    if size < wanted.size + _AROUND:
        # Otherwise single messages within --max-message would be refused.
        return (
            f"a message may have {size} bytes there (max_payload, max_msg_size), and --max-message is {wanted.size}, "
            f"with up to {_AROUND} around it"
        )
    return ""


def _properties(config: Mapping[str, Any]) -> str:
    replicas = config.get("num_replicas", 1)
    what = [f"{config.get('storage')} storage", f"{replicas} replica{'s' if replicas > 1 else ''}"]
    return ", ".join([*what, "persist_mode async"] if config.get("persist_mode") == "async" else what)


def _dropping_rule(config: Mapping[str, Any]) -> str:
    """Return the rule, other than age and size, by which a stream drops messages; empty if there is none."""
    retention = config.get("retention", "limits")
    most, each = config.get("max_msgs", -1), config.get("max_msgs_per_subject", -1)
    is_new = config.get("discard", "old") == "new"
    if retention != "limits":
        return f"retention {retention}"
    if most > 0 and not is_new:
        return f"max_msgs {most}, discard old"
    if each > 0 and not (is_new and config.get("discard_new_per_subject")):
        return f"max_msgs_per_subject {each}, without discard_new_per_subject"
    return ""


def _known_for(config: Mapping[str, Any]) -> float:
    return float(config.get("duplicate_window", 0) / _NANOSECONDS)


def _window_text(config: Mapping[str, Any], wanted: Requirements) -> str:
    return (
        f"it knows ids for {_known_for(config):.10g} s (duplicate_window), and --dedupe-window is {wanted.window:.10g}"
    )


def _notes(config: Mapping[str, Any], wanted: Requirements, *, is_atomic: bool) -> list[str]:
    """Return remarks for the operator on a stream that is fit, but not as asked for."""
    notes = []
    ours = configuration(wanted)
    age, size = max(config.get("max_age", 0), 0), max(config.get("max_bytes", -1), 0)
    if age != ours["max_age"]:
        asked = f"{wanted.keep.age:.10g} s" if wanted.keep.age else "nothing of that"
        notes.append(f"it keeps messages for {age / _NANOSECONDS:.10g} s (0: for ever), and --keep says {asked}")
    if size != wanted.keep.size:
        asked = str(wanted.keep.size) if wanted.keep.size else "nothing of that"
        notes.append(f"it keeps {size} bytes (0: no limit), and --keep says {asked}")
    if not wanted.ids and _known_for(config) < _window(wanted):
        notes.append(f"{_window_text(config, wanted)}: what a handler gives an id is refused")
    if not is_atomic:
        notes.append("it cannot store several messages all or none (allow_atomic, nats-server 2.12), and is slower so")
    return notes


def _covers(pattern: str, subject: str) -> bool:
    """Whether a stream's subject covers all subjects of a form; ``?`` stands for any token."""
    tokens, wanted = pattern.split("."), subject.split(".")
    for place, each in enumerate(tokens):
        if each == ">":
            return place < len(wanted)
        if place >= len(wanted) or each not in ("*", wanted[place]):
            return False
    return len(tokens) == len(wanted)

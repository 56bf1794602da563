"""
Journal in a stream of NATS JetStream: many nodes append to the same, and each can go on for another.

::

    --journal nats://10.0.0.1,10.0.0.2,10.0.0.3/JOURNAL?sync=always

Laws, beyond those of :mod:`mtserver.journal`:

* A message is acknowledged when the stream has acknowledged it, with the stream's number.
* The acknowledgement of what is published is waited for before more is published. So what is under way is bounded, and
  each client's messages keep their order.
* Messages that a client has appended behind one that could not be stored are not stored either: of messages with ids,
  the first part is stored, without a gap. Other clients' messages are not affected.
* If an acknowledgement does not come in time, nobody knows whether the batch is stored, and ``Unavailable`` says no
  more than that. The ids of its messages make them duplicates when they come again.
* While the stream cannot be reached, promises less than the options ask for (``--ack``, ``--dedupe-window``,
  ``--max-message``), or drops what it has acknowledged, all messages are refused at once. It is checked again until
  all is well.

:mod:`.envelope` describes how messages stand in a stream, :mod:`.queue` has those that wait, :mod:`.publishing` and
:mod:`.delivery` bring them there; :mod:`.stream` judges what a stream can promise, :mod:`.monitor` keeps that judgement
up to date, :mod:`.health` logs it.
"""

from __future__ import annotations

from mtserver.journal.jetstream.journal import JetStreamJournal
from mtserver.journal.jetstream.stream import Requirements
from mtserver.journal.options import JetStreamOptions, parse_keep
from mtserver.nats import Address
from mtserver.settings import Settings

__all__ = ["open_stream"]


def open_stream(address: Address, options: JetStreamOptions, settings: Settings) -> JetStreamJournal:
    """Open the journal in a stream."""
    wanted = Requirements(
        options,
        settings.ack,
        settings.dedupe_window,
        parse_keep(settings.keep),
        settings.max_message,
        settings.message_ids,
    )
    return JetStreamJournal(address, wanted)

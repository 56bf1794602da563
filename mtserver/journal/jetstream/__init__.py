"""
The journal as a stream of NATS JetStream: many nodes append to one, and any of them goes on for any other.

::

    --journal nats://10.0.0.1,10.0.0.2,10.0.0.3/JOURNAL?sync=always

Laws, beyond those of :mod:`mtserver.journal`:

* A message is acknowledged when the stream has acknowledged it, with the stream's number.
* What has been published is waited for before more is: so what is under way is bounded, and what one client appends
  stands in its order.
* What a client has appended behind something that could not be stored, and before it could know, is not stored either.
  So what is stored of it, if it has ids, is the first part, without a gap. Everybody else's is stored as if nothing had
  happened.
* Where an acknowledgement does not come in time nobody knows whether the batch is stored. ``Unavailable`` says no more
  then than that it is not known to be; its messages' ids make them one when they come again.
* While the stream cannot be reached, promises less than the options say (``--ack``, ``--dedupe-window``,
  ``--max-message``), or drops what it has acknowledged, all is refused at once; it is looked at again until all is
  well.

How messages stand in it is told by :mod:`.envelope`, what waits by :mod:`.waiting`, how it gets there by
:mod:`.publishing` and :mod:`.delivery`, what a stream can promise by :mod:`.stream`, who looks after it by
:mod:`.watching`, how it is by :mod:`.health`.
"""

from __future__ import annotations

from mtserver.journal.jetstream.journal import JetStreamJournal
from mtserver.journal.jetstream.stream import Wanted
from mtserver.journal.options import JetStreamOptions, parse_keep
from mtserver.nats import Address
from mtserver.settings import Settings

__all__ = ["open_stream"]


def open_stream(address: Address, options: JetStreamOptions, settings: Settings) -> JetStreamJournal:
    """The journal that is kept there."""
    wanted = Wanted(
        options,
        settings.ack,
        settings.dedupe_window,
        parse_keep(settings.keep),
        settings.max_message,
        settings.message_ids,
    )
    return JetStreamJournal(address, wanted)

"""
Context: whose message is being handled where something is said, as a variable with the client's number.

Set once for each context that a handler runs in. So it is right in a coroutine that has waited, in a task or a thread
that the handler has started, and costs an idle client nothing.
"""

from __future__ import annotations

from contextvars import Context, ContextVar

_client: ContextVar[int | None] = ContextVar("mtserver.client", default=None)

#: ``enter(number)``: what runs in this context from now on is done for that client. The variable's own method, 33 ns:
#: this is called once for each turn of a handler.
enter = _client.set

#: ``current()``: the number of the client that the caller does something for; None where it is nobody's.
current = _client.get


def is_like(context: Context, pristine: Context) -> bool:
    """
    Whether nothing else than the client has been set in a context.

    :param context: a copy of `pristine` that has been entered.
    """
    # A context that has been entered has the client's number: with a single variable there is nothing else.
    return len(context) == 1 or _is_like(context, pristine)


def _is_like(context: Context, pristine: Context) -> bool:
    before = {variable: value for variable, value in pristine.items() if variable is not _client}
    unset = object()
    return len(context) == len(before) + 1 and all(
        context.get(variable, unset) is value for variable, value in before.items()
    )

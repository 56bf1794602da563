"""
What people would use instead, each small, idiomatic and tuned the way a competent user would.

They agree on this much: each line is a message, and passes through a function of its own, where an application would
stand; replies to what arrived together go out together where the interface allows it; Nagle's algorithm is off; the
backlog is long enough for a thousand clients at once. None has deadlines or limits.
"""

"""The tests; :data:`DEADLINE` is how long they wait for what should have happened long ago."""

#: Seconds. Only what hangs ever takes that long.
DEADLINE = 60.0

"""The tests; :data:`DEADLINE` is how long they wait for what should have happened long ago."""

import os

#: Seconds. Only what hangs ever takes that long; the negative controls, where it is meant to, have less patience.
DEADLINE = float(os.environ.get("MTSERVER_TEST_DEADLINE", "60"))

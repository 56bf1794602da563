"""
mtserver beside what people would use instead: ``python -m benchmarks``, see ``docs/benchmarks.md``.

The laws: everything is started fresh for each measurement; all servers of a workload take turns, round by round; what
is compared was measured in the same run; a peer that could not be measured is named with the reason.
"""

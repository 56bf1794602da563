"""Limits that are arithmetic: what is said once, the token bucket, the streak, the wait that the refused are told."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mtserver.refusals import retry_after
from mtserver.session.limits import Streak, TokenBucket
from mtserver.telemetry.rate_limit import Once, Rate

law = settings(max_examples=200, deadline=None)
RATES = st.one_of(st.floats(0.01, 10_000), st.sampled_from([0.1, 0.5, 1.0, 3.0, 1000.0]))


class Said(SynchronousTestCase):
    def test_once(self) -> None:
        """A text is new once, and no more than so many are, until all begins anew."""
        once = Once(2)
        self.assertFalse(once)
        self.assertEqual([once.is_new(text) for text in "aabbcac"], [True, False, True, False, False, False, False])
        self.assertTrue(once)
        once.clear()
        self.assertEqual([once.is_new(text) for text in "cc"], [True, False])


class Windows(SynchronousTestCase):
    def test_rate(self) -> None:
        """In each window the first of a kind are admitted, the others counted; a new one begins with none of either."""
        rate = Rate(2)
        self.assertEqual([rate.admits(event) for event in "aaabaa"], [True, True, False, True, False, False])
        self.assertEqual(rate.turn(), {"a": 3})
        self.assertEqual([rate.admits("a") for _ in range(2)], [True, True])
        self.assertEqual(rate.turn(), {})


class Bucket(SynchronousTestCase):
    @law
    @given(RATES, st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=30))
    def test_never_more(self, rate: float, steps: list[tuple[float, float]]) -> None:
        """Over any time no more is taken than the burst and what dropped in; and never more than the burst at once."""
        now, taken, burst = 5.0, 0, max(rate, 1.0)
        bucket = TokenBucket(rate, now)
        for wait, part in steps:
            now += wait
            available = bucket.available(now)
            self.assertGreaterEqual(available, 0)
            self.assertLessEqual(available, burst + 1e-6)
            count = int(available * part)
            bucket.spend(count)
            taken += count
            self.assertLessEqual(taken, burst + (now - 5.0) * rate + 1e-6 * (1 + len(steps)))

    @law
    @given(RATES, st.lists(st.floats(0, 5), max_size=30))
    def test_never_less(self, rate: float, waits: list[float]) -> None:
        """Who asks for all there is gets the rate: never a whole message less than what dropped in meanwhile."""
        now, taken, earned, burst = 5.0, 0, max(rate, 1.0), max(rate, 1.0)
        bucket = TokenBucket(rate, now)
        for wait in waits:
            now += wait
            # What is over the burst is lost: that is the one thing that may be missing.
            earned = min(earned + wait * rate, taken + burst)
            available = bucket.available(now)
            bucket.spend(available)
            taken += available
            self.assertGreater(taken, earned - 1 - 1e-6)

    def test_burst(self) -> None:
        """At the start, one second's worth may be taken at once; then nothing until time passes."""
        bucket = TokenBucket(5, 100.0)
        self.assertEqual(bucket.available(100.0), 5)
        bucket.spend(5)
        self.assertEqual(bucket.available(100.0), 0)
        self.assertEqual(bucket.available(100.2), 1)

    def test_slow_rate(self) -> None:
        """A rate under one a second still lets one message at a time through."""
        bucket = TokenBucket(0.1, 0.0)
        self.assertEqual(bucket.available(0.0), 1)
        bucket.spend(1)
        self.assertEqual(bucket.available(9.0), 0)
        self.assertEqual(bucket.available(10.0), 1)

    def test_nothing_saved(self) -> None:
        """After an idle hour there is one second's worth, not an hour's."""
        self.assertEqual(TokenBucket(5, 0.0).available(3600.0), 5)

    def test_exact_time(self) -> None:
        """At the very moment when a token is due it is there, though floats fall a hair short of it."""
        for rate in (0.1, 0.3, 0.7, 3.0, 7.0, 10.0):
            bucket, now = TokenBucket(rate, 0.0), 0.0
            bucket.spend(bucket.available(now))
            for _ in range(100):
                now += 1 / rate
                self.assertEqual(bucket.available(now), 1)
                bucket.spend(1)

    def test_asking_costs_nothing(self) -> None:
        """Asking a thousand times does not change what there is."""
        bucket = TokenBucket(10, 0.0)
        bucket.spend(10)
        for step in range(1000):
            bucket.available(step / 10_000)
        self.assertEqual(bucket.available(0.1), 1)


class RetryAfter(SynchronousTestCase):
    def test_spread(self) -> None:
        """The waits are whole seconds from the least to the most, all of them, so that clients do not come together."""
        self.assertEqual({retry_after(2, 5) for _ in range(1000)}, {2, 3, 4, 5})

    def test_fixed(self) -> None:
        """Where the least is the most, that is the wait."""
        self.assertEqual(retry_after(3, 3), 3)


class Streaks(SynchronousTestCase):
    def test_none(self) -> None:
        """Before the first bad message there is none; the first is one in a row, wherever it stands."""
        for place in (0, 5):
            streak = Streak()
            self.assertEqual((streak.total, streak.in_a_row), (0, 0))
            streak.add(place)
            self.assertEqual((streak.total, streak.in_a_row), (1, 1))

    @law
    @given(st.lists(st.booleans(), max_size=30))
    def test_in_a_row(self, good: list[bool]) -> None:
        """Told of the bad ones alone, it knows how many have come since the last good one, and how many in all."""
        streak = Streak()
        in_a_row = 0
        for place, is_good in enumerate(good, 1):
            in_a_row = 0 if is_good else in_a_row + 1
            if not is_good:
                streak.add(place)
                self.assertEqual(streak.in_a_row, in_a_row)
        self.assertEqual(streak.total, good.count(False))

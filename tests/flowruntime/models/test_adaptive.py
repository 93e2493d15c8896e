"""The adaptive limit against a simulated server: it finds what the server takes, and finds it again.

server   answers `capacity` calls at once in `BASE_S` each, and shares itself among more of them;
         beyond `bound` calls it refuses
"""

from __future__ import annotations

import heapq
import random
from itertools import count

import pytest

from flowruntime.models.adaptive import FIRST, AdaptiveLimit, Start

BASE_S = 0.5


class Server:
    """Simulated in events: calls begin whenever the limit has room and there is demand."""

    def __init__(self, limit: AdaptiveLimit, capacity: int, *, bound: int, noise: float, seed: int) -> None:
        self.limit = limit
        self.capacity = capacity
        self.bound = bound
        self.down = False
        self._noise = noise
        self._rng = random.Random(seed)
        self._ends: list[tuple[float, int, float, Start, str]] = []
        self._number = count()
        self.now = 0.0
        self.seen: list[int] = []
        """The limit at each answer."""
        self.most = 0
        self.answers = 0

    def run(self, calls: int, *, demand: int = 10_000) -> None:
        """Until so many calls have ended; `demand` calls want to be under way at most."""
        ended = 0
        while ended < calls:
            while len(self._ends) < min(self.limit.limit, demand):
                self._begin()
            self.now, _, began, start, how = heapq.heappop(self._ends)
            ended += 1
            if how == "ok":
                self.answers += 1
                self.limit.answered(start, self.now - began)
            elif how == "refused":
                self.limit.refused(start)
            else:
                self.limit.failed(start)
            self.seen.append(self.limit.limit)

    def _begin(self) -> None:
        under_way = len(self._ends) + 1
        self.most = max(self.most, under_way)
        how, seconds = "ok", BASE_S * max(1.0, under_way / self.capacity)
        if self.down:
            how, seconds = "failed", 0.05
        elif under_way > self.bound:
            how, seconds = "refused", 0.01
        seconds *= self._rng.lognormvariate(0.0, self._noise)
        entry = (self.now + seconds, next(self._number), self.now, self.limit.began(under_way), how)
        heapq.heappush(self._ends, entry)


def settled(server: Server, calls: int = 3_000) -> float:
    """The mean limit over the last calls."""
    last = server.seen[-calls:]
    return sum(last) / len(last)


@pytest.mark.parametrize("capacity", [8, 20, 64, 200])
@pytest.mark.parametrize("noise", [0.0, 0.2, 0.4])
def test_it_settles_within_a_quarter_of_what_the_server_takes(capacity: int, noise: float) -> None:
    server = Server(AdaptiveLimit(1_000), capacity, bound=4 * capacity, noise=noise, seed=capacity)
    server.run(8_000)
    assert 0.75 * capacity <= settled(server) <= 1.25 * capacity


@pytest.mark.parametrize("seed", range(5))
def test_where_the_server_refuses_before_it_slows_the_refusals_say_how_much_it_takes(seed: int) -> None:
    server = Server(AdaptiveLimit(1_000), 1_000, bound=40, noise=0.2, seed=seed)
    server.run(8_000)
    assert 30 <= settled(server) <= 50
    assert server.answers >= 0.9 * 8_000, "refusals stay the exception"


@pytest.mark.parametrize("seed", range(5))
def test_after_an_outage_it_finds_the_same_limit_again(seed: int) -> None:
    server = Server(AdaptiveLimit(1_000), 30, bound=100, noise=0.2, seed=seed)
    server.run(4_000)
    server.down = True
    server.run(500)
    assert server.limit.limit == 1, "one call at a time asks whether it is over"
    server.down = False
    server.run(6_000)
    assert 0.75 * 30 <= settled(server, 2_000) <= 1.25 * 30


@pytest.mark.parametrize("seed", range(5))
def test_it_follows_a_server_that_gets_smaller_and_larger(seed: int) -> None:
    server = Server(AdaptiveLimit(1_000), 60, bound=10_000, noise=0.2, seed=seed)
    server.run(6_000)
    server.capacity = 15
    server.run(8_000)
    assert 0.7 * 15 <= settled(server) <= 1.35 * 15
    server.capacity = 60
    server.run(8_000)
    assert 0.75 * 60 <= settled(server) <= 1.25 * 60


@pytest.mark.parametrize("seed", range(4))
def test_answers_of_very_different_length_do_not_starve_it(seed: int) -> None:
    """Nine in ten take between a third of the middle one and three times as long."""
    server = Server(AdaptiveLimit(1_000), 40, bound=160, noise=0.7, seed=seed)
    server.run(12_000)
    assert 0.6 * 40 <= settled(server) <= 1.5 * 40


def test_it_does_not_grow_while_it_is_not_made_use_of() -> None:
    server = Server(AdaptiveLimit(1_000), 100, bound=1_000, noise=0.0, seed=1)
    server.run(2_000, demand=2)
    assert server.limit.limit == FIRST


def test_it_stays_within_its_bound_and_never_starves() -> None:
    server = Server(AdaptiveLimit(16), 500, bound=1_000, noise=0.1, seed=1)
    server.run(2_000)
    assert server.most <= 16
    limit = AdaptiveLimit(1)
    for _ in range(100):
        limit.refused(limit.began(1))
        limit.failed(limit.began(1))
        assert limit.limit == 1


def test_many_refusals_of_one_overload_lower_it_once() -> None:
    limit = AdaptiveLimit(100)
    starts = [limit.began(number) for number in range(1, FIRST + 1)]
    for start in starts:
        limit.refused(start)
    assert limit.limit == int(FIRST * 0.8)


def test_a_smaller_bound_holds_at_once() -> None:
    limit = AdaptiveLimit(100)
    limit.bound(2)
    assert limit.limit == 2

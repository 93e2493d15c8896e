"""The bus as a reactivex Observable.

Owns: the bridge.
Does not own: routing and isolation (bus). This imports reactivex, so the bus imports this on first use only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

T = TypeVar("T")

Listen: TypeAlias = Callable[
    [Callable[[Any], None], Callable[[BaseException | None], None]], Callable[[], None]
]
"""Takes what to call with each event and what to call at the end; returns how to leave."""


def observe(listen: Listen) -> Observable[Any]:
    """What `listen` tells, from the moment of each subscribe.

        bus     a-b-c-d-|      b and c are of other kinds
        result  a-----d-|

    Emits when      an event is published, inside `publish`.
    Backpressures   never: no buffer, no async boundary.
    Completes when  the bus closes.
    Fails when      never; an observer that raises is disposed and reported by the bus.
    Holds           nothing.
    """

    def on_subscribe(
        observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        def on_end(error: BaseException | None) -> None:
            if error is None:
                observer.on_completed()

        return Disposable(listen(observer.on_next, on_end))

    return reactivex.create(on_subscribe)

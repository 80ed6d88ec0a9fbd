"""Spot requests: one row for each spot instance, which says where it stands and outlives it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from sublet.domain.capacity import HOLDING
from sublet.domain.errors import NoSuchRequest, PriceTooLow, SubletError, WrongState
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.notice import Action, Notice, Reason
from sublet.domain.spec import InstanceSpec
from sublet.domain.spot import FINAL, Request, RequestState, Status, Type, marked, taken
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.market import MarketStore
from sublet.engine.events import Events

KEPT_FOR = 48 * 3600.0
"""Seconds that a request is listed after its end, as EC2's are."""

_DOWN = frozenset({State.STOPPED, State.HIBERNATED})

TIDY = 100
"""New requests after which it is looked for old ones."""


class SpotRequests:
    """The requests of one daemon. `ceiling` tells the most that an instance pays an hour, `begun`
    the notice that is being carried out on it."""

    def __init__(
        self,
        store: MarketStore,
        instances: InstanceStore,
        events: Events,
        ceiling: Callable[[InstanceSpec], float],
        begun: Callable[[str], Notice | None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._instances, self._events = store, instances, events
        self._ceiling, self._begun, self._now = ceiling, begun, now
        self._rows = {request.id: request for request in store.requests()}
        self._of = {request.instance: request.id for request in self._rows.values()}
        self._wanted = {request.id for request in self._rows.values() if request.wanted}
        self.filling: dict[str, Status] = {}
        """Instances that the market is starting, and the status that each had before."""

    # Finding

    def every(self) -> list[Request]:
        """All requests, the newest first; those that ended long ago are forgotten."""
        old = self._now() - KEPT_FOR
        for request in list(self._rows.values()):
            if request.state in FINAL and request.updated < old:
                self._store.delete_request(request.id)
                del self._rows[request.id]
                if self._of.get(request.instance) == request.id:
                    del self._of[request.instance]
        return list(self._rows.values())[::-1]

    def of(self, instance_id: str) -> Request | None:
        """The latest request of an instance."""
        return self._rows.get(self._of.get(instance_id, ""))

    def get(self, text: str) -> Request:
        """The request of this id, or of the instance of this name or id. Raises NoSuchRequest."""
        for request in self.every():
            if text in (request.id, request.instance, request.name):
                return request
        raise NoSuchRequest(f"There is no spot request '{text}'.")

    def wanted(self) -> list[Request]:
        """Those that the market is to fill when it can; who pays most, then who waits longest."""
        rows = [self._rows[request_id] for request_id in self._wanted]
        return sorted(rows, key=lambda row: (-row.max_price, row.updated, row.id))

    # Changing

    def recover(self) -> None:
        """A daemon may have been killed between the change of a row and that of its request, which
        is another transaction: bring them together."""
        for request in [row for row in self._rows.values() if row.state not in FINAL]:
            row = self._instances.get(request.instance)
            if row is None:
                notice = self._begun(request.instance)
                ended = taken(notice.action, notice.reason) if notice else Status.TERMINATED_BY_USER
                self._put(request, ended)
            elif row.state in LIVE and request.state is not RequestState.ACTIVE:
                self._put(request, Status.FULFILLED)
            elif row.state in _DOWN and request.state is RequestState.ACTIVE:
                self._stopped(row, request, failed=False)

    def cancel(self, text: str) -> Request:
        """Cancel a request; its instance goes on. Raises NoSuchRequest, WrongState."""
        request = self.get(text)
        if request.state is RequestState.CANCELLED:
            return request
        if request.state in FINAL:
            raise WrongState(f"{request.id} is {request.state}; it cannot be cancelled.")
        instance = self._instances.get(request.instance)
        running = instance is not None and instance.state in HOLDING
        status = Status.CANCELLED_AND_RUNNING if running else Status.CANCELLED_BEFORE
        return self._put(request, status, wanted=False)

    def unwanted(self, instance_id: str) -> None:
        """Its user has stopped it, though it does not run: it is not to come back by itself."""
        request = self.of(instance_id)
        if request is not None and request.wanted:
            self._put(request, Status.STOPPED_BY_USER, wanted=False)

    def failed(self, instance_id: str) -> None:
        """The market could not start it: its request is as it was, and rests again."""
        status, request = self.filling.get(instance_id), self.of(instance_id)
        if status is not None and request is not None and request.state not in FINAL:
            self._put(request, status, wanted=True)

    def lacks(self, instance_id: str, error: SubletError) -> None:
        """An open request waits: for capacity, or for a lower price, as `error` has it."""
        request, dear = self.of(instance_id), isinstance(error, PriceTooLow)
        if request and request.state is RequestState.OPEN:
            status = Status.PRICE_TOO_LOW if dear else Status.CAPACITY_NOT_AVAILABLE
            self._put(request, status, wanted=True)

    def noticed(self, notice: Notice) -> None:
        """Its instance has been given notice."""
        request = self.of(notice.instance)
        if notice.reason is not Reason.REHEARSAL and request and request.state not in FINAL:
            self._put(request, marked(notice.action), wanted=request.wanted)

    def withdrawn(self, notice: Notice) -> None:
        """The row's own change tells what became of it."""

    def changed(self, old: Instance | None, new: Instance | None) -> None:
        """A row has changed: so does its request."""
        row = new or old
        if row is None or row.spec.spot is None:
            return
        request = self.of(row.id)
        if new is None:
            self._gone(row, request)
        elif request is None or (request.state is RequestState.CLOSED and new.state in LIVE):
            self._add(new)
        elif request.state not in FINAL:
            self._follow(old, new, request)

    def _add(self, row: Instance) -> None:
        spot = row.spec.spot
        assert spot is not None
        status = Status.FULFILLED if row.state in LIVE else Status.PENDING_EVALUATION
        now = self._now()
        request = Request(
            id=f"sir-{secrets.token_hex(4)}",
            instance=row.id,
            name=row.name,
            type=Type.PERSISTENT if spot.persistent else Type.ONE_TIME,
            status=Status.PENDING_FULFILLMENT if row.state is State.PENDING else status,
            max_price=self._ceiling(row.spec),
            created=now,
            updated=now,
        )
        self._of[row.id] = request.id
        if len(self._rows) % TIDY == 0:
            self.every()
        self._write(request)

    def _follow(self, old: Instance | None, new: Instance, request: Request) -> None:
        before = old.state if old else State.STOPPED
        if (new.name, self._ceiling(new.spec)) != (request.name, request.max_price):
            request = replace(request, name=new.name, max_price=self._ceiling(new.spec))
            self._write(request)
        if before is new.state:
            return
        if new.state is State.PENDING:
            self._put(request, Status.PENDING_FULFILLMENT, wanted=request.wanted)
        elif new.state is State.RUNNING and before in (State.PENDING, State.HIBERNATED):
            self._put(request, Status.FULFILLED)
        elif new.state in _DOWN and before is not State.HIBERNATED:
            self._stopped(new, request, failed=before is State.PENDING)
        elif new.state is State.STOPPED and before is State.HIBERNATED:
            self._put(request, Status.STOPPED_BY_USER)

    def _stopped(self, row: Instance, request: Request, *, failed: bool) -> None:
        notice = self._begun(row.id)
        if notice is not None:
            back = request.type is Type.PERSISTENT and notice.action is not Action.TERMINATE
            self._put(request, taken(notice.action, notice.reason), wanted=back)
        elif failed and not row.reason:  # made stopped, as by `restore`
            self._put(request, Status.PENDING_EVALUATION)
        elif failed:
            if row.id not in self.filling:
                self._put(request, Status.SYSTEM_ERROR)
        else:
            self._put(request, Status.STOPPED_BY_USER)

    def _gone(self, row: Instance, request: Request | None) -> None:
        if request is None or request.state in FINAL:
            return
        notice = self._begun(row.id)
        failed = row.state is State.PENDING
        status = Status.SYSTEM_ERROR if failed else Status.TERMINATED_BY_USER
        self._put(request, taken(notice.action, notice.reason) if notice else status)

    def _put(self, request: Request, status: Status, *, wanted: bool = False) -> Request:
        request = replace(request, status=status, wanted=wanted, updated=self._now())
        self._write(request)
        self._events.publish(
            "spot.request",
            request.instance,
            request=request.id,
            name=request.name,
            state=request.state,
            status=status,
        )
        return request

    def _write(self, request: Request) -> None:
        self._rows[request.id] = request
        (self._wanted.add if request.wanted else self._wanted.discard)(request.id)
        self._store.put_request(request)

"""One process of a service: holds the models, listens, and does what the process above it says.

Started as `python -m flyweight.serving.worker HTTP_FD WIRE_FD SEATS_FD PLACE`; ends when it is told to, or when the
process above is gone.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import uvloop

from flyweight.errors import InputError
from flyweight.serving.access import Access
from flyweight.serving.administration import AskedAdministration
from flyweight.serving.answering import Desk
from flyweight.serving.application import build_application
from flyweight.serving.direct_infer import DirectInfer
from flyweight.serving.following import Follower
from flyweight.serving.http_guard import guarded
from flyweight.serving.http_server import HttpServer
from flyweight.serving.refusal import Refusal
from flyweight.serving.repository import Repository
from flyweight.serving.request_log import start_logging
from flyweight.serving.rollout import rollout_of
from flyweight.serving.seats import Seats
from flyweight.serving.settings import Settings, address_of, settings_from_json
from flyweight.serving.status_routes import StatusRoutes
from flyweight.serving.watching import Watchers, start_watching
from flyweight.serving.wire import Wire

if TYPE_CHECKING:
    from flyweight.serving.grpc_service import GrpcServer

logger = logging.getLogger("flyweight.serving")
#: Seconds that the last traces may take to be sent.
WATCHING_SECONDS = 3.0
#: Objects after which the collector looks for circles: requests make hundreds that are gone with them, and no circles.
COLLECTS = (20_000, 20, 20)


class Worker:
    """Holds what one worker holds.

    Args:
        listening: the bound socket that all workers share.
        seats: number of the file with how many connections each worker holds.
        place: which of the workers this is.
    """

    def __init__(self, listening: socket.socket, seats: int, place: int) -> None:
        self.wire = Wire(
            {
                "open": self.open,
                "start": self.start,
                "end": self.end,
                "snapshot": self.snapshot,
            }
        )
        self._listening = listening
        self._seats, self._place = seats, place
        self._desk: Desk | None = None
        self._watchers: Watchers | None = None
        self._follower: Follower | None = None
        self._server: HttpServer | None = None
        self._grpc: GrpcServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._drained: asyncio.Task[None] | None = None

    async def open(self, settings: str, rollouts: list[dict[str, Any]]) -> None:
        """Open what is served at this moment; `start` opens what has changed by then, and says what cannot be opened.

        Seconds or minutes, in which other workers may change what they serve.
        """
        follower = self._following(settings_from_json(settings))
        for values in rollouts:
            await follower.open(rollout_of(values))

    async def start(self, settings: str, rollouts: list[dict[str, Any]], first: bool) -> dict[str, Any]:
        """Open every bundle that is not open yet, warm it up, then listen.

        Args:
            settings: of the service.
            rollouts: what is served of each model now.
            first: whether no other worker serves yet.

        Returns:
            What `Follower.begin` found of each model.

        Raises:
            FlyweightError: a bundle that is to answer is bad, or another service listens at the port.
        """
        told = settings_from_json(settings)
        follower = self._following(told)
        self._desk = Desk(follower.repository)
        self.wire.handlers.update(follower.handlers())
        found = {}
        for values in rollouts:
            rollout = rollout_of(values)
            found[rollout.model] = await follower.begin(rollout, first=first)
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look through it again during a request
        gc.set_threshold(*COLLECTS)
        await self._listen(self._desk, told)
        return found

    def _following(self, settings: Settings) -> Follower:
        if self._follower is None:
            start_logging(settings.watching.log_format, "worker")
            self._follower = Follower(Repository(settings))
        return self._follower

    async def _listen(self, desk: Desk, settings: Settings) -> None:
        administration = AskedAdministration(self.wire)
        security = settings.security
        access = Access(security)
        self._watchers = start_watching(desk, settings.watching)
        status = StatusRoutes(desk.repository, self._watchers.metering, self._collect)
        app = guarded(build_application(desk, administration, status), access, desk)
        seats = Seats(self._seats, settings.workers)
        self._server = HttpServer(
            app,
            self._listening,
            settings.read_seconds,
            DirectInfer(desk, access),
            (seats, self._place),
            security.tls,
        )
        if settings.grpc_port is not None:
            from flyweight.serving.grpc_guard import interceptors
            from flyweight.serving.grpc_service import GrpcServer, GrpcService

            service, asked = GrpcService(desk, administration), interceptors(access, desk)
            address = address_of(settings.host, settings.grpc_port)
            self._grpc = GrpcServer(service, address, settings.max_body, asked, security.tls)
            await self._grpc.start()
        self._serving = asyncio.create_task(self._server.run_until_told())
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0.005)
        if self._serving.done():
            failed, self._serving = self._serving, None
            try:
                await failed
            except OSError as error:
                # Two services may bind a port at the same time; the first to listen has it.
                where = address_of(settings.host, settings.port)
                raise InputError(
                    f"{where} cannot be listened at: {error.strerror or error}. Choose another with --port; 0 takes "
                    "any free one."
                ) from error

    async def snapshot(self) -> dict[str, Any]:
        """Return what this worker counted so far."""
        assert self._watchers is not None
        return await self._watchers.snapshot()

    async def _collect(self) -> dict[str, Any]:
        """Return what all workers counted; of this one alone where the process above is gone."""
        try:
            found: dict[str, Any] = await self.wire.ask("collect")
        except Refusal:
            return await self.snapshot()
        return found

    async def end(self) -> None:
        """Drain with all other workers, so that the port is closed."""
        if self._server is not None:
            self._server.closes_port = True
        await self.drain()

    async def drain(self) -> None:
        """Answer what was accepted, then end; asking twice is asking once."""
        if self._drained is None:
            self._drained = asyncio.create_task(self._drain())
        await asyncio.shield(self._drained)

    async def _drain(self) -> None:
        if self._desk is None or self._server is None or self._serving is None:
            return
        repository = self._desk.repository
        repository.draining = True
        await asyncio.sleep(repository.settings.drain_seconds)
        self._server.should_exit = True
        if self._grpc is not None:
            await self._grpc.stop()
        await self._serving
        await repository.drain()
        with contextlib.suppress(TimeoutError):  # a collector of traces that is not there must not hold the end up
            assert self._watchers is not None
            await asyncio.wait_for(asyncio.to_thread(self._watchers.close), WATCHING_SECONDS)


async def _work(listening: socket.socket, channel: socket.socket, seats: int, place: int) -> None:
    worker = Worker(listening, seats, place)
    await worker.wire.open(channel)
    listens = asyncio.create_task(worker.wire.listen())
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    term = asyncio.create_task(told.wait())
    await asyncio.wait({listens, term}, return_when=asyncio.FIRST_COMPLETED)
    await worker.drain()
    term.cancel()


def main() -> None:
    """Run a worker on the sockets and the file whose numbers are its arguments."""
    for number in (signal.SIGINT, signal.SIGHUP):  # what a terminal sends to all its processes; the one above decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    start_logging("auto", "worker")  # until it is told how
    http, wire, seats, place = map(int, sys.argv[1:5])
    uvloop.run(_work(socket.socket(fileno=http), socket.socket(fileno=wire), seats, place))
    # Engines may keep threads that wait for each other when the interpreter takes its modules apart.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()

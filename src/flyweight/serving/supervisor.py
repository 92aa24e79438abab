"""The process above the workers: binds the port, starts them, starts others for those that die, ends them together.

It holds no model and answers no request, so that it outlives whatever ends a worker.
"""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flyweight.errors import FlyweightError, InputError
from flyweight.serving.beginning import begin_rollouts
from flyweight.serving.changes import Changes
from flyweight.serving.gathering import Gathering
from flyweight.serving.refusal import Refusal
from flyweight.serving.seats import ABSENT, Seats, make_seats
from flyweight.serving.settings import Settings, settings_to_json
from flyweight.serving.state_folder import StateFolder
from flyweight.serving.wire import Wire

logger = logging.getLogger("flyweight.serving")
#: Seconds that a worker may take to end after its own time to drain.
ENDING_SECONDS = 35.0
#: A worker that took requests for as long was sound, and is replaced at once; of others that die, each next one is
#: started later, up to the longest pause.
SOUND_SECONDS, LONGEST_PAUSE = 1.0, 5.0


@dataclass
class Worker:
    """A process that serves.

    Args:
        process: it.
        wire: to it.
        listens: ends with the wire.
        ready: whether it takes requests.
        since: `time.monotonic()` of when it began to.
    """

    process: asyncio.subprocess.Process
    wire: Wire
    listens: asyncio.Task[None]
    ready: bool = False
    since: float = math.inf


class Supervisor:
    """Runs a service.

    Args:
        settings: of it; a port of 0 is replaced by the one that was free.
        on_ready: called with the settings once every worker takes requests.
    """

    def __init__(self, settings: Settings, on_ready: Callable[[Settings], None]) -> None:
        self.settings = settings
        self._on_ready = on_ready
        self.changes = Changes({}, self._taking, settings.keep)
        self._workers: list[Worker] = []
        self._gathering = Gathering(self._wires)
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C, then end when every accepted request is answered.

        Raises:
            FlyweightError: the port is taken, or a bundle is bad at the start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        settings = self.settings
        with contextlib.ExitStack() as held:
            listening = held.enter_context(bind_socket(settings.host, settings.port))
            settings = replace(settings, port=listening.getsockname()[1])
            if settings.grpc_port is not None:
                # gRPC's library binds in each worker; what is held here keeps others from taking the port.
                reserved = held.enter_context(bind_socket(settings.host, settings.grpc_port, "--grpc-port"))
                settings = replace(settings, grpc_port=reserved.getsockname()[1])
            self.settings = settings
            self._read_state(held)
            try:
                await self._serve(listening)
            finally:
                await self._end(listening)

    def _read_state(self, held: contextlib.ExitStack) -> None:
        """Find out what to begin with; the state folder is held until the service ends."""
        folder = None if self.settings.state is None else StateFolder(Path(self.settings.state))
        if folder is not None:
            held.callback(folder.close)
        rollouts = begin_rollouts(self.settings.sources, {} if folder is None else folder.read())
        self.changes = Changes(rollouts, self._taking, self.settings.keep, folder)

    async def _serve(self, listening: socket.socket) -> None:
        seats = make_seats(self.settings.workers)
        keepers = [asyncio.create_task(self._keep(listening, seats, one)) for one in range(self.settings.workers)]
        ending = asyncio.create_task(self._ending.wait())
        try:
            while not self._ending.is_set():
                done, _ = await asyncio.wait({*keepers, ending}, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {ending}:
                    task.result()  # a bundle that is bad at the start
                if sum(worker.ready for worker in self._workers) == self.settings.workers:
                    self._on_ready(self.settings)
                    done, _ = await asyncio.wait({*keepers, ending}, return_when=asyncio.FIRST_COMPLETED)
                    for task in done - {ending}:
                        task.result()
        finally:
            self._ending.set()
            ending.cancel()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, listening: socket.socket, seats: Seats, place: int) -> None:
        """Keep one worker running."""
        pause, was_ready = 0.0, False
        while not self._ending.is_set():
            worker = await self._spawn(listening, seats, place)
            try:
                await self._start(worker)
                was_ready = True
            except FlyweightError as error:
                if not was_ready and not self._ending.is_set():
                    raise
                logger.error("A worker could not start again: %s", error)
                worker.listens.cancel()  # a worker whose wire is closed ends
            code = await worker.process.wait()
            self._workers.remove(worker)
            seats.set(place, ABSENT)
            if self._ending.is_set():
                return
            sound = time.monotonic() - worker.since > SOUND_SECONDS
            pause = 0.0 if sound else min(max(2 * pause, 0.1), LONGEST_PAUSE)
            logger.error(
                "Worker %d ended with code %d; requests that it was answering are lost. Another starts in %.1f s.",
                worker.process.pid,
                code,
                pause,
            )
            await asyncio.sleep(pause)

    async def _spawn(self, listening: socket.socket, seats: Seats, place: int) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            files = (listening.fileno(), theirs.fileno(), seats.file)
            command = (sys.executable, "-m", "flyweight.serving.worker", *map(str, (*files, place)))
            process = await asyncio.create_subprocess_exec(*command, pass_fds=files)
        ours.setblocking(False)
        wire = Wire({"change": self.changes.change, "collect": self._gathering.collect})
        await wire.open(ours)
        worker = Worker(process, wire, asyncio.create_task(wire.listen()))
        self._workers.append(worker)
        return worker

    async def _start(self, worker: Worker) -> None:
        changes = self.changes
        async with changes.lock:  # what is served must not change between telling it and its being told of changes
            found = await worker.wire.ask(
                "start",
                settings=settings_to_json(self.settings),
                rollouts=[asdict(rollout) for rollout in changes.rollouts.values()],
                first=not self._taking(),
            )
            worker.ready, worker.since = True, time.monotonic()
            for model, one in found.items():
                await changes.began(model, **one)

    def _taking(self) -> list[Wire]:
        """Return the wires to the workers that take requests; one that starts later is told what holds then."""
        return [worker.wire for worker in self._workers if worker.ready and worker.wire.is_open]

    def _wires(self) -> dict[int, Wire]:
        """Return the wire to each worker that takes requests."""
        return {worker.process.pid: worker.wire for worker in self._workers if worker.ready}

    async def _end(self, listening: socket.socket) -> None:
        listening.close()  # ours; the workers' own stay open until they have emptied the backlog
        limit = self.settings.drain_seconds + ENDING_SECONDS
        endings = [asyncio.create_task(self._end_worker(worker, limit)) for worker in self._workers]
        if endings:
            await asyncio.wait(endings)

    async def _end_worker(self, worker: Worker, limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                if not worker.ready:
                    worker.process.kill()  # it accepted nothing yet
                elif worker.process.returncode is None:
                    with contextlib.suppress(Refusal):  # it was told by someone else too, and is gone
                        await worker.wire.ask("end")
                worker.listens.cancel()  # a worker whose wire is closed ends
                await worker.process.wait()
        except TimeoutError:
            logger.error("Worker %d did not end within %.0f s and is killed.", worker.process.pid, limit)
        if worker.process.returncode is None:
            worker.process.kill()
            await worker.process.wait()


def bind_socket(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a socket that is bound and does not listen yet: until a worker is ready, callers are refused at once.

    Args:
        option: that named the port, for errors; the gRPC one is shared by workers that bind it themselves.

    Raises:
        InputError: the address is none of this machine, or taken.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, number)
    except OSError as error:
        raise InputError(f"--host {host!r} is no address: {error.strerror or error}.") from error
    try:
        if option == "--port":  # connections of a service that has just ended hold the port for a minute
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            # Workers bind it too, each its own socket. Such sockets share a port with any other service of this user,
            # and callers would get answers of both; so it is tried first whether the port is free.
            with socket.socket(family, kind, number) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise InputError(
            f"{host}:{port} cannot be taken: {error.strerror}. Choose another with {option}; 0 takes any free one."
        ) from error
    listening.set_inheritable(True)
    return listening

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
from typing import Any

from flyweight.errors import EngineError, FlyweightError
from flyweight.serving.beginning import begin_rollouts
from flyweight.serving.bound_port import bind_socket
from flyweight.serving.changes import Changes
from flyweight.serving.gathering import Gathering
from flyweight.serving.identity import hash_of_file
from flyweight.serving.refusal import Refusal
from flyweight.serving.seats import ABSENT, make_seats
from flyweight.serving.settings import Settings, settings_to_json
from flyweight.serving.state_folder import StateFolder
from flyweight.serving.wire import Gone, Wire

logger = logging.getLogger("flyweight.serving")
#: Seconds that a worker may take to end after its own time to drain.
ENDING_SECONDS = 35.0
#: A worker that took requests for as long was sound, and is replaced at once; of others that die, each next one is
#: started later, up to the longest pause.
SOUND_SECONDS, LONGEST_PAUSE = 1.0, 5.0
#: Starts of a worker that may fail, one after the other, while no other takes requests: callers who wait for one that
#: cannot come are better refused, and whatever runs the service told, so that it begins anew.
TRIES = 5
#: Seconds between two presses of Ctrl-C that mean two.
TWICE_SECONDS = 1.0
#: What a terminal sends to all processes that it started; workers do what the process above them says.
_FROM_TERMINALS = {signal.SIGINT, signal.SIGHUP}


@dataclass
class Worker:
    """A process that serves.

    Args:
        process: it.
        place: which of the workers it is.
        wire: to it.
        listens: ends with the wire.
        ready: whether it takes requests.
        since: `time.monotonic()` of when it began to.
    """

    process: asyncio.subprocess.Process
    place: int
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
        self._seats = make_seats(settings.workers)
        self._lost: set[int] = set()
        self._ending = asyncio.Event()
        self._told = 0.0

    async def run(self) -> int:
        """Serve until SIGTERM, Ctrl-C or the end of the terminal, then end when every accepted request is answered.

        Returns:
            How many workers ended otherwise, then or before; what they were answering is lost.

        Raises:
            FlyweightError: the port is taken, a bundle is bad at the start, or no worker is left and none can start.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_end, "SIGTERM")
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(signal.SIGHUP, self._told_to_end, "SIGHUP")
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
        return len(self._lost)

    def _interrupt(self) -> None:
        """End; told so again, a moment later, cut off what is still being answered."""
        now = time.monotonic()
        if self._told and now - self._told > TWICE_SECONDS:
            logger.error("Told to end for the second time: what is being answered is cut off.")
            for worker in self._workers:
                _kill(worker)
        self._told = self._told or now
        self._told_to_end("SIGINT")

    def _told_to_end(self, how: str) -> None:
        if self._taking() and not self._ending.is_set():
            words = "%s: not ready from now on; requests are answered for %g s more (--drain), then the service ends."
            logger.info(words, how, self.settings.drain_seconds)
        self._ending.set()

    def _read_state(self, held: contextlib.ExitStack) -> None:
        """Find out what to begin with; the state folder is held until the service ends."""
        folder = None if self.settings.state is None else StateFolder(Path(self.settings.state))
        if folder is not None:
            held.callback(folder.close)
        path = self.settings.vocabulary
        vocabulary = "" if path is None else hash_of_file(Path(path)) or ""  # the workers tell of one that is not there
        rollouts = begin_rollouts(self.settings.sources, {} if folder is None else folder.read(), vocabulary)
        self.changes = Changes(rollouts, self._taking, self.settings.keep, folder)

    async def _serve(self, listening: socket.socket) -> None:
        keepers = [asyncio.create_task(self._keep(listening, one)) for one in range(self.settings.workers)]
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

    async def _keep(self, listening: socket.socket, place: int) -> None:
        """Keep one worker running.

        Raises:
            FlyweightError: it cannot start at first, or time and again while no other takes requests.
        """
        pause, tries, was_ready = 0.0, 0, False
        while not self._ending.is_set():
            begun = await self._begin(listening, place)
            if isinstance(begun, Worker):
                tries, was_ready = 0, True
                sound = await self._outlive(begun)
            elif self._ending.is_set():
                return
            else:
                tries, sound = tries + 1, False
                if not was_ready:
                    raise begun
                if tries >= TRIES and not self._taking():
                    raise EngineError(f"No worker is left, and none can start in {tries} tries: {begun}")
                logger.error("A worker could not start again: %s", begun)
            pause = 0.0 if sound else min(max(2 * pause, 0.1), LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _begin(self, listening: socket.socket, place: int) -> Worker | FlyweightError:
        """Return a worker that takes requests, or why there is none."""
        try:
            worker = await self._spawn(listening, place)
        except OSError as error:  # no memory, or no process more
            return EngineError(f"A worker's process cannot be started: {error.strerror}.")
        try:
            await self._start(worker)
        except FlyweightError as error:
            worker.listens.cancel()  # a worker whose wire is closed ends
            code = await worker.process.wait()
            self._forget(worker)
            if isinstance(error, Gone):
                return EngineError(f"Worker {worker.process.pid} {_ended(code)} before it took requests.")
            return error
        return worker

    async def _outlive(self, worker: Worker) -> bool:
        """Return, once a worker has ended, whether it was sound."""
        code = await worker.process.wait()
        self._forget(worker)
        number = worker.process.pid
        if code:
            self._lost.add(number)
            logger.error("Worker %d %s; requests that it was answering are lost. Another starts.", number, _ended(code))
        elif not self._ending.is_set():
            logger.warning("Worker %d was told to end, and has answered what it accepted. Another starts.", number)
        return time.monotonic() - worker.since > SOUND_SECONDS

    def _forget(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self._seats.set(worker.place, ABSENT)

    async def _spawn(self, listening: socket.socket, place: int) -> Worker:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                files = (listening.fileno(), theirs.fileno(), self._seats.file)
                # -P: a file in the folder that the service was started in must not stand for one of Python's own.
                command = (sys.executable, "-P", "-m", "flyweight.serving.worker", *map(str, (*files, place)))
                signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINALS)  # until it can ignore them
                try:
                    process = await asyncio.create_subprocess_exec(*command, pass_fds=files)
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINALS)
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        wire = Wire({"change": self.changes.change, "collect": self._gathering.collect})
        await wire.open(ours)
        worker = Worker(process, place, wire, asyncio.create_task(wire.listen()))
        self._workers.append(worker)
        return worker

    async def _start(self, worker: Worker) -> None:
        changes, settings = self.changes, settings_to_json(self.settings)
        if self._taking() or changes.lock.locked():
            # Opening takes long, and a change, such as going back, should not wait for it, nor one worker for another.
            await worker.wire.ask("open", settings=settings, rollouts=_told(changes))
        async with changes.lock:  # what is served must not change between telling it and its being told of changes
            found = await worker.wire.ask(
                "start",
                settings=settings,
                rollouts=_told(changes),
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
        number, took = worker.process.pid, worker.ready or self._seats.taken(worker.place)
        try:
            async with asyncio.timeout(limit):
                if took:
                    with contextlib.suppress(Refusal):  # it was told by someone else too, and is gone
                        await worker.wire.ask("end")
                else:
                    _kill(worker)  # it accepted nothing yet
                worker.listens.cancel()  # a worker whose wire is closed ends
                await worker.process.wait()
        except TimeoutError:
            logger.error("Worker %d did not end within %.0f s and is killed.", number, limit)
            _kill(worker)
            await worker.process.wait()
        if took and worker.process.returncode:
            self._lost.add(number)


def _told(changes: Changes) -> list[dict[str, Any]]:
    return [asdict(rollout) for rollout in changes.rollouts.values()]


def _kill(worker: Worker) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        worker.process.kill()


def _ended(code: int) -> str:
    """Return how a process ended, in words.

    Example:
        >>> _ended(-9), _ended(3)
        ('was killed (SIGKILL; has the machine run out of memory?)', 'ended with code 3')
    """
    if code >= 0:
        return f"ended with code {code}"
    hint = "; has the machine run out of memory?" if -code == signal.SIGKILL else ""
    return f"was killed ({signal.Signals(-code).name}{hint})"

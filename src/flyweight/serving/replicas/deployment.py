"""Replicas of a service on the Ray cluster that this process is connected to: made, waited for, watched, taken down."""

import inspect
import logging
import threading
import time
import uuid
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from typing import Any

from flyweight.errors import EngineError, InputError, Interrupted
from flyweight.serving.http_server import LAST_SECONDS
from flyweight.serving.replicas.counting import end_counting
from flyweight.serving.replicas.replica import Replica, RepliesOfReplica
from flyweight.serving.replicas.scaling import Scaling
from flyweight.serving.served import open_bundle
from flyweight.serving.settings import Settings, address_of, settings_to_json

logger = logging.getLogger("flyweight.serving")
#: The name of the application and of its one deployment, in Ray's lists.
NAME = "flyweight"
#: Seconds between two looks at a replica, and until one that does not answer is replaced.
HEALTH_SECONDS, UNWELL_SECONDS = 2.0, 20.0
#: Tries of a replica's start until the deployment has failed.
TRIES = 3
#: Part of the replicas, and at least one, that a new version may have beside the old one's.
SURGE_PERCENT = 20
PAUSE_SECONDS = 0.2
#: Seconds that the port may take at least to answer, once the replicas run.
PORT_SECONDS = 10.0


def check_bundles(settings: Settings) -> Settings:
    """Open each bundle here, before anything of it runs on a cluster; return settings with their digests.

    Raises:
        FlyweightError: a bundle is damaged or its scores are not the model's.
    """
    sources = []
    for source in settings.sources:
        opened = open_bundle(source, settings)
        sources.append(replace(source.where_it_lies(), digest=opened.digest))
        opened.ranker.close()
    return replace(settings, sources=tuple(sources))


def deploy(settings: Settings, scaling: Scaling) -> str:
    """Begin to make replicas, or to replace those of an earlier deployment, one part after another.

    Returns:
        A mark that tells this deployment's replicas from those of another.

    Raises:
        EngineError: Ray Serve does not start.
    """
    from ray import serve

    mark = uuid.uuid4().hex
    http = {
        "host": settings.host,
        "port": settings.port,
        "request_timeout_s": settings.limits.deadline_ms / 1e3 + settings.read_seconds + LAST_SECONDS,
    }
    try:
        serve.start(http_options=http, logging_config=LOGGING)
        target = serve.RunTarget(_application(settings, scaling, mark), name=NAME, logging_config=LOGGING)
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    except Exception as error:  # Ray raises what it likes: the actors' own errors, ValueError, RuntimeError
        raise EngineError(f"Ray Serve did not take the deployment: {in_words(str(error))}") from error
    return mark


LOGGING = {"log_level": "WARNING", "enable_access_log": False}


def _application(settings: Settings, scaling: Scaling, mark: str) -> Any:
    from ray import serve

    made = serve.ingress(RepliesOfReplica())(Replica)
    takes = inspect.signature(serve.deployment).parameters
    surge = {"max_surge_percent": SURGE_PERCENT} if "max_surge_percent" in takes else {}
    ongoing = max(settings.limits.queue + settings.limits.batch_requests, int(scaling.ongoing) + 1)
    deployment = serve.deployment(
        name=NAME,
        num_replicas=None,
        autoscaling_config={
            "min_replicas": scaling.least,
            "initial_replicas": scaling.least,
            "max_replicas": scaling.most,
            "target_ongoing_requests": scaling.ongoing,
            "upscale_delay_s": scaling.up_seconds,
            "downscale_delay_s": scaling.down_seconds,
            "look_back_period_s": scaling.looked_back,
        },
        ray_actor_options={"num_cpus": scaling.cores},
        max_ongoing_requests=ongoing,  # the queue of a replica is ours: it refuses with a hint when to come again
        max_queued_requests=settings.limits.queue,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=UNWELL_SECONDS,
        graceful_shutdown_wait_loop_s=max(settings.drain_seconds, 0.1),
        graceful_shutdown_timeout_s=settings.drain_seconds + LAST_SECONDS,
        max_constructor_retry_count=TRIES,
        **surge,
    )(made)
    threads = settings.threads or scaling.threads
    return deployment.bind(settings_to_json(replace(settings, threads=threads)), mark)


def wait_until_answering(settings: Settings, seconds: float, told: threading.Event, *, replacing: bool) -> None:
    """Return once every replica asked for is warm and the port answers.

    Args:
        seconds: that replicas may take.
        told: set where the user wants no more of it.
        replacing: whether replicas of an earlier deployment go on meanwhile; a first deployment that fails is removed.

    Raises:
        EngineError: a replica cannot start, or not in time; with what it or Ray says.
        InputError: replicas run, and not at this port.
        Interrupted: told to end.
    """
    end = time.monotonic() + seconds
    while True:
        status, words = state()
        if status == "RUNNING":
            break
        late, failed = time.monotonic() > end, status == "DEPLOY_FAILED"
        if failed or late or told.is_set():
            left = "Replicas of before go on answering where they still run." if replacing else "Nothing was left."
            if not replacing:
                take_down(settings.drain_seconds)
            if told.is_set():
                raise Interrupted(f"Stopped before the replicas were ready. {left}")
            what = "A replica cannot start" if failed else f"Replicas are not ready after {seconds:g} s"
            raise EngineError(f"{what}: {words or status} {left}")
        time.sleep(PAUSE_SECONDS)
    try:
        _wait_for_port(settings, max(end, time.monotonic() + PORT_SECONDS))
    except InputError:
        if not replacing:  # nobody would know of replicas that no caller reaches
            take_down(settings.drain_seconds)
        raise


def _wait_for_port(settings: Settings, end: float) -> None:
    """Return once a replica answers through the proxy.

    Raises:
        InputError: none does; Ray Serve listens where it was first told to.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    while time.monotonic() < end:
        connection = HTTPConnection(host, settings.port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(PAUSE_SECONDS)
    raise InputError(
        f"Replicas run, and nothing answers at {address_of(settings.host, settings.port)}. Ray Serve listens where it "
        "was told when it started in this cluster: give --host and --port of then, or end it (`serve shutdown`) first."
    )


def state() -> tuple[str, str]:
    """Return the application's status, "" where there is none, and what Ray says to it."""
    found = _listed()
    if found is None:
        return "", ""
    said = [found.message, *(one.message for one in found.deployments.values())]
    return found.status.value, in_words(next((one for one in reversed(said) if one), ""))


def replicas() -> dict[str, int]:
    """Return how many replicas are in each of Ray's states, such as RUNNING or STARTING."""
    found = _listed()
    if found is None or NAME not in found.deployments:
        return {}
    return {str(getattr(key, "value", key)): count for key, count in found.deployments[NAME].replica_states.items()}


def is_there(mark: str | None = None) -> bool:
    """Return whether the application is there, and where a mark is given, whether it is still that deployment's.

    Once a deployment runs, Ray calls it DEPLOYING only where another takes its place; replicas that are replaced or
    added do not change that.
    """
    from ray import serve

    status = state()[0]
    if mark is None or status in ("", "DEPLOYING", "DELETING"):
        return mark is None and bool(status)
    try:
        seen = serve.get_deployment_handle(NAME, NAME).mark.remote().result(timeout_s=UNWELL_SECONDS)
    except Exception:  # whatever Ray raises: no replica answers now, and the next look asks again
        return True
    return bool(seen == mark)


def take_down(drain_seconds: float, mark: str | None = None) -> None:
    """End the replicas, once what they have accepted is answered; and Ray Serve, where no other application is left.

    Args:
        drain_seconds: how long replicas look for requests under way.
        mark: of the deployment to end, so that a later one is left alone; None ends whichever is there.
    """
    from ray import serve

    failed: list[Exception] = []

    def end() -> None:
        try:
            if is_there(mark):
                serve.delete(NAME)
                end_counting()
                if not serve.status().applications:
                    serve.shutdown()
        except Exception as error:  # a cluster that is ending raises what it likes
            failed.append(error)

    seconds = drain_seconds + LAST_SECONDS + 10
    ending = threading.Thread(target=end, daemon=True)  # Ray waits without end for a cluster that is gone
    ending.start()
    ending.join(seconds)
    if ending.is_alive():
        logger.error("The replicas have not ended after %g s; `serve shutdown` ends what is left.", seconds)
    elif failed:
        logger.error("The replicas could not be ended: %s", in_words(str(failed[0])))


def in_words(said: str) -> str:
    """Return what a replica raised, out of what Ray wraps around it, or Ray's own words on one line.

    Example:
        >>> in_words("failed 3 times. Traceback ...\\nflyweight.errors.EngineError: Node 10.0.0.7: no disk.\\n")
        'Node 10.0.0.7: no disk.'
    """
    ours = [line.partition(": ")[2] for line in said.splitlines() if line.startswith("flyweight.")]
    return ours[-1] if ours else " ".join(said.split())[:600]


def _listed() -> Any:
    from ray import serve

    return serve.status().applications.get(NAME)

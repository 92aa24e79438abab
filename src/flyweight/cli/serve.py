"""The verb `serve`: bundles as a service."""

import asyncio
import contextlib
import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli.display import out
from flyweight.errors import InputError

if TYPE_CHECKING:
    from flyweight.serving.replicas.scaling import Scaling
    from flyweight.serving.settings import Settings

#: What serving over a network needs and scoring in a process does not.
NEEDED = ("starlette", "uvicorn", "httptools", "uvloop", "orjson", "prometheus_client")
EXTRA = "pip install 'flyweight[serve]'"


def serve(
    bundles: Annotated[list[str], typer.Argument(help="bundles, each PATH or NAME=PATH")],
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0 for all of this machine")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="for HTTP; 0 for any free one")] = 8000,
    grpc_port: Annotated[int | None, typer.Option(help="for gRPC; 0 for any free one, none otherwise")] = None,
    workers: Annotated[int, typer.Option(help="processes; they share one copy of the tables")] = 1,
    threads: Annotated[int | None, typer.Option(help="an engine's threads for one call; as recorded otherwise")] = None,
    engine: Annotated[str | None, typer.Option(help="instead of the one that was fastest")] = None,
    max_candidates: Annotated[int, typer.Option(help="candidates in one request")] = 10_000,
    max_batch: Annotated[int, typer.Option(help="candidates of all requests that are scored together")] = 4096,
    max_batch_requests: Annotated[int, typer.Option(help="requests that are scored together")] = 32,
    max_wait_us: Annotated[int, typer.Option(help="microseconds that a request waits for others to join it")] = 0,
    queue: Annotated[int, typer.Option(help="requests that may wait, for each model and worker")] = 1024,
    deadline_ms: Annotated[float, typer.Option(help="a request that waited longer is refused, not scored")] = 1000.0,
    standing_ms: Annotated[
        float, typer.Option(help="milliseconds of work that wait at most where a queue has stood for three seconds")
    ] = 50.0,
    max_body: Annotated[int, typer.Option(help="bytes of one request")] = 16 * 2**20,
    read_timeout: Annotated[float, typer.Option(help="seconds within which a request must have come whole")] = 10.0,
    drain: Annotated[float, typer.Option(help="seconds of answering on, after SIGTERM, while not ready")] = 1.0,
    vocabulary: Annotated[
        Path | None, typer.Option(help="raw values, before the bundles' own: JSON, {input: {value: id}}")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="bearer tokens, a line each: TOKEN [EXPIRES]")] = None,
    admin_token_file: Annotated[Path | None, typer.Option(help="of those who may change what is served")] = None,
    certificate: Annotated[Path | None, typer.Option(help="for TLS, PEM; also for gRPC")] = None,
    key: Annotated[Path | None, typer.Option(help="of the certificate, PEM")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", metavar="", help="let a network use the service without tokens")
    ] = False,
    log_format: Annotated[str, typer.Option(help="json, text, or auto: text for a terminal")] = "auto",
    access_log: Annotated[float, typer.Option(help="share of answered requests to log, with all refused")] = 0.0,
    telemetry: Annotated[
        bool, typer.Option("--telemetry", metavar="", help="send traces to OpenTelemetry's collector")
    ] = False,
    keep: Annotated[int, typer.Option(help="versions that answered before and stay in memory for going back")] = 1,
    state: Annotated[Path | None, typer.Option(help="folder that keeps versions and traffic over a restart")] = None,
    shard: Annotated[
        list[str] | None,
        typer.Option(help="of a sharded bundle, HOST:PORT of a server, or NAME=HOST:PORT; once for each, in order"),
    ] = None,
    missing: Annotated[
        str, typer.Option(help="while a shard is away: refuse requests, or degrade: score with stand-ins and say so")
    ] = "refuse",
    shard_timeout: Annotated[float, typer.Option(help="seconds that a request waits for its shards")] = 1.0,
    ray: Annotated[bool, typer.Option("--ray", metavar="", help="serve by replicas on Ray Serve")] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster's head, or auto; none starts one of this machine")
    ] = None,
    min_replicas: Annotated[int, typer.Option(help="on Ray: replicas at least")] = 1,
    max_replicas: Annotated[int | None, typer.Option(help="on Ray: replicas at most; as many as at least")] = None,
    target_ongoing: Annotated[float, typer.Option(help="on Ray: requests under way that a replica should have")] = 2.0,
    scale_up_after: Annotated[
        float, typer.Option(help="on Ray: seconds of too many requests until replicas are added")
    ] = 30.0,
    scale_down_after: Annotated[
        float, typer.Option(help="on Ray: seconds of too few requests until replicas are taken away")
    ] = 600.0,
    replica_cores: Annotated[float, typer.Option(help="on Ray: cores that a replica reserves, its threads")] = 1.0,
    detach: Annotated[
        bool, typer.Option("--detach", metavar="", help="on Ray: return once replicas answer, leave them")
    ] = False,
) -> None:
    """Serve bundles: Open Inference Protocol v2 over HTTP, and POST /v1/rank."""
    needed = NEEDED if grpc_port is None else (*NEEDED, "grpc")
    lacking = next((name for name in needed if importlib.util.find_spec(name) is None), None)
    if lacking is not None:
        raise InputError(f"Serving over a network needs {lacking}: {EXTRA}")
    from flyweight.serving.lane import Limits
    from flyweight.serving.security import Security
    from flyweight.serving.settings import Settings, sources_of
    from flyweight.serving.shard_policy import ShardPolicy
    from flyweight.serving.watching_settings import Watching

    settings = Settings(
        sources=sources_of(bundles, shard or ()),
        host=host,
        port=port,
        grpc_port=grpc_port,
        workers=workers,
        threads=threads,
        engine=engine,
        limits=Limits(max_batch, max_batch_requests, max_wait_us, queue, deadline_ms, standing_ms),
        max_candidates=max_candidates,
        max_body=max_body,
        read_seconds=read_timeout,
        drain_seconds=drain,
        vocabulary=_path(vocabulary),
        security=Security(_path(token_file), _path(admin_token_file), _path(certificate), _path(key), insecure),
        watching=Watching(log_format, access_log, telemetry),
        keep=keep,
        state=None if state is None else str(state.resolve()),
        shard_policy=ShardPolicy(missing, shard_timeout),  # type: ignore[arg-type]
    )
    from flyweight.serving.replicas.scaling import Scaling

    most = min_replicas if max_replicas is None else max_replicas
    scaling = Scaling(min_replicas, most, target_ongoing, replica_cores, scale_up_after, scale_down_after)
    if not (ray or ray_address):
        if detach or scaling != Scaling():
            raise InputError(
                "--min-replicas, --max-replicas, --target-ongoing, --replica-cores, --scale-up-after, "
                "--scale-down-after and --detach are of replicas on Ray: add --ray, or give --workers for processes of "
                "this machine."
            )
        run_service(settings)
        return
    run_replicas(settings, scaling, ray_address, detach=detach)


def run_replicas(settings: "Settings", scaling: "Scaling", address: str | None, *, detach: bool) -> None:
    """Serve by replicas on Ray until told to end; says where, once requests are taken."""
    from flyweight.serving.replicas.run import serve_on_ray
    from flyweight.serving.request_log import start_logging

    start_logging(settings.watching.log_format, "ray")
    _check_security(settings)
    most = f" to {scaling.most}" if scaling.most > scaling.least else ""
    many = "replica" if scaling.least == scaling.most == 1 else "replicas"
    serve_on_ray(
        settings,
        scaling,
        address,
        lambda told: _say_ready(told, f"{scaling.least}{most} {many} on Ray"),
        detach=detach,
    )
    _say("The replicas are left running." if detach else "Ended.")


def _check_security(settings: "Settings") -> None:
    """Warn of what is open to a network; a bad file of tokens is told before anything starts."""
    from flyweight.serving.access import Access, check_binding

    for warning in check_binding(settings.host, settings.security):
        logging.getLogger("flyweight.serving").warning(warning)
    Access(settings.security)


def _path(given: Path | None) -> str | None:
    return None if given is None else str(given.resolve())


def run_service(settings: "Settings") -> None:
    """Serve until told to end; says where, once requests are taken."""
    from flyweight.serving.request_log import start_logging
    from flyweight.serving.supervisor import Supervisor
    from flyweight.serving.tls import check_certificate
    from flyweight.serving.tracing import check_tracing

    start_logging(settings.watching.log_format, "supervisor")
    _check_security(settings)
    if settings.security.tls is not None:
        check_certificate(*settings.security.tls)
    if settings.watching.telemetry:
        check_tracing()

    async def run() -> int:
        return await Supervisor(settings, _say_ready).run()

    lost = asyncio.run(run())
    if lost:
        _say(f"Ended; {lost} worker{'' if lost == 1 else 's'} did not end in order, what they answered is lost.")
    else:
        _say("Ended; every request that was accepted is answered.")


def _say_ready(settings: "Settings", processes: str = "") -> None:
    from flyweight.serving.settings import address_of

    names = ", ".join(source.model for source in settings.sources)
    processes = processes or f"{settings.workers} worker{'' if settings.workers == 1 else 's'}"
    grpc = "" if settings.grpc_port is None else f", gRPC at {address_of(settings.host, settings.grpc_port)}"
    where = address_of(settings.host, settings.port)
    scheme = "http" if settings.security.tls is None else "https"
    _say(f"Serving {names} at {scheme}://{where}{grpc} with {processes}")


def _say(words: str) -> None:
    with contextlib.suppress(OSError):  # a full disk behind what it says must not end a service
        out.print(words, markup=False)

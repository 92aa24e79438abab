"""Whether every node of a cluster sees the bundles that replicas will open there, and runs this version of Flyweight.

Bundles are not sent: a node opens them at the path where they lie here, so that tables are mapped from the disk once a
node, whatever its replicas.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flyweight
from flyweight.bundle.manifest import MANIFEST
from flyweight.errors import InputError
from flyweight.serving.settings import Settings

#: Seconds until every node must have answered; the first task of a node begins a process there.
PATIENCE_SECONDS = 60.0
#: What a replica needs beside Flyweight itself.
PACKAGES = ("starlette", "orjson")


def check_nodes(settings: Settings) -> None:
    """Ask every node with a core, of the cluster that this process is connected to.

    Raises:
        InputError: a node lacks a bundle, has another one at its path, runs another version, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    due = hashes_of(files_of(settings))
    look = ray.remote(num_cpus=0, max_retries=2)(sent_as_it_is())
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            list(due), PACKAGES
        ): node["NodeManagerAddress"]
        for node in nodes
    }
    if not asked:
        raise InputError("The cluster has no node with a core; add one: ray start --address=HOST:PORT")
    done, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE_SECONDS)
    if waiting:
        silent = ", ".join(sorted(asked[one] for one in waiting))
        raise InputError(f"Nodes of the cluster begin no task within {PATIENCE_SECONDS:g} s: {silent}.")
    for one in done:
        check_told(asked[one], ray.get(one), due)


def check_told(node: str, told: Mapping[str, Any], due: Mapping[str, str]) -> None:
    """Refuse a node by what it has told.

    Raises:
        InputError: says what it lacks, and what to do.
    """
    if told["version"] != flyweight.__version__:
        seen = f"Flyweight {told['version']}" if told["version"] else "no Flyweight"
        raise InputError(f"Node {node} has {seen}; here it is {flyweight.__version__}. Install the same on both.")
    if told["lacking"]:
        raise InputError(f"Node {node} lacks {', '.join(told['lacking'])}: pip install 'flyweight[serve,ray]' there.")
    for path, digest in due.items():
        seen = told["hashes"][path]
        if seen.startswith("!"):
            raise InputError(
                f"Node {node} cannot read {path} ({seen[1:]}). Replicas open a bundle at the path where it lies here: "
                "put it where every node sees it under that path, such as a shared disk or the nodes' image."
            )
        if seen != digest:
            raise InputError(
                f"Node {node} has another file at {path}: hash {seen[:12]}, here {digest[:12]}. Replicas would not all "
                "serve the same; copy the bundle there anew, or use a shared disk."
            )


def files_of(settings: Settings) -> list[str]:
    """Return the files that stand for all that a replica opens: a manifest holds the hashes of its bundle's others."""
    files = [str(Path(source.path) / MANIFEST) for source in settings.sources]
    return files if settings.vocabulary is None else [*files, settings.vocabulary]


def hashes_of(files: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each file.

    Raises:
        OSError: one cannot be read.
    """
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files}


def sent_as_it_is() -> Any:
    """Return what a node is asked; made within a function, Ray sends its code and not its name.

    So it runs where there is no Flyweight, and can say so.
    """

    def look(files: list[str], packages: tuple[str, ...]) -> dict[str, Any]:
        import hashlib
        import importlib.util

        hashes = {}
        for path in files:
            try:
                with open(path, "rb") as file:
                    hashes[path] = hashlib.sha256(file.read()).hexdigest()
            except OSError as error:
                hashes[path] = f"!{error.strerror}"
        lacking = [name for name in packages if importlib.util.find_spec(name) is None]
        try:
            import flyweight

            version = flyweight.__version__
        except ImportError:
            version = ""
        return {"version": version, "lacking": lacking, "hashes": hashes}

    return look

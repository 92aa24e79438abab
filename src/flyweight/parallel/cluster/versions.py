"""Whether the nodes of a cluster run what this process runs: results are the same only where versions are."""

from typing import Any

from flyweight.errors import InputError

#: Seconds until every node must have told its versions; the first task of a node begins a process there.
PATIENCE = 120.0


def check_versions(address: str) -> None:
    """Ask every node of the cluster that this process is connected to.

    Raises:
        InputError: a node has other versions, or lacks Flyweight, or does not answer; names node and versions.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    told = ray.remote(num_cpus=0, max_retries=2)(_sent_as_it_is())
    asked = {
        told.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)).remote(): node
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    }
    done, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
    if waiting:
        silent = ", ".join(asked[ref]["NodeManagerAddress"] for ref in waiting)
        raise InputError(f"Nodes of the cluster at {address} begin no task within {PATIENCE:.0f} s: {silent}.")
    for ref in done:
        check_same(f"Node {asked[ref]['NodeManagerAddress']} of the cluster at {address}", ray.get(ref))


def check_same(who: str, theirs: dict[str, str]) -> None:
    """Refuse versions other than this process's.

    Raises:
        InputError: with both, by name.
    """
    mine = _sent_as_it_is()()
    other = [name for name in mine if theirs.get(name) != mine[name]]
    if not other:
        return
    differ = "; ".join(f"{name} {theirs.get(name) or 'not installed'} there, {mine[name]} here" for name in other)
    raise InputError(f"{who} runs other versions than this process: {differ}. Install the same on both.")


def _sent_as_it_is() -> Any:
    """Return what tells a node's versions; made within a function, Ray sends its code and not its name.

    So it runs where there is no Flyweight, and can say so.
    """

    def told() -> dict[str, str]:
        import importlib
        import platform

        found = {"Python": ".".join(platform.python_version_tuple()[:2])}
        for name, package in (("Ray", "ray"), ("PyTorch", "torch"), ("Flyweight", "flyweight")):
            try:
                found[name] = str(importlib.import_module(package).__version__)
            except ImportError:
                found[name] = ""
        return found

    return told

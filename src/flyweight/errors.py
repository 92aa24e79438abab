"""What can go wrong, as few kinds: each message says what is wrong, what was seen and what to do."""


class FlyweightError(Exception):
    """The parent of every error that Flyweight raises on purpose."""


class InputError(FlyweightError, ValueError):
    """The user's model, data, budget or arguments cannot be used as they are."""


class ExportError(FlyweightError):
    """A model could not be written as ONNX, or an engine cannot run what was written."""


class EngineError(FlyweightError):
    """An inference engine is missing, refused a model or failed while running it."""


class BundleError(FlyweightError):
    """A bundle is damaged, incomplete, of a newer format, or not to be trusted."""


class ShardError(FlyweightError):
    """A server of a sharded bundle is away, slow, holds another bundle's rows, or answers what no server may."""


class Interrupted(FlyweightError, KeyboardInterrupt):  # noqa: N818
    """The user stopped the work; `saved` says where the best result so far lies, if anywhere."""

    def __init__(self, message: str, saved: str | None = None) -> None:
        super().__init__(message)
        self.saved = saved

"""Everything that can go wrong in zcat and is not a bug.

One tree. Each class has a stable ``code``, which is part of the wire protocol, of the JSON of the REST
API and of the documentation: never reuse one. ``ERROR_OF_CODE`` turns a code that came by wire back into
its class. HTTP statuses are in ``zcat.http.problems``, exit codes in ``zcat.cli.exits``: both are tables
over this tree, and a test compares.

Every message says what was wanted, what came, and, where there is something to do, what to do.
"""


class ZcatError(Exception):
    """An expected failure."""

    code = "failed"

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self.args[0]) if self.args else self.__class__.__name__


# -- what was asked for ------------------------------------------------------------------------------


class BadRequest(ZcatError, ValueError):
    """An argument has a form or a value that nobody can serve."""

    code = "bad-request"


class BadName(BadRequest):
    """A root name, dataset path or endpoint breaks the rules of ``zcat.names``."""

    code = "bad-name"


class BadSelection(BadRequest, IndexError):
    """A slice, index or mask does not fit the dataset."""

    code = "bad-selection"


class TooLarge(BadRequest):
    """An answer, message or request is larger than a limit; the message names the limit."""

    code = "too-large"


class BadConfig(BadRequest):
    """A configuration file or a flag says something that cannot be."""

    code = "bad-config"


class NotFound(ZcatError, LookupError):
    """Nothing has that name."""

    code = "not-found"

    def __str__(self) -> str:  # LookupError's subclasses like KeyError quote their text; this one never does
        return self.message


class RootUnknown(NotFound):
    """No broker lists the root, and nothing of it is cached."""

    code = "root-unknown"


class RootContested(ZcatError):
    """Two publishers claim the root; name one as ``root@owner``."""

    code = "root-contested"


class RootNotFollowed(NotFound):
    """The subscriber knows the root and does not follow it."""

    code = "root-not-followed"


class DatasetUnknown(NotFound):
    """The root has no dataset of that path."""

    code = "dataset-unknown"


class NotReadable(ZcatError):
    """The dataset is listed, but its content cannot be offered; the message says why."""

    code = "not-readable"


# -- peers and time ----------------------------------------------------------------------------------


class BadMessage(ZcatError):
    """A peer sent frames that the protocol does not allow. Its fault, not ours."""

    code = "bad-message"
    request = 0
    """The ``id`` of the message, as far as it could be read."""


class VerbUnknown(BadMessage):
    """A peer asked for something that this version of the protocol does not know."""

    code = "verb-unknown"

    def __init__(self, message: str, request: int = 0) -> None:
        super().__init__(message)
        self.request = request


class Stale(ZcatError):
    """The dataset is no longer the version that was asked for; ask for its info again."""

    code = "stale"


class Busy(ZcatError):
    """A limit of a peer is reached, or a file is being written; the same request may succeed later."""

    code = "busy"


class Unavailable(ZcatError):
    """What is wanted is not in the cache, and nobody who has it can be reached."""

    code = "unavailable"


class Timeout(Unavailable, TimeoutError):
    """No answer came in the time that was given."""

    code = "timeout"


class Closed(ZcatError):
    """The service, or this side's handle on it, is closed."""

    code = "closed"


# -- content and disks -------------------------------------------------------------------------------


class BadContent(ZcatError):
    """A file is not what its name says, or is damaged or hostile."""

    code = "bad-content"


class BadChunk(BadContent):
    """A chunk's digest is wrong, or its header does not agree with the dataset. It was never decoded."""

    code = "bad-chunk"


class CacheInUse(ZcatError):
    """Another process works on the same state or cache folder."""

    code = "cache-in-use"


class StorageFailed(ZcatError, OSError):
    """The local disk refused: full, over quota, read-only, or broken."""

    code = "storage-failed"


class AddressInUse(ZcatError, OSError):
    """An address cannot be bound: somebody else has it, or it is not this host's."""

    code = "address-in-use"


def _family(cls: type[ZcatError]) -> list[type[ZcatError]]:
    return [cls, *(heir for child in cls.__subclasses__() for heir in _family(child))]


ERROR_OF_CODE: dict[str, type[ZcatError]] = {cls.code: cls for cls in _family(ZcatError)}
"""Class of each code; a code of a newer version, not in here, is a plain ``ZcatError``."""


def error_of(code: str, message: str) -> ZcatError:
    """Make the error that a peer reported."""
    error = ERROR_OF_CODE.get(code, ZcatError)(message)
    if error.code != code:
        error.code = code
    return error

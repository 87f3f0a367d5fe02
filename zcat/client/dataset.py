"""What all datasets have in common: a description, one version for each read, a file to keep."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

from zcat.client import downloads
from zcat.client.backend import Address, Asked, Backend, BodyCut
from zcat.errors import BadSelection, Stale
from zcat.model.dataset import DatasetInfo, Kind

T = TypeVar("T")

ATTEMPTS_MAX = 4
"""Versions that a read is tried on before it gives up."""

_SUFFIXES = {Kind.ARRAY: ".b2nd", Kind.FRAME: ".b2frame"}


class Dataset:
    """A dataset of a root: an `Array`, or a `ByteFrame`.

    Its shape and dtype are those of the version that was newest when it was opened, and change only by
    `refresh`. Each read sees one version, from its first item to its last:

    - Items that are appended along axis 0 do not disturb: what was visible stays, and `refresh` shows more.
    - If the dataset is rewritten in the same form (shape and dtype), the next read sees the new content, and
      `version` says so. If the form is another one, the read raises `Stale`, and `refresh` shows the new form.
    - What several reads see may differ. `pin` makes a dataset that reads one lineage only, and raises `Stale` once
      that is gone. Give pinned ones to whoever reads piece by piece: ``dask.array.from_array(ds.pin())``.

    A dataset can be pickled if it was opened by HTTP: URL, address and description travel, no content. What
    arrives is pinned, so that a worker reads what the sender saw, or fails.

    Example:
        >>> ds = zcat.connect()["weather/2024/wind.b2nd"]
        >>> ds.nbytes, ds.attrs.get("units")
    """

    def __init__(self, backend: Backend, address: Address, info: DatasetInfo, pinned: bool = False) -> None:
        """Usually called by `Client` and `Root`, as ``client["root/path"]``."""
        self._backend = backend
        self._address = address
        self._info = info
        self._pinned = pinned

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._backend, self._address, self._info, True)

    @property
    def info(self) -> DatasetInfo:
        """All that is known of this version besides its content: geometry, compression, attributes."""
        return self._info

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes by name; cannot be written. Over HTTP, NaN and infinities in them have become None."""
        return MappingProxyType(self._info.attributes)

    @property
    def address(self) -> str:
        """``root/path``, as `Client` takes it."""
        return str(self._address)

    @property
    def root(self) -> str:
        """Name of its root."""
        return self._address.root

    @property
    def path(self) -> str:
        """In its root, with slashes."""
        return self._address.path

    @property
    def name(self) -> str:
        """Last component of the path."""
        return self.path.rpartition("/")[2]

    @property
    def file_name(self) -> str:
        """Its name as a file: with the suffix of what a download is, which one in an HDF5 file lacks."""
        suffix = _SUFFIXES.get(self.kind, "")
        return self.name if self.name.endswith(suffix) else self.name + suffix

    @property
    def kind(self) -> Kind:
        """``Kind.ARRAY``, ``Kind.FRAME`` or ``Kind.FILE``."""
        return self._info.entry.kind

    @property
    def nbytes(self) -> int:
        """Bytes of the content, uncompressed."""
        return self._info.entry.nbytes

    @property
    def cbytes(self) -> int:
        """Bytes on the publisher's disk."""
        return self._info.entry.cbytes

    @property
    def version(self) -> str:
        """Names exactly what a read sees: ``lineage-length``."""
        return self._info.version.text

    @property
    def pinned(self) -> bool:
        """Reads of any other lineage than this one's raise `Stale`."""
        return self._pinned

    def pin(self) -> Self:
        """Return the same dataset, which reads the content of today or none.

        Example:
            >>> lazy = dask.array.from_array(ds.pin())
        """
        return type(self)(self._backend, self._address, self._info, pinned=True)

    def refresh(self) -> bool:
        """Take over shape, attributes and version of the newest version; a pinned dataset is pinned to that.

        Returns:
            True if the version is another one than before.

        Raises:
            DatasetUnknown: it is gone.
            Stale: it is of another kind now; open it again.
            Unavailable, Timeout: the subscriber cannot be asked, or does not know.
        """
        now = self._backend.info(self._address)
        if (now.geometry.array is None) is not (self._info.geometry.array is None):
            raise Stale(f"{self.address} was {self.kind.value} and is {now.entry.kind.value} now; open it again")
        is_other = now.version != self._info.version
        self._info = now
        return is_other

    def download(
        self,
        path: str | Path | None = None,
        *,
        resume: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Save the newest version as a file: arrays and frames as Blosc2 files, other files as they are.

        Args:
            path: the file, or a folder to put it in under its own name; by default the current one.
            resume: go on with what an interrupted download left there, if the version is still the same.
            progress: called now and then with the bytes that are there and those of the whole file.

        Returns:
            Where it is. The file appears there when it is complete.

        Raises:
            BadRequest: there is something at the place that is no file, such as a device.
            Busy: another process downloads to the same place.
            StorageFailed: the disk refused.
            Unavailable, Timeout, Stale: it was interrupted; another call goes on from there.

        Example:
            >>> ds.download("wind.b2nd", progress=lambda done, total: print(f"{done / total:.0%}"))
        """
        target = Path(path or ".")
        if target.is_dir():
            target /= self.file_name
        downloads.save(self._backend, self._address, target, resume, progress)
        return target

    def _on_one_version(self, info: DatasetInfo, read: Callable[[Asked], T]) -> T:
        """Run a read on the version that ``info`` describes, or if that is gone, on a later one of equal form."""
        for _ in range(ATTEMPTS_MAX):
            try:
                return read(Asked(self._address, info, self._pinned))
            except (Stale, BadSelection, BodyCut) as error:
                # The key was checked before. So whatever came, if the version is another one, that is the reason.
                info = self._moved_on(info, error)
        raise Stale(
            f"{self.address} changes faster than it can be read: {ATTEMPTS_MAX} versions were begun in vain"
        )

    def _moved_on(self, info: DatasetInfo, error: Exception) -> DatasetInfo:
        now = self._backend.info(self._address)
        if now.entry.lineage == info.entry.lineage:
            if not isinstance(error, Stale):
                raise error
            return info
        if self._pinned:
            raise Stale(f"{self.address} was rewritten since it was pinned; refresh() shows what it is now")
        if _form(now) != _form(info):
            raise Stale(f"{self.address} was rewritten in another shape or dtype; refresh() shows what it is now")
        self._info = now
        return now


def _form(info: DatasetInfo) -> tuple[object, ...]:
    entry = info.entry
    return entry.kind, entry.shape, entry.dtype, entry.nbytes, info.geometry.typesize

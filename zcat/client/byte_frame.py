"""Byte frames and files: bytes that are read where they are."""

from zcat.client.dataset import Dataset


class ByteFrame(Dataset):
    """A frame of bytes (``.b2frame``), or any other file.

    Example:
        >>> notes = zcat.connect()["weather/README.md"]
        >>> print(notes.text())
        >>> notes.read(0, 16)           # the first 16 bytes
    """

    def __len__(self) -> int:
        return self.nbytes

    def __bool__(self) -> bool:
        return True

    def __bytes__(self) -> bytes:
        return self.read()

    def __repr__(self) -> str:
        pinned = ", pinned" if self.pinned else ""
        return f"<zcat.ByteFrame {self.address} {self.nbytes} bytes{pinned}>"

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return "zcat.ByteFrame", self._backend.url, self.address, self.version

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Read the bytes from ``start`` to ``stop``, with the rules of slices: negative ones count from the end.

        Raises:
            Unavailable, Timeout: nobody who has them can be asked.
            Stale: as said at `Dataset`.
        """
        info = self._info
        first, last, _ = slice(start, stop).indices(info.entry.nbytes)
        if first >= last:
            return b""
        return bytes(self._on_one_version(info, lambda asked: self._backend.read_bytes(asked, first, last)))

    def text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Read all of it as text.

        Raises:
            UnicodeDecodeError: it is none.
        """
        return self.read().decode(encoding, errors)

"""Walk through a whole HDF5 file and tell what is there, without reading values. In worker processes only.

Every link is told. An object with several names is described once and told under each; a group is walked into
under the first one only, so that no circle is endless. What cannot be offered is told with its reason.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import blake3
from h5py import h5d, h5g, h5l, h5o, h5p

from zcat.errors import BadContent, BadName, NotReadable, ZcatError
from zcat.model.dataset import DIMENSIONS_MAX
from zcat.names import check_path, shown
from zcat.storage.hdf5.checks import check_storage, layout_of, plain_layout_of
from zcat.storage.hdf5.items import NODES_MAX, Item, Layout
from zcat.storage.hdf5.links import LINKS_MAX, Link, Object, links_of, open_child, target_of
from zcat.storage.hdf5.names import legal
from zcat.storage.hdf5.open_files import OpenFile
from zcat.storage.hdf5.types import Offer, fill_of, offer_of, raw_items

PLACED_CHUNKS_MAX = 1 << 17
"""Chunks that are looked at for ``Item.places``; a dataset with more counts as written whenever its file is."""

SHARED_MAX = 1 << 14
"""Datasets that are remembered in case they have other names; further ones are described under each name."""

_SENTENCE_MAX = 400

_FAILURES = (OSError, RuntimeError, ValueError, TypeError, KeyError, NotImplementedError, OverflowError)


def walk(file: OpenFile) -> Iterator[Item]:
    """Tell all groups and datasets, each group before what is in it; the first is the root group.

    Raises:
        BadContent: the file is damaged at its root.
    """
    yield from _Walk(file).items()


class _Walk:
    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._groups: dict[int, str] = {}
        self._shared: dict[int, Item] = {}
        self._left = NODES_MAX
        self._has_user_block = file.h5.userblock_size > 0
        self._offers: dict[bytes, Offer] = {}
        """Of the types that were met before, by their encoding; most datasets have one of a few."""

    def items(self) -> Iterator[Item]:
        try:
            root = h5o.open(self._file.h5.id, b"/")
            item = Item("", "/", "group", h5o.get_info(root).addr)
        except _FAILURES as error:
            raise BadContent(f"damaged at its root: {_said(error)}") from None
        self._groups[item.address] = "/"
        yield from self._group(root, item)

    def _group(self, group: h5g.GroupID, item: Item) -> Iterator[Item]:
        """Tell a group and all below it."""
        try:
            links, is_cut, is_ordered = links_of(group)
        except _FAILURES as error:
            yield dataclasses.replace(item, problem=f"damaged: {_said(error)}")
            return
        named, problem = _named(item, links)
        if is_cut or len(named) > self._left:
            problem = f"more than {NODES_MAX} names in the file, or {LINKS_MAX} in the group: the rest is left out"
        named = named[: self._left]
        self._left -= len(named)
        if problem is not None or is_ordered:
            item = dataclasses.replace(item, problem=problem, is_ordered=is_ordered)
        yield item
        for link, path, hdf5_path in named:
            yield from self._link(group, link, path, hdf5_path)

    def _link(self, group: h5g.GroupID, link: Link, path: str, hdf5_path: str) -> Iterator[Item]:
        target: tuple[str, ...] = ()
        try:
            target = target_of(group, link)
            found = open_child(group, link)
            address = link.address or h5o.get_info(found).addr
        except (ZcatError, *_FAILURES) as error:
            yield Item(path, hdf5_path, "dataset", link=target, problem=_said(error))
            return
        if not isinstance(found, h5g.GroupID):
            yield self._leaf(found, path, hdf5_path, address, target)
            return
        is_hard = link.kind == h5l.TYPE_HARD
        item = Item(path, hdf5_path, "group", address, link=target)
        # a soft link may be met before the group that it leads to, which is told where it lies
        first = self._groups.setdefault(address, hdf5_path) if is_hard else self._groups.get(address, *target)
        if is_hard and first == hdf5_path:
            yield from self._group(found, item)
        else:
            yield dataclasses.replace(item, note=f"another name of the group {shown(first, 300)}: see there")

    def _leaf(self, found: Object, path: str, hdf5_path: str, address: int, link: tuple[str, ...]) -> Item:
        known = self._shared.get(address)
        if known is not None:
            return dataclasses.replace(known, path=path, hdf5_path=hdf5_path, link=link)
        if isinstance(found, h5d.DatasetID):
            told = self._dataset(found)
        else:
            told = {"problem": "a named type, which has no values"}
        item = Item(path, hdf5_path, "dataset", address, link=link, **told)
        # PERF: whether it has other names only another question to HDF5 would tell, a tenth of the walk
        if len(self._shared) < SHARED_MAX:
            self._shared[address] = item
        return item

    def _dataset(self, dataset: h5d.DatasetID) -> dict[str, Any]:
        """Tell what a dataset is, as fields of its item; whatever is wrong with it becomes its problem."""
        known: dict[str, Any] = {}
        parts: list[object] = []
        try:
            stored = dataset.get_type()
            code = stored.encode()
            parts.append(code)
            layout, plist = self._layout_of(dataset)
            known["layout"] = layout
            parts += (layout.kind, layout.chunks)
            parts += ((one.id, one.options) for one in layout.filters)
            shape = known["shape"] = dataset.shape
            parts.append(shape)
            if shape is None:
                raise NotReadable("an empty dataspace: it has a type and attributes, but no values")
            if plist is not None:
                check_storage(self._file.h5, plist, layout)
            offer = self._offers.get(code) or offer_of(dataset, stored, self._file.paths)
            if not offer.digest:
                self._offers[code] = offer
            _offer(known, offer)
            if plist is not None and not _is_all_there(layout):
                known["fill"] = fill_of(dataset, plist, offer, self._file.paths)
            fill = known.get("fill")
            parts += (offer.digest, known["dtype"], fill)
            known["by_value"] = layout.kind == "compact" or bool(offer.digest)
            if layout.kind == "compact":
                parts.append(raw_items(dataset))
            known["places"] = _places(self._file, dataset, layout)
        except (ZcatError, *_FAILURES) as error:
            known["problem"] = _said(error)
        known["fingerprint"] = _digest(parts)
        return known

    def _layout_of(self, dataset: h5d.DatasetID) -> tuple[Layout, h5p.PropDCID | None]:
        """Say how the bytes of a dataset lie; and what else it was made with, unless nothing of that matters."""
        # PERF: what a dataset was made with takes HDF5 a quarter of the walk to tell
        plain = None if self._has_user_block else plain_layout_of(dataset)
        if plain is not None:
            return plain, None
        plist = dataset.get_create_plist()
        return layout_of(dataset, plist), plist


def _is_all_there(layout: Layout) -> bool:
    """Say whether everything is stored, so that a fill value does not matter."""
    return layout.kind == "compact" or (layout.kind == "contiguous" and layout.stored_bytes > 0)


def _offer(known: dict[str, Any], offer: Offer) -> None:
    """Fill in what a dataset is offered as."""
    known.update(dtype=offer.text, raw=offer.raw, note=offer.note)
    if offer.inner:
        known["shape"] += offer.inner
        known["inner_axes"] = len(offer.inner)
        if known["layout"].chunks is not None:
            known["layout"] = dataclasses.replace(known["layout"], chunks=known["layout"].chunks + offer.inner)
    if len(known["shape"]) > DIMENSIONS_MAX:
        raise NotReadable(f"{len(known['shape'])} dimensions, Blosc2 has at most {DIMENSIONS_MAX}")


def _places(file: OpenFile, dataset: h5d.DatasetID, layout: Layout) -> str:
    """Tell in a digest where the bytes of a dataset lie."""
    if layout.kind == "virtual":  # it changes with its sources
        return _digest([file.stamp])
    if layout.kind != "chunked":
        return _digest([layout.offset, layout.stored_bytes])
    chunks: list[object] = []

    def take(chunk: h5d.StoreInfo) -> bool | None:
        chunks.append(tuple(chunk))
        return True if len(chunks) > PLACED_CHUNKS_MAX else None

    dataset.chunk_iter(take)
    return _digest([file.stamp] if len(chunks) > PLACED_CHUNKS_MAX else chunks)


def _named(group: Item, links: list[Link]) -> tuple[list[tuple[Link, str, str]], str | None]:
    """Give each link its path and its path in HDF5; and the reason if there are some that can have none."""
    named, problem = [], None
    for link in links:
        try:
            name = link.name.decode()
            component = legal(name)
            if component is None:
                raise BadName("too long for a name")
            path = check_path(f"{group.path}/{component}" if group.path else component)
        except (UnicodeDecodeError, BadName) as error:
            why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.message
            shown_name = shown(link.name.decode("utf-8", "replace"))
            problem = problem or f"what has the name {shown_name}, and perhaps others, is left out: {why}"
            continue
        named.append((link, path, f"{group.hdf5_path.rstrip('/')}/{name}"))
    return named, problem


def _digest(parts: list[object]) -> str:
    return blake3.blake3(repr(parts).encode("utf-8", "replace")).hexdigest(length=16)


def _said(error: Exception) -> str:
    """Give the sentence of an error, without a length that a file could choose."""
    if isinstance(error, ZcatError):
        return error.message[:_SENTENCE_MAX]
    return f"HDF5 cannot read it: {shown(str(error), _SENTENCE_MAX)}"

"""Walk through the links of an HDF5 file, one component at a time, and never out of it. In worker processes only.

A path that is given to HDF5 as a whole may lead through an external link anywhere on the way, and HDF5 opens the
file that it names. So each link is looked at before it is followed.
"""

from dataclasses import dataclass
from typing import TypeAlias

import h5py
from h5py import h5, h5d, h5g, h5l, h5o, h5p, h5t

from zcat.errors import BadContent, DatasetUnknown, NotReadable
from zcat.names import shown

LINKS_MAX = 1 << 20
"""Of one group."""

_STEPS_MAX = 512  # for one path: soft links may lead through others, twice as many at every level
_SOFT_DEPTH_MAX = 40


Object: TypeAlias = h5g.GroupID | h5d.DatasetID | h5t.TypeID
"""What a link may lead to."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a group."""

    name: bytes
    kind: int
    """``h5l.TYPE_HARD``, ``TYPE_SOFT``, ``TYPE_EXTERNAL``, or above: one of a user's class."""
    address: int = 0
    """Of the object that a hard link leads to, if it is known."""


def links_of(group: h5g.GroupID) -> tuple[list[Link], bool, bool]:
    """List the links of a group, in the order of their creation where the file has it, else by name.

    Returns:
        At most `LINKS_MAX` of them; whether there are more; and whether they are in the order of creation.
    """
    found: list[Link] = []

    def take(name: bytes, info: h5l.LinkInfo) -> bool | None:
        found.append(Link(name, info.type, info.u if info.type == h5l.TYPE_HARD else 0))
        return True if len(found) > LINKS_MAX else None

    is_ordered = bool(group.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_TRACKED)
    group.links.iterate(take, idx_type=h5.INDEX_CRT_ORDER if is_ordered else h5.INDEX_NAME, info=True)
    return found[:LINKS_MAX], len(found) > LINKS_MAX, is_ordered


def target_of(group: h5g.GroupID, link: Link) -> tuple[str, ...]:
    """Give what a soft or external link says, as ``Item.link`` has it; nothing for others, or if it is no text."""
    if link.kind not in (h5l.TYPE_SOFT, h5l.TYPE_EXTERNAL):
        return ()
    said = group.links.get_val(link.name)
    parts = (said,) if link.kind == h5l.TYPE_SOFT else (said[1], said[0])
    try:
        return tuple(part.decode() for part in parts)
    except UnicodeDecodeError:
        return ()


def open_child(group: h5g.GroupID, link: Link) -> Object:
    """Open what a link of a group leads to.

    Raises:
        NotReadable: it leads nowhere, out of the file, or in a circle; or as for `open_path`.
    """
    return _opened(group, link.name) if link.kind == h5l.TYPE_HARD else _Steps().follow(group, link)


def open_path(file: h5py.File, path: str) -> Object:
    """Open an object by its absolute path in the file.

    Raises:
        DatasetUnknown: there is none.
        NotReadable: the way to it leads out of the file, or in a circle.
        BadContent: the file is damaged there.
    """
    return _Steps().walk(h5o.open(file.id, b"/"), path.encode())


@dataclass(slots=True)
class _Steps:
    left: int = _STEPS_MAX
    depth: int = 0

    def walk(self, group: h5g.GroupID, path: bytes) -> Object:
        at = h5o.open(group, b"/") if path.startswith(b"/") else group
        for name in path.split(b"/"):
            if name not in (b"", b"."):
                at = self._child(at, name, path)
        return at

    def follow(self, group: h5g.GroupID, link: Link) -> Object:
        self.left -= 1
        if self.left < 0 or self.depth > _SOFT_DEPTH_MAX:
            raise NotReadable("a soft link that leads in a circle, or through too many others")
        if link.kind == h5l.TYPE_HARD:
            return _opened(group, link.name)
        if link.kind == h5l.TYPE_SOFT:
            return self._follow_soft(group, group.links.get_val(link.name))
        if link.kind == h5l.TYPE_EXTERNAL:
            file, target = group.links.get_val(link.name)
            raise NotReadable(f"an external link to {_text(target)} in {_text(file)}: not followed")
        raise NotReadable(f"a link of the user-defined class {link.kind}: not followed")

    def _follow_soft(self, group: h5g.GroupID, target: bytes) -> Object:
        self.depth += 1
        try:
            return self.walk(group, target)
        except DatasetUnknown:
            raise NotReadable(f"a soft link to {_text(target)}, where nothing is") from None
        finally:
            self.depth -= 1

    def _child(self, at: Object, name: bytes, path: bytes) -> Object:
        if not isinstance(at, h5g.GroupID):
            raise DatasetUnknown(f"nothing at {_text(path)}")
        try:
            kind = at.links.get_info(name).type
        except (KeyError, RuntimeError):  # how HDF5 says that a group has no such link
            raise DatasetUnknown(f"nothing at {_text(path)}") from None
        return self.follow(at, Link(name, kind))


def _opened(group: h5g.GroupID, name: bytes) -> Object:
    try:
        return h5o.open(group, name)
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        raise BadContent(f"damaged: {error}") from None


def _text(raw: bytes) -> str:
    return shown(raw.decode("utf-8", "replace"), 200)

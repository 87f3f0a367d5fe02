"""The routes that say what there is: roots, listings, descriptions; and the two that follow a root or stop it."""

from contextlib import suppress
from typing import Any

import falcon

from zcat.errors import DatasetUnknown, NotReadable, Timeout, Unavailable
from zcat.http import ranges
from zcat.http.bodies import Answer, not_modified
from zcat.http.describe import (
    describe_dataset,
    describe_entry,
    describe_folder,
    describe_group,
    describe_root,
)
from zcat.http.query import address_of, root_of
from zcat.http.reads import Dataset, Reads
from zcat.http.strict_json import dumps
from zcat.model.dataset import Entry, Kind


class Roots:
    """``/api/roots``: every root that is known, by name."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def on_get(self, req: Any, resp: Any) -> None:
        """Answer a dictionary. Of several claims on one name, the one that is followed stands there."""
        roots = sorted(self._reads.roots(), key=lambda root: (root.name, root.followed, root.owner or ""))
        _tagged_json(req, {root.name: describe_root(root) for root in roots}).put(resp)

    on_head = on_get


class Subscribe:
    """``/api/subscribe/{root}``."""

    def __init__(self, reads: Reads, origins: tuple[str, ...]) -> None:
        self._reads = reads
        self._origins = origins

    def on_post(self, req: Any, resp: Any, root: str) -> None:
        """Begin to follow a root."""
        refuse_foreign_pages(req, self._origins)
        self._reads.follow(root_of(req, root))
        _json("Ok").put(resp)


class Unsubscribe:
    """``/api/unsubscribe/{root}``."""

    def __init__(self, reads: Reads, origins: tuple[str, ...]) -> None:
        self._reads = reads
        self._origins = origins

    def on_post(self, req: Any, resp: Any, root: str) -> None:
        """Stop following a root."""
        refuse_foreign_pages(req, self._origins)
        self._reads.unfollow(root_of(req, root))
        _json("Ok").put(resp)


class Listing:
    """``/api/list/{path}``: all datasets below a root or folder."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def on_get(self, req: Any, resp: Any, path: str) -> None:
        """Answer their paths relative to it, or an object for each with ``details=1``."""
        root, under = address_of(req, path)
        entries = _datasets(self._reads.entries(root, under))
        if len(entries) > 1:  # an HDF5 file is a dataset, and a folder that does not list itself
            entries = [entry for entry in entries if entry.path != under]
        if len(entries) == 1 and entries[0].path == under:
            named = [(under.rpartition("/")[2], entries[0])]
        else:
            skipped = len(under) + 1 if under else 0
            named = [(entry.path[skipped:], entry) for entry in entries]
        if req.get_param_as_bool("details"):
            _tagged_json(req, [describe_entry(entry, name) for name, entry in named]).put(resp)
        else:
            _tagged_json(req, [name for name, _ in named]).put(resp)

    on_head = on_get


class Info:
    """``/api/info/{path}``: what a dataset is; of a folder or group, how much lies in it."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def on_get(self, req: Any, resp: Any, path: str) -> None:
        """Answer the description, with the version as its tag."""
        root, inner = address_of(req, path)
        if inner:
            try:
                self._reads.on_version(root, inner, lambda dataset: self._info(req, root, dataset)).put(resp)
                return
            except DatasetUnknown:
                entries = self._reads.entries(root, inner)
                if not entries:
                    raise
        else:
            entries = self._reads.entries(root)
        attributes = {} if inner else self._attributes_of_root(root, entries)
        _tagged_json(req, describe_folder(_datasets(entries)) | attributes).put(resp)

    def _attributes_of_root(self, root: str, entries: list[Entry]) -> dict[str, Any]:
        """Give the attributes of a root that is one HDF5 file, as a member of its description."""
        for entry in entries:
            if entry.is_root:
                with suppress(Unavailable, Timeout, NotReadable):  # the rest of the root is there all the same
                    return {
                        "attributes": self._reads.on_version(
                            root, entry.path, lambda dataset: dataset.info.attributes
                        )
                    }
        return {}

    def _info(self, req: Any, root: str, dataset: Dataset) -> Answer:
        if dataset.info.entry.kind is not Kind.GROUP:
            return _dataset_info(req, dataset)
        entries = _datasets(self._reads.entries(root, dataset.info.entry.path))
        return _tagged_json(req, describe_group(dataset.info, entries))

    on_head = on_get


def refuse_foreign_pages(req: Any, origins: tuple[str, ...]) -> None:
    """Refuse a change that a page of another site asks for behind its reader's back.

    Browsers say so in ``Sec-Fetch-Site``; programs send nothing of the kind.
    """
    is_foreign = req.get_header("Sec-Fetch-Site", default="none") in ("cross-site", "same-site")
    if is_foreign and req.get_header("Origin") not in origins:
        raise falcon.HTTPForbidden(description="a page of another origin may not change what this subscriber does")


def _datasets(entries: list[Entry]) -> list[Entry]:
    """Leave groups out, which have no content: they are seen in the paths of what is in them."""
    return [entry for entry in entries if entry.kind is not Kind.GROUP]


def _dataset_info(req: Any, dataset: Dataset) -> Answer:
    # "complete" is the only thing in it that may change within a version
    tag = ranges.make_tag(dataset.info.version.etag, "info", str(dataset.complete))
    if ranges.is_known(req.get_header("If-None-Match"), tag):
        return not_modified(tag)
    answer = _json(describe_dataset(dataset))
    answer.tag = tag
    return answer


def _json(value: Any) -> Answer:
    return Answer(content_type=falcon.MEDIA_JSON, body=(dumps(value),))


def _tagged_json(req: Any, value: Any) -> Answer:
    body = dumps(value)
    tag = ranges.make_tag(body.decode())
    if ranges.is_known(req.get_header("If-None-Match"), tag):
        return not_modified(tag)
    return Answer(tag, content_type=falcon.MEDIA_JSON, body=(body,))

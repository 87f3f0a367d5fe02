import threading

import pytest

from zcat.errors import NotReadable
from zcat.storage.open_sources import OpenSources


class Source:
    def __init__(self):
        self.is_open = True

    def close(self):
        assert self.is_open, "closed twice"
        self.is_open = False


def use(sources, path, stamp=1):
    with sources.use(path, stamp, Source) as source:
        return source


def test_a_source_stays_open_between_uses():
    sources = OpenSources(2)

    first = use(sources, "a")

    assert use(sources, "a") is first
    assert first.is_open


def test_the_least_recently_used_is_closed_for_another():
    sources = OpenSources(2)
    a, b = use(sources, "a"), use(sources, "b")
    use(sources, "a")

    c = use(sources, "c")

    assert (a.is_open, b.is_open, c.is_open) == (True, False, True)


def test_another_stamp_retires_the_former_source():
    sources = OpenSources(9)
    former = use(sources, "a", 1)

    assert use(sources, "a", 2) is not former
    assert not former.is_open


@pytest.mark.parametrize("end", [lambda s: s.forget("a"), lambda s: s.close(), lambda s: use(s, "a", 2)])
def test_what_is_in_use_is_closed_by_its_last_user(end):
    sources = OpenSources(9)
    with sources.use("a", 1, Source) as first, sources.use("a", 1, Source) as again:
        assert first is again
        end(sources)
        assert first.is_open

    assert not first.is_open


def test_more_are_open_only_while_all_are_in_use():
    sources = OpenSources(1)
    with sources.use("a", 1, Source), sources.use("b", 1, Source):
        assert len(sources) == 2

    use(sources, "c")

    assert len(sources) == 1


def test_what_cannot_be_opened_is_not_held():
    def refuse():
        raise NotReadable("no")

    sources = OpenSources(1)

    with pytest.raises(NotReadable), sources.use("a", 1, refuse):
        pass
    assert len(sources) == 0


def test_threads_never_see_a_closed_source():
    sources, seen = OpenSources(2), []

    def work(seed):
        for n in range(300):
            with sources.use(f"{(n * seed) % 5}", n % 3 == 0, Source) as source:
                seen.append(source.is_open)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sources.close()

    assert all(seen)
    assert len(seen) == 1200

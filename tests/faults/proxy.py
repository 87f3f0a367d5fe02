"""A door of TCP ports that does to connections what bad networks and bad software do. For what a kernel cannot.

It listens on a loopback address of its own and passes everything on to the same ports of a target. Faults are set
while it runs, and hold for connections of old and of new. Its choices come from a seed; when they are made depends
on the traffic, of course.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

PIECE_BYTES = 64 * 1024
FLIPPED_BYTES_MIN = 16 * 1024
LOOK_S = 0.02
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER without a wait: closing resets


@dataclass(frozen=True, slots=True)
class Weather:
    """What a door does to each piece that passes."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """At most so much more, at random."""
    bytes_per_s: float = 0.0
    """0: as fast as it goes."""
    piece_bytes: int = PIECE_BYTES
    """1 sends byte by byte."""
    reset_chance: float = 0.0
    """That a piece is the last one of its connection."""
    flip_chance: float = 0.0
    """That a bit of a large piece is another one behind the door. Small ones, of control messages, stay whole."""
    holds: bool = False
    """Reads nothing more: the sender's buffers fill."""
    swallows: bool = False
    """Takes everything and passes nothing on."""


FAIR = Weather()


class Door:
    """One address in front of another. A thread of its own; use it in a ``with`` statement."""

    def __init__(self, address: str, target: str, ports: Sequence[int], seed: int = 0) -> None:
        self.address = address
        self.weather = FAIR
        self._target = target
        self._ports = tuple(ports)
        self._random = random.Random(seed)
        self._forgotten: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"door-{address}", daemon=True)
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> Self:
        for port in self._ports:
            listener = socket.create_server((self.address, port))
            listener.setblocking(False)
            self._listeners.append(listener)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        """Reset every connection."""
        self._do(self._reset_all)

    def forget(self) -> None:
        """Pass nothing on any more of the connections that there are, without a word; new ones are fine.

        A box in the middle that loses its memory does that.
        """
        self._do(lambda: self._forgotten.update(self._open))

    def half_close(self) -> None:
        """Tell every end that the other one has nothing more to say, though it has."""
        self._do(self._half_close_all)

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        for listener in self._listeners:
            self._loop.create_task(self._accept(listener))
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for each in [*self._listeners, *self._open]:
            each.close()
        self._loop.close()

    def _do(self, action: object) -> None:
        self._loop.call_soon_threadsafe(action)  # type: ignore[arg-type]

    def _reset_all(self) -> None:
        for each in list(self._open):
            _reset(each)

    def _half_close_all(self) -> None:
        for each in list(self._open):
            with _ignored():
                each.shutdown(socket.SHUT_WR)

    async def _accept(self, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        while True:
            visitor, _ = await self._loop.sock_accept(listener)
            self._loop.create_task(self._serve(visitor, port))

    async def _serve(self, visitor: socket.socket, port: int) -> None:
        inner = socket.socket()
        ends = (visitor, inner)
        for each in ends:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.update(ends)
        try:
            await self._loop.sock_connect(inner, (self._target, port))
            pumps = [self._loop.create_task(self._pump(*way)) for way in (ends, ends[::-1])]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # nobody is behind the door
        finally:
            self._open.difference_update(ends)
            self._forgotten.difference_update(ends)
            for each in ends:
                _reset(each)

    async def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with _ignored():
            while piece := await self._loop.sock_recv(source, PIECE_BYTES):
                at = 0
                while at < len(piece):  # the weather may change in the middle of it
                    weather = self.weather
                    if weather.holds:
                        await asyncio.sleep(LOOK_S)
                        continue
                    part = piece[at : at + weather.piece_bytes]
                    at += len(part)
                    if self._random.random() < weather.reset_chance:
                        return
                    await self._pass_on(part, target, weather)

    async def _pass_on(self, part: bytes, target: socket.socket, weather: Weather) -> None:
        wait_s = weather.delay_s + weather.jitter_s * self._random.random()
        if weather.bytes_per_s:
            wait_s += len(part) / weather.bytes_per_s
        if wait_s:
            await asyncio.sleep(wait_s)
        if len(part) >= FLIPPED_BYTES_MIN and self._random.random() < weather.flip_chance:
            part = self._flipped(part)
        if not weather.swallows and target not in self._forgotten:
            await self._loop.sock_sendall(target, part)

    def _flipped(self, part: bytes) -> bytes:
        changed = bytearray(part)
        changed[self._random.randrange(len(part))] ^= 1 << self._random.randrange(8)
        return bytes(changed)


class _ignored:
    """A connection that breaks is what doors are for."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


def _reset(each: socket.socket) -> None:
    with _ignored():
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    each.close()

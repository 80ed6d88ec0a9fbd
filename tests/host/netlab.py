"""A laboratory for network tests: namespaces to attach, and one that plays the internet."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sublet.drivers import linux, namespaces

PATIENCE = 10.0
"""Seconds that an answer may take: milliseconds, or what a busy machine makes of them."""

BRIEFLY = 0.4
"""Seconds without an answer after which a connection counts as dropped."""


class Box:
    """A network namespace, owned by a user namespace of its own as an instance's is."""

    def __init__(self, directory: Path, name: str, uid_base: int) -> None:
        self.name = name
        self.netns = directory / f"{name}.net"
        self._user = directory / f"{name}.user"
        namespaces.create(self._user, self.netns, uid_base)

    def socket(self, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        fd = os.open(self.netns, os.O_RDONLY)
        try:
            with linux.entered(fd, linux.CLONE_NEWNET, "net"):
                sock = socket.socket(socket.AF_INET, kind, protocol)
        finally:
            os.close(fd)
        sock.setblocking(False)
        return sock

    def run(self, *argv: str) -> str:
        return sh("nsenter", f"--net={self.netns}", *argv)

    def close(self) -> None:
        for path in (self.netns, self._user):
            linux.umount(str(path), linux.MNT_DETACH)
            path.unlink()


class World(Box):
    """The internet, 198.51.100.2, or another host; it knows no route to any instance."""

    host, address = "198.51.100.1", "198.51.100.2"

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(directory, name, 0x1000_0000)
        self.link = f"w{name}"
        peer = ("peer", "name", "eth0", "netns", str(self.netns))
        sh("ip", "link", "add", self.link, "type", "veth", *peer)
        sh("ip", "addr", "add", f"{self.host}/24", "dev", self.link)
        sh("ip", "link", "set", self.link, "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "link", "set", "lo", "up")

    def close(self) -> None:
        sh("ip", "link", "del", self.link)
        super().close()


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def host_socket(kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setblocking(False)
    return sock


class Servers:
    """Servers that answer with the address of who asks."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.DatagramTransport] = []

    async def tcp(self, sock: socket.socket, port: int = 0, address: str = "0.0.0.0") -> int:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(writer.get_extra_info("peername")[0].encode())
            writer.close()

        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        self._servers.append(await asyncio.start_server(answer, sock=sock))
        return int(sock.getsockname()[1])

    async def udp(self, sock: socket.socket, port: int) -> None:
        class Echo(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                self.transport.sendto(addr[0].encode(), addr)

        sock.bind(("0.0.0.0", port))
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Echo, sock=sock)
        self._datagrams.append(transport)

    async def close(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()
        for transport in self._datagrams:
            transport.close()


async def ask(sock: socket.socket, address: str, port: int, patience: float = PATIENCE) -> str:
    """What the server there answers; empty when nothing comes, or a refusal."""
    loop = asyncio.get_running_loop()
    with sock:
        try:
            async with asyncio.timeout(patience):
                await loop.sock_connect(sock, (address, port))
                if sock.type == socket.SOCK_DGRAM:
                    await loop.sock_sendall(sock, b"?")
                return (await loop.sock_recv(sock, 100)).decode()
        except (TimeoutError, OSError):
            return ""


async def resolve(sock: socket.socket, server: str, name: str, patience: float = PATIENCE) -> str:
    """The first A record of the name, empty when there is none; asked once."""
    question = b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"
    query = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question + struct.pack(">HH", 1, 1)
    loop = asyncio.get_running_loop()
    with sock:
        try:
            async with asyncio.timeout(patience):
                await loop.sock_connect(sock, (server, 53))
                await loop.sock_sendall(sock, query)
                answer = await loop.sock_recv(sock, 1500)
        except (TimeoutError, OSError):
            return ""
    return socket.inet_ntoa(answer[-4:]) if struct.unpack_from(">H", answer, 6)[0] else ""


async def eventually(check: Any, patience: float = 30) -> Any:
    """The first truth that `check` (a coroutine function) returns, or its last answer."""
    end = asyncio.get_running_loop().time() + patience
    while not (answer := await check()):
        if asyncio.get_running_loop().time() > end:
            break
        await asyncio.sleep(0.01)
    return answer


async def ping(box: Box, address: str, patience: float = PATIENCE) -> bool:
    """Whether an ICMP echo comes back."""
    body = struct.pack(">BBHHH", 8, 0, 0, 1, 1)
    total = sum(struct.unpack(">4H", body))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    packet = struct.pack(">BBHHH", 8, 0, checksum, 1, 1)
    loop = asyncio.get_running_loop()
    with box.socket(socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        try:
            async with asyncio.timeout(patience):
                sock.connect((address, 0))
                await loop.sock_sendall(sock, packet)
                while (await loop.sock_recv(sock, 200))[20] != 0:
                    pass
        except (TimeoutError, OSError):
            return False
    return True


def remains(network: Any) -> list[str]:
    """What is left on the host of a network that is down."""
    identity = network.identity
    groups = {str(identity.group), str(identity.group + 1)}
    left = [
        link["ifname"]
        for link in json.loads(sh("ip", "-j", "link"))
        if link["ifname"] == identity.bridge or str(link["group"]) in groups
    ]
    left += [line for line in sh("nft", "list", "tables").splitlines() if identity.table in line]
    for process in Path("/proc").glob("[0-9]*/environ"):
        with ExitStack() as stack:
            stack.callback(lambda: None)
            try:
                text = process.read_bytes() + process.with_name("cmdline").read_bytes()
            except OSError:
                continue
            if f"SUBLET_NETWORK={identity.bridge}".encode() in text:
                left.append(str(process.parent))
    return left

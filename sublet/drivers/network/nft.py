"""nftables through libnftables(3): commands in, JSON out, one transaction a call."""

from __future__ import annotations

import ctypes
import json
import threading
from typing import Any

from sublet.domain.errors import ProcessFailed, ToolMissing

_JSON = 1 << 4


class Nft:
    """A libnftables context. Calls block (0.1 ms; a refused one 12 ms) and may come from
    any thread.

    It keeps half a megabyte for each table that the host has, whoever made it: a daemon needs one.
    """

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise ToolMissing("libnftables is not installed on this host.") from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._library = library
        self._context = ctypes.c_void_p(library.nft_ctx_new(0))
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._lock = threading.Lock()

    def run(self, commands: str) -> None:
        """Carry out the commands as one transaction: all of them or none.

        Raises NoSuchRule when something that they name is not there, else ProcessFailed.
        """
        self._call(commands, 0)

    def read(self, command: str) -> list[dict[str, Any]]:
        """What a `list` command shows, in libnftables-json(5). Raises as `run` does."""
        objects: list[dict[str, Any]] = json.loads(self._call(command, _JSON))["nftables"]
        return objects

    def _call(self, commands: str, flags: int) -> str:
        with self._lock:
            self._library.nft_ctx_output_set_flags(self._context, ctypes.c_uint(flags))
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
            errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            text = errors.decode(errors="replace")
            kind = NoSuchRule if "No such file or directory" in text else ProcessFailed
            raise kind(f"nftables refused: {text.strip().splitlines()[0] if text else 'unknown'}")
        return bytes(output).decode()


class NoSuchRule(ProcessFailed):
    """A table, chain, set or element is not there: removed by somebody, or never made."""

"""The server's half of a WebSocket (RFC 6455), as much as a port-forward needs: binary messages."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import BinaryIO

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE, PING, PONG = 0x2, 0x8, 0x9, 0xA


def accept_key(key: str) -> str:
    """The answer to a client's ``Sec-WebSocket-Key``."""
    digest = hashlib.sha1((key + _MAGIC).encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def receive(stream: BinaryIO) -> tuple[int, bytes]:
    """The next frame: opcode and content. EOFError at the end."""
    first, second = _exactly(stream, 2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", _exactly(stream, 2))
    elif length == 127:
        (length,) = struct.unpack("!Q", _exactly(stream, 8))
    mask = _exactly(stream, 4) if second & 0x80 else bytes(4)
    content = _exactly(stream, length)
    whole = (mask * (length // 4 + 1))[:length]
    plain = int.from_bytes(content, "big") ^ int.from_bytes(whole, "big")
    return first & 0x0F, plain.to_bytes(length, "big")


def frame(content: bytes, opcode: int = BINARY) -> bytes:
    """A whole unmasked message, as servers send them."""
    head = bytes([0x80 | opcode])
    if len(content) < 126:
        head += bytes([len(content)])
    elif len(content) < 1 << 16:
        head += bytes([126]) + struct.pack("!H", len(content))
    else:
        head += bytes([127]) + struct.pack("!Q", len(content))
    return head + content


def _exactly(stream: BinaryIO, length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content

"""What answers `kubectl exec`: a WebSocket (RFC 6455) that carries a program's streams by their numbers."""

import base64
import hashlib
import json
import subprocess
import threading
from contextlib import suppress
from io import BufferedIOBase, BufferedReader
from typing import IO, cast

PROTOCOL = "v5.channel.k8s.io"
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
STDIN, STDOUT, STDERR, OUTCOME, END_OF = 0, 1, 2, 3, 255
BINARY, CLOSE = 2, 8


def serve(reader: BufferedIOBase, writer: BufferedIOBase, key: str, process: subprocess.Popen[bytes]) -> None:
    """Agree to the WebSocket that asked with this key, and connect it to a program until that has ended."""
    accepted = base64.b64encode(hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()).decode()
    lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
             f"Sec-WebSocket-Accept: {accepted}", f"Sec-WebSocket-Protocol: {PROTOCOL}", "", "")  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    lock = threading.Lock()

    def send(operation: int, content: bytes) -> None:
        size = len(content)
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        with lock, suppress(OSError):  # who asked may have gone
            writer.write(bytes([0x80 | operation]) + length + content)

    def pump(stream: BufferedReader, channel: int) -> None:
        while content := stream.read1(32768):
            send(BINARY, bytes([channel]) + content)

    with process:
        out, error = cast("BufferedReader", process.stdout), cast("BufferedReader", process.stderr)
        threading.Thread(target=_listen, args=(reader, process), daemon=True).start()
        pumps = [threading.Thread(target=pump, args=ends) for ends in ((out, STDOUT), (error, STDERR))]
        for thread in pumps:
            thread.start()
        for thread in pumps:
            thread.join()
    outcome: dict[str, object] = {"metadata": {}, "status": "Success"}
    if process.returncode:
        causes = [{"reason": "ExitCode", "message": str(process.returncode)}]
        outcome |= {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes},
                    "message": f"command terminated with non-zero exit code: {process.returncode}"}  # fmt: skip
    send(BINARY, bytes([OUTCOME]) + json.dumps(outcome).encode())
    send(CLOSE, (1000).to_bytes(2, "big"))


def _listen(reader: BufferedIOBase, process: subprocess.Popen[bytes]) -> None:
    """Give the program what comes for it."""
    given = cast("IO[bytes]", process.stdin)
    with suppress(OSError, ValueError, IndexError):  # one end has gone
        while True:
            operation, content = _frame(reader)
            if operation == CLOSE:
                break
            if content[:1] == bytes([STDIN]):
                given.write(content[1:])
                given.flush()
            elif content == bytes([END_OF, STDIN]):
                given.close()


def _frame(reader: BufferedIOBase) -> tuple[int, bytes]:
    first, second = reader.read(2)
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(reader.read(2 if size == 126 else 8), "big")
    mask = reader.read(4)
    content = reader.read(size)
    return first & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))

"""A web server on the loopback for tests: ranges of a folder's files, at a limited speed, with faults on demand.

python range_server.py FOLDER BYTES_A_SECOND prints its port, and serves until it is killed.
"""

import collections
import contextlib
import http.server
import math
import pathlib
import re
import sys
import threading
import time

PIECE = 2**16
LATE = 0.25  # seconds that a process without a core may catch up: the buffers of a link are as large


class RangeServer(http.server.ThreadingHTTPServer):
    """Serves `folder`. `requests` counts the requests of each name. With a `query` it refuses requests without it.

    faults: {name: function (start, bytes) to the bytes to send, or None to close the connection}; the length is
    announced before. It may change its mind between requests.
    """

    daemon_threads, request_queue_size = True, 256

    def __init__(self, folder, bytes_a_second=math.inf):
        super().__init__(("localhost", 0), Handler)
        self.folder, self.bytes_a_second = pathlib.Path(folder), bytes_a_second
        self.requests, self.sent, self.faults, self.query = collections.Counter(), 0, {}, ""
        self.lock, self.free, self.sending = threading.Lock(), 0.0, 0

    @property
    def address(self):
        return f"http://localhost:{self.server_address[1]}"

    def send(self, content, write):
        """Writes the bytes at the speed of the link. It is idle only while nothing is to be sent."""
        with self.lock:
            if not self.sending:
                self.free = max(self.free, time.perf_counter())
            self.sending += 1
        try:
            for first in range(0, len(content), PIECE):
                piece = content[first : first + PIECE]
                with self.lock:
                    self.sent += len(piece)
                    now = time.perf_counter()
                    self.free = max(self.free, now - LATE) + len(piece) / self.bytes_a_second
                    wait = self.free - now
                if wait > 0:
                    time.sleep(wait)
                write(piece)
        finally:
            with self.lock:
                self.sending -= 1

    def handle_error(self, request, client_address):
        """Nothing: clients may leave."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", 0

    def do_GET(self):
        name, _, query = self.path.lstrip("/").partition("?")
        with self.server.lock:
            self.server.requests[name] += 1
        path = self.server.folder / name
        if query != self.server.query:
            self.send_error(403)
            return
        if not path.is_file():
            self.send_error(404)
            return
        size, status = path.stat().st_size, 200
        start, stop = 0, size
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, stop, status = int(match[1]), min(int(match[2]) + 1, size), 206
            if start >= size:
                self.send_error(416)
                return
        with open(path, "rb") as file:
            file.seek(start)
            content = file.read(stop - start)
        sent = self.server.faults.get(name, lambda start, content: content)(start, content)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        self.server.send(sent or b"", self.wfile.write)
        if sent is None or len(sent) != len(content):
            self.close_connection = True

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder, bytes_a_second=math.inf):
    """Context manager: the server, in threads of this process."""
    with RangeServer(folder, bytes_a_second) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    server = RangeServer(sys.argv[1], float(sys.argv[2]))
    print(server.server_address[1], flush=True)
    server.serve_forever()

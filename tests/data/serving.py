"""An HTTP server on this machine that knows Range and If-Range, and misbehaves on request."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What is served, and how: ``cut`` bytes end each answer; ``statuses`` are given before anything else.

    Args:
        files: Name -> content.
    """

    def __init__(self, files):
        self.files, self.cut, self.statuses, self.tag = files, None, [], '"one"'
        self.content_type, self.requests, self.url = "application/octet-stream", [], ""


def _handler(site):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            site.requests.append(self.headers.get("Range"))
            content = site.files.get(self.path.lstrip("/"))
            status = site.statuses.pop(0) if site.statuses else (200 if content is not None else 404)
            if status != 200:
                self.send_error(status)
                return
            start, wanted = 0, self.headers.get("Range")
            if wanted and self.headers.get("If-Range") in (None, site.tag):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, content = int(first), content[: int(last) + 1] if last else content
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", site.content_type)
            self.send_header("Content-Length", str(len(content) - start))
            if site.tag:
                self.send_header("ETag", site.tag)
            self.end_headers()
            self.wfile.write(content[start : None if site.cut is None else start + site.cut])

        def log_message(self, *arguments):
            pass

    return Handler


@contextmanager
def serve(files):
    site = Site(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

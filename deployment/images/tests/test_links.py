"""scripts/check-links against a server on loopback."""

import contextlib
import http.server
import importlib.machinery
import importlib.util
import io
import os
import pathlib
import sys
import tempfile
import threading
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.dont_write_bytecode = True
LOADER = importlib.machinery.SourceFileLoader("check_links", str(ROOT / "scripts" / "check-links"))
check_links = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_links", LOADER))
LOADER.exec_module(check_links)


class Server(http.server.BaseHTTPRequestHandler):
    """Answers with the status in the path; /get is there for GET only."""

    def answer(self):
        status = 200 if self.path == "/get" else int(self.path[1:])
        self.send_response(405 if self.path == "/get" and self.command == "HEAD" else status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = answer

    def log_message(self, *_):
        """Nothing."""


class Links(unittest.TestCase):
    def setUp(self):
        # A proxy would answer in the servers' place.
        direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.enterContext(unittest.mock.patch.dict(os.environ, direct, clear=True))

    def test_addresses_are_found(self):
        """Scenario: a link, a bare address at a sentence's end, a command, and examples that lead nowhere.
        Guarantees: the first three, without what is not theirs."""
        text = ("See [a](https://a.org/x#part), or https://b.org/z. `curl https://c.org/w` "
                "http://localhost:3000 http://collector:4318 https://sink.example/v1 http://$LB_URL:3000 https://x.org/{id}")
        self.assertEqual(check_links.addresses(text), {"https://a.org/x", "https://b.org/z", "https://c.org/w"})

    def test_what_is_gone_fails(self):
        """Scenario: addresses that are there, moved for good to nowhere, gone, refused, and answered to GET only.
        Guarantees: only what is gone is counted, with the document's name; without it all is well."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        for name, problem in (("200", None), ("get", None), ("404", ("status 404", True)), ("410", ("status 410", True)),
                              ("403", ("status 403", False)), ("503", ("status 503", False))):
            self.assertEqual(check_links.look(f"{base}/{name}"), problem)
        looked = {"https://there.org": None, "https://shy.org": ("status 403", False), "https://gone.org": ("status 404", True)}
        with tempfile.TemporaryDirectory() as directory:
            document = pathlib.Path(directory) / "a.md"
            original, check_links.look = check_links.look, looked.get
            try:
                for address, status in (("https://there.org", 0), ("https://shy.org", 0), ("https://gone.org", 1)):
                    document.write_text(f"<{address}>")
                    with contextlib.redirect_stdout(io.StringIO()) as said:
                        self.assertEqual(check_links.main([str(document)]), status)
                    self.assertEqual("a.md" in said.getvalue(), looked[address] is not None)
            finally:
                check_links.look = original

    def test_a_host_without_a_name_is_gone(self):
        """Scenario: a host under a domain that is reserved to have none.
        Guarantees: it is gone."""
        self.assertEqual(check_links.look("http://nowhere.invalid/")[1], True)


if __name__ == "__main__":
    unittest.main()

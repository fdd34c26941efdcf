"""What thyme counts against what real sinks store: each sink with its defaults, and an agent with nothing
but an endpoint, unless a scenario is about a setting.

Run by tests/sinks/run."""

import argparse
import datetime
import pathlib
import shutil
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "node"))
sys.dont_write_bytecode = True

import agent
import checks
import sinks

BACKLOG = 40_000
SOME = 4_000
LINE_BYTES = 200


class Test:
    def __init__(self, binary, tools, work, check):
        self.binary, self.tools, self.work, self.check = binary, tools, work, check
        self.victoria_logs = None

    def agent(self, name, lines):
        node = agent.Agent(self.binary, self.work, name)
        node.write(lines)
        return node

    def sink(self):
        """The VictoriaLogs that most scenarios share."""
        if self.victoria_logs is None:
            self.victoria_logs = sinks.VictoriaLogs(self.tools, self.work, "victoria-logs")
        return self.victoria_logs

    def all_stored(self, what, node, records, stored):
        """All of the lines are acknowledged by the books, and stored once each by the sink."""
        books = node.settle(records)
        found = stored()
        expected = {"read": records, "acknowledged": records, "queued": 0, "dead_lettered": 0,
                    "dropped": {}}
        self.check(f"{what}: {records} acknowledged, {found} stored",
                   books == expected and found == (records, records), f"{books}, stored: {found}")

    def kept_then_stored(self, what, words, kind, wrong, right, mend=lambda: None):
        """Nothing is dropped while something is wrong, and its log says so with these words; after it is
        mended and the agent is started again, all is stored once."""
        node = self.agent(what, agent.lines(SOME, LINE_BYTES))
        node.start(kind, wrong)
        books = node.hold(words)
        log = node.running.log()
        self.check(f"{what}: nothing is dropped meanwhile",
                   books["dropped"] == {} and books["dead_lettered"] == books["acknowledged"] == 0,
                   str(books))
        missing = [word for word in words if word not in log]
        self.check(f"{what}: the log says {words}", not missing, log[-600:])
        node.kill()
        mend()
        node.start(kind, right)
        self.all_stored(f"{what}, mended", node, SOME, lambda: self.sink().stored(what))
        node.end()


# --- VictoriaLogs -------------------------------------------------------------------------------------


def victoria_logs_backlog(test):
    sink = test.sink()
    node = test.agent("vl-backlog", agent.lines(BACKLOG, LINE_BYTES))
    node.start("otlphttp", {"endpoint": sink.endpoint})
    test.all_stored("VictoriaLogs, a backlog", node, BACKLOG, lambda: sink.stored("vl-backlog"))
    node.end()


def victoria_logs_wrong_path(test):
    endpoint = test.sink().endpoint
    test.kept_then_stored("vl-wrong-path", ["unsupported path requested", "endpoint"], "otlphttp",
                          {"endpoint": f"{endpoint}/v1/logs"}, {"endpoint": endpoint})


def victoria_logs_bad_header(test):
    endpoint = test.sink().endpoint
    test.kept_then_stored("vl-bad-header", ["cannot parse common params"], "otlphttp",
                          {"endpoint": endpoint, "headers": {"AccountID": "abc"}},
                          {"endpoint": endpoint})


def victoria_logs_request_limit(test):
    for compression in ("zstd", "gzip", "none"):
        name = f"vl-limit-{compression}"
        sink = sinks.VictoriaLogs(test.tools, test.work, name, "-opentelemetry.maxRequestSize=256KiB")
        node = test.agent(name, agent.lines(SOME, LINE_BYTES))
        node.start("otlphttp", {"endpoint": sink.endpoint, "compression": compression})
        test.all_stored(f"VictoriaLogs, requests of at most 256 KiB, {compression}", node, SOME,
                        lambda: sink.stored(name))
        node.end()
        sink.end()


def victoria_logs_old_and_long(test):
    """What it takes with 200 and does not store: the books can't know, docs/sinks.md says so."""
    sink = sinks.VictoriaLogs(test.tools, test.work, "vl-old")
    node = test.agent("vl-old", agent.lines(100, LINE_BYTES, datetime.timedelta(days=9)))
    node.write(agent.lines(100, LINE_BYTES, first=100))
    node.write(agent.lines(3, 300 * 1024, first=200))
    node.write(agent.lines(1, 3 * 2**20, first=300))
    node.start("otlphttp", {"endpoint": sink.endpoint})
    books = node.settle(206)
    found, ignored = sink.stored("vl-old"), sink.ignored()
    test.check(f"VictoriaLogs, 100 lines older than its retention, and 6 long records: "
               f"{books['acknowledged']} acknowledged, {found} stored, ignored: {ignored}",
               books["acknowledged"] == books["read"] == 206 and books["queued"] == 0
               and found[0] + sum(ignored.values()) == books["acknowledged"]
               and ignored.get("too_small_timestamp") == 100, f"{books}, {found}, {ignored}")
    node.end()
    sink.end()


# --- The Collector ------------------------------------------------------------------------------------


def collector(test, name, what, kind, exporter=None, lines=BACKLOG, **options):
    sink = sinks.Collector(test.tools, test.work, name, **options)
    address = f"127.0.0.1:{sink.grpc}" if kind == "otlp" else f"http://127.0.0.1:{sink.http}"
    node = test.agent(name, agent.lines(lines, LINE_BYTES))
    tls = {"tls": {"insecure": True}} if kind == "otlp" else {}
    node.start(kind, {"endpoint": address, **tls, **(exporter or {})})
    # It knows no bodies: that it counts as many as were acknowledged is all.
    test.all_stored(f"Collector, {what}", node, lines, lambda: (sink.stored(), lines))
    node.end()
    sink.end()


def collector_backlog(test):
    collector(test, "col-grpc", "a backlog by gRPC", "otlp")
    collector(test, "col-http", "a backlog by HTTP", "otlphttp")


def collector_limits(test):
    collector(test, "col-grpc-1mib", "gRPC messages of at most 1 MiB", "otlp",
              grpc={"max_recv_msg_size_mib": 1})
    for compression in ("zstd", "gzip", "none"):
        collector(test, f"col-http-256kib-{compression}", f"bodies of at most 256 KiB, {compression}",
                  "otlphttp", exporter={"compression": compression},
                  http={"max_request_body_size": 256 * 1024})


def collector_without_memory(test):
    """The memory limiter refuses everything; another Collector does not."""
    limiter = {"check_interval": "100ms", "limit_mib": 2, "spike_limit_mib": 1}
    full = sinks.Collector(test.tools, test.work, "col-full", limiter=limiter)
    sink = sinks.Collector(test.tools, test.work, "col-roomy")
    node = test.agent("col-full", agent.lines(SOME, LINE_BYTES))
    time.sleep(1)
    for kind, address in (("otlp", f"127.0.0.1:{full.grpc}"), ("otlphttp", f"http://127.0.0.1:{full.http}")):
        node.start(kind, {"endpoint": address, "tls": {"insecure": True}})
        books = node.hold(["high memory usage"])
        test.check(f"Collector, no memory, {kind}: kept", books["dropped"] == {} and
                   books["acknowledged"] == 0 and books["read"] == SOME, str(books))
        node.kill()
    node.start("otlp", {"endpoint": f"127.0.0.1:{sink.grpc}", "tls": {"insecure": True}})
    test.all_stored("Collector, memory again", node, SOME, lambda: (sink.stored(), SOME))
    node.end()
    full.end()
    sink.end()


# --- Proxies ------------------------------------------------------------------------------------------


def proxied(test, name, what, proxy, lines=BACKLOG, exporter=None, scheme="http"):
    """A proxy before VictoriaLogs that lets everything through in the end."""
    running, port = proxy
    node = test.agent(name, agent.lines(lines, LINE_BYTES))
    node.start("otlphttp", {"endpoint": f"{scheme}://127.0.0.1:{port}/insert/opentelemetry",
                            **(exporter or {})})
    test.all_stored(what, node, lines, lambda: test.sink().stored(name))
    node.end()
    running.end()


def nginx_body_limit(test):
    sink = f"proxy_pass {test.sink().base};"
    proxied(test, "nginx-1m", "nginx, client_max_body_size by default (1m)",
            sinks.nginx(test.work, "nginx-1m", sink))
    proxied(test, "nginx-16k", "nginx, client_max_body_size 16k",
            sinks.nginx(test.work, "nginx-16k", f"client_max_body_size 16k; {sink}"), lines=SOME)
    proxied(test, "nginx-64k-none", "nginx, client_max_body_size 64k, without compression",
            sinks.nginx(test.work, "nginx-64k-none", f"client_max_body_size 64k; {sink}"), lines=SOME,
            exporter={"compression": "none"})


def nginx_certificate(test):
    """400 with a page, since the client shows no certificate."""
    sink = test.sink()
    certificate, key = sinks.certificate(test.work)
    running, port = sinks.nginx(
        test.work, "nginx-certificate", f"proxy_pass {sink.base};", listen="ssl",
        server=f"ssl_certificate {certificate}; ssl_certificate_key {key};"
               f" ssl_client_certificate {certificate}; ssl_verify_client on;")
    test.kept_then_stored(
        "nginx-certificate", ["No required SSL certificate was sent"], "otlphttp",
        {"endpoint": f"https://127.0.0.1:{port}/insert/opentelemetry",
         "tls": {"insecure_skip_verify": True}},
        {"endpoint": sink.endpoint}, running.end)


def nginx_header(test):
    """400 with a page, since a header is too large."""
    sink = test.sink()
    running, port = sinks.nginx(test.work, "nginx-header", f"proxy_pass {sink.base};",
                                server="large_client_header_buffers 2 1k;")
    test.kept_then_stored(
        "nginx-header", ["Request Header Or Cookie Too Large"], "otlphttp",
        {"endpoint": f"http://127.0.0.1:{port}/insert/opentelemetry", "headers": {"x": "y" * 3000}},
        {"endpoint": sink.endpoint}, running.end)


def nginx_no_sink(test):
    """502 while nobody is behind it, 504 while it says nothing."""
    sink = test.sink()
    nobody = sinks.process.free_port()
    running, port = sinks.nginx(test.work, "nginx-502", f"proxy_pass http://127.0.0.1:{nobody};")
    test.kept_then_stored("nginx-502", ["HTTP 502"], "otlphttp",
                          {"endpoint": f"http://127.0.0.1:{port}/insert/opentelemetry"},
                          {"endpoint": sink.endpoint}, running.end)
    silent = sinks.socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    running, port = sinks.nginx(test.work, "nginx-504", f"proxy_read_timeout 1s; proxy_pass {address};")
    test.kept_then_stored("nginx-504", ["HTTP 504"], "otlphttp",
                          {"endpoint": f"http://127.0.0.1:{port}/insert/opentelemetry"},
                          {"endpoint": sink.endpoint}, running.end)
    silent.close()


def nginx_page(test):
    """200 with a page is nobody's acceptance."""
    sink = test.sink()
    running, port = sinks.nginx(
        test.work, "nginx-page", "default_type text/html; return 200 '<html>Welcome</html>';")
    test.kept_then_stored("nginx-page", ["Welcome"], "otlphttp",
                          {"endpoint": f"http://127.0.0.1:{port}/insert/opentelemetry"},
                          {"endpoint": sink.endpoint}, running.end)


def nginx_grpc(test):
    """A Collector behind nginx by HTTP/2, with nginx's own limit of 1m and a small one."""
    for name, limit in (("nginx-grpc", ""), ("nginx-grpc-16k", "client_max_body_size 16k;")):
        sink = sinks.Collector(test.tools, test.work, f"{name}-collector")
        running, port = sinks.nginx(
            test.work, name, f"{limit} grpc_pass grpc://127.0.0.1:{sink.grpc};", listen="http2")
        node = test.agent(name, agent.lines(SOME, LINE_BYTES))
        node.start("otlp", {"endpoint": f"127.0.0.1:{port}", "tls": {"insecure": True}})
        test.all_stored(f"nginx before a Collector's gRPC, {limit or 'defaults'}", node, SOME,
                        lambda: (sink.stored(), SOME))
        node.end()
        running.end()
        sink.end()


def haproxy_plain(test):
    sink = f"server sink 127.0.0.1:{test.sink().port}"
    proxied(test, "haproxy", "HAProxy, defaults", sinks.haproxy(test.work, "haproxy", sink))
    deny = ("option http-buffer-request\n"
            "    http-request deny deny_status 413 if { req.hdr_val(content-length) gt 16384 }")
    proxied(test, "haproxy-413", "HAProxy, denies bodies of more than 16 KiB with 413",
            sinks.haproxy(test.work, "haproxy-413", sink, deny), lines=SOME)


def haproxy_no_sink(test):
    """503 while nobody is behind it, 504 while it says nothing."""
    sink = test.sink()
    nobody = sinks.process.free_port()
    running, port = sinks.haproxy(test.work, "haproxy-503", f"server sink 127.0.0.1:{nobody}")
    test.kept_then_stored("haproxy-503", ["HTTP 503"], "otlphttp",
                          {"endpoint": f"http://127.0.0.1:{port}/insert/opentelemetry"},
                          {"endpoint": sink.endpoint}, running.end)
    silent = sinks.socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    running, port = sinks.haproxy(test.work, "haproxy-504", f"server sink {address}",
                                  mode_timeouts="timeout server 1s")
    test.kept_then_stored("haproxy-504", ["HTTP 504"], "otlphttp",
                          {"endpoint": f"http://127.0.0.1:{port}/insert/opentelemetry"},
                          {"endpoint": sink.endpoint}, running.end)
    silent.close()


def haproxy_header(test):
    """400 with a page of HAProxy's, since the request's head is larger than its buffer."""
    sink = test.sink()
    running, port = sinks.haproxy(test.work, "haproxy-400", f"server sink 127.0.0.1:{sink.port}")
    test.kept_then_stored(
        "haproxy-400", ["HTTP 400"], "otlphttp",
        {"endpoint": f"http://127.0.0.1:{port}/insert/opentelemetry", "headers": {"x": "y" * 20000}},
        {"endpoint": sink.endpoint}, running.end)


def haproxy_grpc(test):
    sink = sinks.Collector(test.tools, test.work, "haproxy-collector")
    running, port = sinks.haproxy(
        test.work, "haproxy-grpc", f"server sink 127.0.0.1:{sink.grpc} proto h2", bind="proto h2")
    node = test.agent("haproxy-grpc", agent.lines(BACKLOG, LINE_BYTES))
    node.start("otlp", {"endpoint": f"127.0.0.1:{port}", "tls": {"insecure": True}})
    test.all_stored("HAProxy before a Collector's gRPC", node, BACKLOG, lambda: (sink.stored(), BACKLOG))
    node.end()
    running.end()
    sink.end()


SCENARIOS = [
    victoria_logs_backlog, victoria_logs_wrong_path, victoria_logs_bad_header,
    victoria_logs_request_limit, victoria_logs_old_and_long,
    collector_backlog, collector_limits, collector_without_memory,
    nginx_body_limit, nginx_certificate, nginx_header, nginx_no_sink, nginx_page, nginx_grpc,
    haproxy_plain, haproxy_no_sink, haproxy_header, haproxy_grpc,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("tools", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("only", nargs="*", help="names of scenarios, or parts of them")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    check = checks.Checks()
    test = Test(options.binary.resolve(), options.tools, options.work, check)
    try:
        for scenario in SCENARIOS:
            if not options.only or any(part in scenario.__name__ for part in options.only):
                try:
                    scenario(test)
                except Exception as error:  # The others go on.
                    traceback.print_exc()
                    check.failed(scenario.__name__, str(error))
    finally:
        sinks.process.end_all()
    sys.exit(check.close())


if __name__ == "__main__":
    main()

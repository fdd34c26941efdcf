"""The sinks and the proxies before them, as they are where nobody has changed their defaults."""

import json
import socket
import subprocess
import urllib.parse

import process


class VictoriaLogs:
    def __init__(self, tools, work, name, *flags):
        self.port = process.free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.endpoint = f"{self.base}/insert/opentelemetry"
        self.process = process.Process(work / "sinks", name, [
            tools / "bin" / "victoria-logs", f"-httpListenAddr=127.0.0.1:{self.port}",
            f"-storageDataPath={work / 'sinks' / name}", *flags])
        process.until("VictoriaLogs is up", lambda: process.fetch(f"{self.base}/health"))

    def stored(self, pod):
        """Records of a pod, and how many different ones."""
        process.fetch(f"{self.base}/internal/force_flush")
        query = f'"k8s.pod.name":="{pod}" | stats count() records, count_uniq(_msg) different'
        # Old lines too; the default is all of the time.
        data = urllib.parse.urlencode({"query": query}).encode()
        answer = process.fetch(f"{self.base}/select/logsql/query", data)
        row = json.loads(answer or '{"records": 0, "different": 0}')
        return int(row["records"]), int(row["different"])

    def ignored(self):
        """Rows that it took and did not store, by reason."""
        samples = process.prometheus(f"{self.base}/metrics")
        return {name.split('reason="')[1].rstrip('"}'): round(value)
                for name, value in samples.items()
                if name.startswith("vl_rows_dropped_total{") and value}

    def end(self):
        self.process.end()


class Collector:
    """Counts what it receives; nothing is kept."""

    def __init__(self, tools, work, name, grpc=None, http=None, limiter=None):
        self.grpc, self.http, self.metrics = (process.free_port() for _ in range(3))
        receiver = {"protocols": {
            "grpc": {"endpoint": f"127.0.0.1:{self.grpc}", **(grpc or {})},
            "http": {"endpoint": f"127.0.0.1:{self.http}", **(http or {})}}}
        processors = {"memory_limiter": limiter} if limiter else {}
        config = {
            "receivers": {"otlp": receiver}, "processors": processors, "exporters": {"debug": {}},
            "service": {
                "pipelines": {"logs": {"receivers": ["otlp"], "processors": list(processors),
                                       "exporters": ["debug"]}},
                "telemetry": {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": {
                    "host": "127.0.0.1", "port": self.metrics}}}}]}},
            },
        }
        path = work / "sinks" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))
        self.process = process.Process(work / "sinks", name, [
            tools / "collector" / "otelcol", "--config", path])
        process.until("the Collector is up", lambda: self.process.is_running()
                      and "Everything is ready" in self.process.log())

    def stored(self):
        samples = process.prometheus(f"http://127.0.0.1:{self.metrics}/metrics")
        name = "otelcol_exporter_sent_log_records"
        return process.total(samples, name) + process.total(samples, f"{name}_total") + process.total(
            samples, f"{name}__records__total")

    def end(self):
        self.process.end()


def certificate(work):
    """A self-signed one for localhost; returns its path and its key's."""
    paths = work / "sinks" / "proxy.pem", work / "sinks" / "proxy.key"
    if not paths[0].exists():
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def nginx(work, name, location, server="", listen=""):
    """nginx with one server whose `/` is `location`; returns process and port."""
    port = process.free_port()
    base = work / "sinks" / name
    base.mkdir(parents=True)
    config = base / "nginx.conf"
    config.write_text(f"""
daemon off;
pid {base}/pid;
error_log stderr;
events {{}}
http {{
    access_log {base}/access.log;
    client_body_temp_path {base}/body;
    proxy_temp_path {base}/proxy;
    fastcgi_temp_path {base}/fastcgi;
    uwsgi_temp_path {base}/uwsgi;
    scgi_temp_path {base}/scgi;
    server {{
        listen 127.0.0.1:{port} {listen};
        {server}
        location / {{ {location} }}
    }}
}}
""")
    running = process.Process(work / "sinks", name, [
        "nginx", "-p", base, "-c", config, "-e", "stderr"])
    process.until("nginx is up", lambda: running.is_running() and (base / "pid").exists())
    return running, port


def haproxy(work, name, backend, frontend="", bind="", mode_timeouts=""):
    """HAProxy with one frontend and one backend; returns process and port."""
    port = process.free_port()
    config = work / "sinks" / f"{name}.cfg"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"""
global
    log stdout format raw local0
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    {mode_timeouts}
frontend all
    bind 127.0.0.1:{port} {bind}
    {frontend}
    default_backend sink
backend sink
    {backend}
""")
    running = process.Process(work / "sinks", name, ["haproxy", "-db", "-f", config])
    process.until("HAProxy is up", lambda: running.is_running() and connects(port))
    return running, port


def connects(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True

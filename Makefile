# Every command of the project. `make` lists them.
#
# Variables such as RATE or DURATION are not mentioned below: make hands those that the user set, on
# its command line or in the environment, to the recipes' environment, where `rig` reads them.
# CARGO_TARGET_DIR is honoured by leaving all paths of built files to cargo, and to `rig`, which
# looks for the other binaries beside itself.

.DEFAULT_GOAL := help

CARGO ?= cargo

# The binaries of a local run. They are selected by `--bin` without a package wherever they are
# built or run: then cargo resolves the same features each time, and builds nothing twice.
BINARIES := --bin thyme-agent --bin log-generator --bin nop-collector --bin rig
RIG := $(CARGO) run --quiet --release --bin rig --

.PHONY: help
help: ## List the commands
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

.PHONY: run
run: binaries ## Run generator, agent and collector for 30 s; RATE PODS DURATION LINES PROTOCOL COMPRESSION AGENT_CONFIG AGENT change it
	@exec $(RIG) run

.PHONY: kill-test
kill-test: binaries ## Kill the agent under load, KILLS=20 times; nothing may be lost
	@exec $(RIG) kill

.PHONY: outage-test
outage-test: binaries ## Take the sink away under load, OUTAGE=120s, OUTAGE_MODE=freeze or refuse; nothing may be lost, memory stays flat
	@exec $(RIG) outage

.PHONY: test
test: ## Build and test everything that needs neither root nor network
	$(CARGO) test --workspace

.PHONY: lint
lint: ## Check formatting, lints and documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet

.PHONY: deny
deny: ## Check licences, bans and sources of all dependencies (needs cargo-deny)
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		exec $(CARGO) deny check licenses bans sources; \
	else \
		echo 'cargo-deny is not installed: cargo install --locked cargo-deny@0.20' >&2; exit 1; \
	fi

.PHONY: bench
bench: ## Run the criterion benches
	$(CARGO) bench

.PHONY: bench-corpus
bench-corpus: binaries ## Compare the agent's CPU with pure compression over two corpora
	@exec $(CARGO) run --quiet --release --bin bench-corpus

.PHONY: binaries
binaries: ## Build the release binaries
	@$(CARGO) build --release $(BINARIES)

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean

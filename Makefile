# Two commands are all that a newcomer needs: `make run` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DATA_DIR ?= ./data
LISTEN ?= 127.0.0.1:9000
CARGO := cargo
RELEASE := target/release/keyway
HOST_ARCHITECTURE := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
# The architecture of deployed functions: arm64 or x86_64. If empty, make deploy keeps the stack's.
ARCHITECTURE ?=
# Of make deploy and make rollback: the stack's name; an archive of make dist-functions; parameters to change; options.
STACK ?=
FROM ?=
PARAMETERS ?=
OPTIONS ?=
# The features of the binary that exports traces, and of its tests, for the whole workspace: the rest is not built again.
OTLP := keyway/otlp,keyway-tests/otlp

.PHONY: help run demo test test-otlp test-upgrade test-docker test-clients test-console test-systemd check deny openapi settings-example template cost cost-tables performance-pages bench bench-instructions torture lambda build-lambda dist dist-functions deploy rollback size tools clean demo-aws

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools:
	@scripts/require-tools

# These builds report their commit.
run demo demo-aws lambda: export KEYWAY_COMMIT := $(shell scripts/commit)

run: tools ## Build Keyway and serve RustFS's KMS admin API on 127.0.0.1:9000
	$(CARGO) build --locked --release -p keyway
	$(RELEASE) serve --data-dir $(DATA_DIR) --listen $(LISTEN) --start --log-format text

demo: tools ## Walk through a key's life against a server of its own
	$(CARGO) build --locked --release -p keyway
	scripts/demo $(RELEASE)

demo-aws: tools ## Walk through a key's life between functions, over stand-ins for AWS
	$(CARGO) build --locked --release -p keyway -p keyway-fn-setup -p keyway-fn-keys -p keyway-fn-datakey
	scripts/demo-aws target/release

check: tools deny ## Format, lint, compile, check dependencies and generated files: the fast checks
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --workspace --bin keyway --test otlp --features $(OTLP) -- -D warnings
	$(CARGO) test --locked --workspace --test template -- made:: cost::
	$(CARGO) test --locked --workspace --test performance
	$(CARGO) test --locked --workspace --test in_process -- openapi::the_committed_document

deny: tools ## Check who depends on what, licences, sources and advisories
	scripts/deny

template: tools ## Write the deployment of the routes as they are now: template.yaml, scripts/lambda.toml, events
	KEYWAY_WRITE_TEMPLATE=1 $(CARGO) test --locked --workspace --test template -- made::
	events/make_events.py

openapi: tools ## Write the OpenAPI document of the routes as they are now
	KEYWAY_WRITE_OPENAPI=1 $(CARGO) test --locked --workspace --test in_process -- openapi::the_committed_document

settings-example: tools ## Write docs/examples/keyway.toml from the options of keyway serve as they are now
	KEYWAY_WRITE_EXAMPLE=1 $(CARGO) test --locked --workspace --test binary -- settings_file::the_committed_example

cost: tools ## Measure what AWS charges for, and write the tables of docs/cost.md
	$(CARGO) build --locked --workspace --bins
	KEYWAY_WRITE_COST=1 scripts/with-aws $(CARGO) test --locked --workspace --test aws -- cost::
	$(MAKE) cost-tables

cost-tables: tools ## Write the tables of docs/cost.md from docs/cost/prices.json and measured.json
	KEYWAY_WRITE_COST=1 $(CARGO) test --locked --workspace --test template -- cost::the_committed
	$(MAKE) performance-pages

performance-pages: tools ## Write the tables and plots of docs/performance.md from the results, the profile and the costs
	KEYWAY_WRITE_PERFORMANCE=1 $(CARGO) test --locked --workspace --test performance

test: check ## Everything that CI runs
	scripts/python-env
	scripts/node-env
	scripts/aws-tools >/dev/null
	scripts/bao >/dev/null
	scripts/postgres >/dev/null
	scripts/kms-clients >/dev/null
	scripts/kubernetes-validate >/dev/null
	$(CARGO) build --locked --workspace --bins
	scripts/with-aws $(CARGO) test --locked --workspace --lib --bins --tests
	$(MAKE) test-otlp
	scripts/build-lambda --for-tests $(HOST_ARCHITECTURE)
	[ "$$(uname -s)" != Linux ] || KEYWAY_TEST_FUNCTIONS=target/for-tests/lambda/$(HOST_ARCHITECTURE) scripts/with-aws $(CARGO) test --locked --workspace --test aws -- functions:: emulator
	scripts/fuzz 20

test-otlp: tools ## Test the binary that exports traces, with a collector
	$(CARGO) test --locked --workspace --features $(OTLP) --test otlp

test-upgrade: tools ## Nodes of an older build and of this one over one PostgreSQL; builds the older one, once
	scripts/postgres >/dev/null
	$(CARGO) build --locked --workspace --bins
	older=$$(CARGO="$(CARGO)" scripts/older-build) && \
		KEYWAY_TEST_OLDER_BINARY=$$older $(CARGO) test --locked --workspace --test postgres -- upgrade::

test-docker: tools ## The stores' contracts over LocalStack in a container; needs a Docker engine
	scripts/test-docker

test-clients: tools ## Clients that take minutes to get: RustFS's rc and KMS crate, and Ansible
	scripts/test-clients

test-console: tools ## RustFS's console in Chromium; needs its static files at KEYWAY_CONSOLE
	scripts/test-console

test-systemd: tools ## The Debian package on a machine that systemd boots; needs root, debootstrap and systemd-nspawn
	scripts/test-systemd

bench: tools ## Measure speed, memory and start against references, and write docs/performance; a quarter of an hour
	scripts/bench

bench-instructions: tools ## Count the instructions of each hot request, and compare them with the committed counts
	scripts/bench-instructions

torture: tools ## Run the long tests: long fuzzing, more kills, more keys
	scripts/fuzz 600
	KEYWAY_TORTURE=1 $(CARGO) test --locked -p keyway-secrets-file --lib
	KEYWAY_TORTURE=1 $(CARGO) test --locked -p keyway-tests -- --nocapture
	$(CARGO) build --locked --release -p keyway
	KEYWAY_TORTURE=1 KEYWAY_TEST_KEYWAY=$(RELEASE) $(CARGO) test --locked -p keyway-tests --test binary -- --nocapture hostile::

lambda: tools ## Serve the functions on 127.0.0.1:9100 as Lambda would, over local stand-ins for AWS
	@scripts/lambda

build-lambda: tools ## Build the functions for Lambda, for arm64 and x86_64, or for ARCHITECTURE alone
	scripts/build-lambda $(ARCHITECTURE)

dist: tools ## Make archives, Debian packages and checksums in target/dist, for arm64 and x86_64, or for ARCHITECTURE alone
	scripts/dist $(ARCHITECTURE)

dist-functions: tools ## Build an archive of the functions in target/dist, for make deploy FROM=ARCHIVE
	scripts/package-functions $(or $(ARCHITECTURE),arm64) target/dist

# Values of parameters may have spaces and quotes.
deploy: export PARAMETERS := $(PARAMETERS)
deploy: $(if $(FROM),,tools) ## Check the account, build the functions and deploy their stack; see docs/deploy.md
	scripts/deploy $(addprefix --stack-name ,$(STACK)) $(addprefix --from ,$(FROM)) \
		$(addprefix --architecture ,$(ARCHITECTURE)) $${PARAMETERS:+--parameters "$$PARAMETERS"} $(OPTIONS)

rollback: ## Go back to the functions of the deployment before, without a build; see docs/updates.md
	scripts/rollback $(addprefix --stack-name ,$(STACK)) $(OPTIONS)

size: tools ## Measure the functions' packages
	scripts/size

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf .venv tests/clients/node_modules .cache .aws-sam fuzz/target

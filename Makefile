# `make` or `make help` lists the targets. Every target does its own set-up, which is quick when there is nothing to do.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build demo test test-unit fuzz test-apiserver counted test-exact exact-keep bench-exact test-netns test-conformance conformance mutants test-programs test-cluster test-field field smoke kernels cluster cluster-down images release manifests torture soak bench bench-webhook bench-agent lint clean

SECONDS := 60
CASES := 30000
ARGUMENTS :=
# What tests start, always together (also in manifests/images/build.sh and tests/qemu): with fewer packages their dependencies get fewer
# features, and all is built once more. Not with sidestep-torture: built together, the agent would get the switches of tests, too.
PROGRAMS := -p sidestep-agent -p sidestep -p sidestep-webhook -p sidestep-kit --bins
TORTURE := -p sidestep-torture --bins
# Nor with this, an agent with another layout of all maps.
NEXT := -p sidestep-next --bins
# What the demo and the exact benchmark start, and a program of theirs.
QUICK := --profile quick -p sidestep-agent --bin sidestep-agent -p sidestep-kit --bin sidestep-app -p sidestep-bench --bin
# One kernel, three settings, two kinds of traffic.
GUARD := target/debug/sidestep-exact --kernel 6.12.117 --setting iptables,off,node --case one,connection-per-request

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

setup: ## install what is missing: compilers, the BPF linker, Envoy, network tools, QEMU, other kernels
	@tests/setup.sh

build: ## build the agent and the command line, optimised (needs no more than the compilers)
	@tests/setup.sh build
	cargo build --release -p sidestep-agent -p sidestep

demo: ## as root: the same traffic between two pods with Envoy sidecars: with iptables, with Sidestep, with its shortcut
	@tests/setup.sh demo
	cargo build $(QUICK) sidestep-demo
	@target/quick/sidestep-demo

test: ## everything: lint, unit tests, fuzzing for a minute, smoke tests in QEMU, network namespaces, API server, cluster, a second node
	@tests/all.sh lint test-unit fuzz smoke+test-exact test-netns test-conformance test-programs test-apiserver test-cluster test-field

counted: setup
	cargo build $(PROGRAMS)
	cargo build -p sidestep-bench -p sidestep-instructions

test-exact: counted ## what a request costs in instructions of the kernel, counted in QEMU, is what is kept in tests/bench/exact.json
	@$(GUARD) --against tests/bench/exact.json

exact-keep: counted ## keep what it costs now
	@$(GUARD) --keep tests/bench/exact.json

test-unit: setup ## unit and property tests: no privilege needed
	cargo test --no-fail-fast --workspace $(addprefix --exclude sidestep-,ebpf ebpf-hook ebpf-shortcut tests kit oracle torture cluster bench next)

fuzz: ## arbitrary reviews, policies and files for SECONDS=60, with libFuzzer
	@tests/setup.sh fuzz
	@webhook/fuzz/run.sh $(SECONDS)

test-apiserver: ## as root: chart, webhook and agent against a real API server, and Istio's own validation of gates
	@tests/setup.sh cluster
	cargo build $(PROGRAMS)
	cargo build $(NEXT)
	cargo test --no-fail-fast -p sidestep-tests --test manifests --test apiserver --test webhook_api --test kubelet --test gates

test-netns: setup ## as root: real BPF programs, sockets and Envoy, in network namespaces of their own
	cargo build $(PROGRAMS)
	cargo build $(TORTURE)
	cargo build $(NEXT)
	cargo test --no-fail-fast $(addprefix -p sidestep-,tests kit torture cluster bench) --lib --bins --test lifecycle --test mesh --test shortcut

test-conformance: ## as root: Istio's own rules and Sidestep send every connection to the same place: CASES=30000 walked as text, 50,000 with sockets
	@tests/setup.sh cluster
	cargo build $(PROGRAMS)
	cargo build -p sidestep-oracle
	@target/debug/sidestep-oracle compare --cases $(CASES)
	cargo test --no-fail-fast -p sidestep-oracle
	cargo test --no-fail-fast -p sidestep-tests --test conformance -- --nocapture

conformance: test-conformance ## the same, and then every row of the decision is changed, one at a time: the comparison must see each
	@target/debug/sidestep-oracle mutate

mutants: ## as root: change every row of the decision in every way that is listed, one at a time: the comparison must see each; five minutes
	@tests/setup.sh cluster
	cargo build -p sidestep-oracle
	@target/debug/sidestep-oracle mutate --all

test-programs: ## as root: nginx, PostgreSQL, Redis, Go, Java and others through real sidecars, with and without the shortcut
	@tests/setup.sh programs
	cargo build $(PROGRAMS)
	cargo test --no-fail-fast -p sidestep-tests --test programs

test-cluster: ## as root: end to end, on a real Kubernetes with Istio
	@tests/setup.sh cluster
	cargo build $(PROGRAMS)
	cargo test --no-fail-fast -p sidestep-cluster --test cluster

test-field: ## as root: the same with an emulated Debian 13 as a second node: agent and pods on it, and traffic between the two
	@tests/setup.sh field debian-13
	cargo build $(PROGRAMS)
	cargo test --no-fail-fast -p sidestep-cluster --test field -- nodes:: traffic::

field: ## as root: the same with three such machines, Debian 12, Debian 13, and that with Linux 7.3: what is on, what is off and why, as a table
	@tests/setup.sh field debian-13 debian-12 debian-13-backports
	cargo build $(PROGRAMS)
	SIDESTEP_FIELD=debian-13,debian-12,debian-13-backports cargo test --no-fail-fast -p sidestep-cluster --test field

cluster: ## as root: a real one-node Kubernetes with Istio and Sidestep, in namespaces of its own; says how to use it
	@if [ -e .parts/cluster/stamps/images ]; then echo "cluster: a few minutes"; \
	else echo "cluster: about 15 minutes the first time, which builds Kubernetes, Istio and Sidestep; a few from then on"; fi
	@tests/setup.sh cluster
	cargo build $(PROGRAMS)
	cargo build -p sidestep-cluster
	@target/debug/sidestep-cluster up >/dev/null
	@target/debug/sidestep-cluster install

cluster-down: ## as root: remove that cluster and everything of it
	@[ ! -x target/debug/sidestep-cluster ] || target/debug/sidestep-cluster down

images: ## the webhook's and the agent's images for amd64 and arm64 as OCI archives, .parts/images/*.tar, without a container engine
	@tests/setup.sh images
	manifests/images/build.sh

release: ## what a release consists of, in .parts/release/VERSION: programs and images for amd64 and arm64, chart, lists of parts, checksums
	@tests/setup.sh release
	manifests/release.sh

smoke: setup ## capture connections on Debian's 6.1 kernel, the agent in its container, prove the shortcut on 6.1, 6.12, 7.3 and arm64's 6.12, in QEMU
	@tests/qemu/smoke.sh
	@tests/qemu/kernels.sh small
	@tests/qemu/arm64.sh small

kernels: setup ## as root: everything on Debian's kernels 6.1 to 7.3, in QEMU, and on the running one, as a table; decisions on arm64: an hour
	@tests/setup.sh programs
	@tests/qemu/kernels.sh
	@tests/qemu/arm64.sh

torture: setup ## as root: a million random streams through the shortcut, every byte checked; goes on where it was ended
	cargo build --release $(PROGRAMS)
	cargo build --release $(TORTURE)
	@mkdir -p .parts
	@target/release/sidestep-torture run --connections $(or $(CONNECTIONS),1000000) --state .parts/torture.json

soak: setup ## as root: an agent for MINUTES=60, with pods, connections and agents that come and go: a line a minute, and what is left in the end
	@tests/setup.sh cluster
	cargo build $(PROGRAMS)
	cargo build $(TORTURE)
	@target/debug/sidestep-soak --minutes $(or $(MINUTES),60)

bench-exact: setup ## instructions of a request with each setting, counted in QEMU: tables; ARGUMENTS="--setting node --case one" for less, --help for all
	cargo build $(QUICK) sidestep-exact
	cargo build --profile quick -p sidestep-instructions
# By itself, since the agent must not get the switches of tests.
	cargo build --profile quick -p sidestep-bench --features naive --bin sidestep-exact
	@mkdir -p .parts/reports
	@target/quick/sidestep-exact --json .parts/reports/exact.json --svg .parts/reports/exact.svg $(ARGUMENTS)

bench: bench-exact ## as root: the same, and then requests/s and kernel CPU on this machine: one hop, sidecars, a real cluster; tables, pictures
	@tests/setup.sh cluster
	cargo build --release $(PROGRAMS) -p sidestep-bench
	cargo build --release $(TORTURE)
	@mkdir -p .parts/reports
	@target/release/sidestep-torture hop
	@target/release/sidestep-bench --json .parts/reports/shortcut.json --svg .parts/reports/shortcut.svg
	@target/release/sidestep-bench --cluster --json .parts/reports/cluster.json --svg .parts/reports/cluster.svg

bench-webhook: ## reviews per second, latency and memory of the admission server, as a table
	@tests/setup.sh build
	cargo bench -p sidestep-webhook --bench reviews

bench-agent: setup ## as root: from a pod's sandbox to its programs, memory and idle CPU with 500 pods, as a table
	@tests/setup.sh cluster
	cargo build --release $(PROGRAMS)
	cargo bench -p sidestep-bench --bench agent

manifests: ## render manifests/install.yaml from the chart
	@tests/setup.sh cluster
	@manifests/render.sh >manifests/install.yaml.part && mv manifests/install.yaml.part manifests/install.yaml

lint: ## formatting, clippy for the host and the BPF crates, licences and sources of dependencies
	@tests/setup.sh lint
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
# The BPF crate is checked as a host program; only the panic strategy has to be the BPF target's.
	CARGO_PROFILE_DEV_PANIC=abort cargo clippy -p sidestep-ebpf -p sidestep-ebpf-hook -p sidestep-ebpf-shortcut -- -D warnings
	PATH="$(CURDIR)/.parts/bin:$$PATH" cargo deny check --hide-inclusion-graph bans licenses sources

clean: ## remove what was built, and what set-up fetched or built into .parts/
	cargo clean
	rm -rf .parts

# The front door. `make help` lists what is here; CI calls these targets and nothing else.

# The static binaries that a node gets, and `weft-bare`, which `make bench` compares a plugin with. Plugins start for
# every pod and are built to be small (`Cargo.toml`).
PLUGINS := weft-cni weft-ipam
DAEMONS := weft-sidecar weft-node
CARGO_STATIC = cargo build --config .cargo/static.toml --target $(TARGET) --locked
# Each by itself: weft-ipam has a client of etcd in it, and the features of what is built together are one.
CARGO_PLUGIN = $(CARGO_STATIC) --config .cargo/plugin.toml --profile plugin
TARGET ?= $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
ARCH = $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(firstword $(subst -, ,$(TARGET)))))
OUT := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help rust build image test-image e2e-kind e2e-k8s e2e-netns deb demo test bench bench-mesh bench-node bench-xds fmt lint clean setup envoy

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

rust:
	@[ -n "$(TARGET)" ] || { echo "make: Rust 1.95 or newer is needed: https://rustup.rs" >&2; exit 1; }
	@[ -d "$$(rustc --print target-libdir --target $(TARGET) 2>/dev/null)" ] || \
	{ echo "make: this Rust cannot build for $(TARGET): rustup target add $(TARGET), and a linker for it (docs/operating.md)" >&2; exit 1; }

build: rust ## the static binaries, in target/release
	$(CARGO_PLUGIN) -p weft-cni -p weft-datapath --bin weft-cni --example weft-bare
	$(CARGO_PLUGIN) -p weft-ipam --bin weft-ipam
	$(CARGO_STATIC) --release $(addprefix -p ,$(DAEMONS))
	@mkdir -p $(OUT)/release/examples
	@cd $(OUT) && ln -f $(addprefix $(TARGET)/plugin/,$(PLUGINS)) $(addprefix $(TARGET)/release/,$(DAEMONS)) release/
	@cd $(OUT) && ln -f $(TARGET)/plugin/examples/weft-bare release/examples/

deb: build ## a Debian package for nodes without Kubernetes, in target/deb
	@deploy/debian/build $(OUT)/release $(OUT)/deb

demo: rust setup envoy build ## three pods, an Envoy, and a route that is edited while it serves
	@scripts/demo

test: rust setup envoy build ## every test, those on containerd and Envoy included
	WEFT_HELM=$$(scripts/helm) cargo test --workspace --locked

# For another architecture: TARGET=aarch64-unknown-linux-gnu, with its Rust target and its linker installed (docs/operating.md).
image: setup build ## one image FROM scratch with all of them, as an OCI archive: target/weft-image.tar
	@ARCH=$(ARCH) scripts/image

test-image: setup ## the image of the tests on Kubernetes: target/weft-test-image.tar
	@scripts/test-image

# Not part of `test` and CI: they need a cluster, or take minutes to make one.
e2e-kind: setup build ## a kind cluster with Weft, and the tests against it; needs docker and kind
	@scripts/e2e-kind

e2e-netns: rust setup build ## a cluster of three nodes in namespaces of this machine, and the tests against it
	@scripts/e2e-netns

e2e-k8s: rust ## the same tests against the cluster of KUBECONFIG, in which Weft is
	@scripts/e2e-k8s

bench: rust setup build ## ADD and DEL against the reference plugins and the least that it takes, side by side
	@scripts/bench

bench-mesh: rust setup envoy build ## a saved file until Envoy serves it, beside Envoy's own watching of files; a mesh of 1 000 services
	@cargo build --quiet --locked -p weft-e2e --bin weft-bench-mesh
	@$(OUT)/debug/weft-bench-mesh

bench-node: rust setup build ## memory of weft-node with 1 000 nodes and 10 000 EndpointSlices, and how soon a change is in its file
	@cargo build --quiet --locked -p weft-e2e --bin weft-bench-node
	@$(OUT)/debug/weft-bench-node

# Neither part of `bench` nor of CI: what it compares with takes minutes to build.
bench-xds: rust ## the xDS server against two other Rust crates, one endpoint changed among 10 000 clusters
	@command -v protoc >/dev/null || { echo "make: one of the crates needs protoc (protobuf-compiler)" >&2; exit 1; }
	cargo run --quiet --release --locked --manifest-path bench/xds/Cargo.toml

fmt: ## format the tree
	cargo fmt --all

lint: setup ## formatting, lints, documentation, licences; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	@if command -v cargo-deny >/dev/null; then cargo deny --locked --log-level error check bans licenses sources; \
	else echo "lint: cargo-deny is not installed, so deny.toml was not checked"; fi

clean: ## remove what was built
	cargo clean

# System packages and the pinned Envoy: silent where they are there already.
setup:
	@scripts/setup

envoy: setup
	@scripts/envoy >/dev/null

# lathe: make test is all that a change needs; the rest is in the README.
GO      ?= go
CACHE   ?= $(or $(LATHE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lathe)
PEER    := $(CACHE)/peer
ORT     := onnxruntime-node@1.30.0
SHARED  ?= $(or $(LATHE_SHARED),../shared)
FUZZ    ?= 20s
THREADS ?= 1,2
MINTIME ?= 200ms
BACKENDS ?= eval cpu
KERNELS ?= f32@x86-64-v3,f32-ieee@x86-64-v3,f32@x86-64-v4,f32-ieee@x86-64-v4

.PHONY: build test check vet fmt staticcheck rules bench bench-peer bench-kernels conformance fuzz bench-checkpoint peer generate clean

build: ## the binary, bin/lathe
	$(GO) build -buildvcs=auto -trimpath -o bin/lathe ./cmd/lathe

test: ## every test; says how many were skipped and why
	$(GO) run ./internal/testsum -timeout 30m ./...

check: vet fmt staticcheck rules ## what CI wants beside the tests

vet:
	$(GO) vet ./...

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }

staticcheck:
	$(GO) tool staticcheck ./...

rules:
	$(GO) test -count=1 ./internal/rules

bench: build ## Go benchmarks of the parts
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

# ONLY=REGEX times only some of the models, VARIANTS=f32,bf16 only some columns,
# MINTIME each for so long.
bench-peer: build peer ## latency, accuracy, start and memory beside ONNX Runtime's, every shared model: docs/benchmarks.md
	LATHE_ORT=$(PEER) bin/lathe bench --suite testdata/bench/peer.suite --peer auto --threads $(THREADS) --min-time $(MINTIME) --force --table docs/benchmarks.md \
	  $(if $(ONLY),--only '$(ONLY)') $(if $(VARIANTS),--variants $(VARIANTS)) $(SHARED)

bench-kernels: build ## layers of well-known networks against the machine's peak: docs/kernels.md
	bin/lathe bench --kernels all --variants $(KERNELS) --force --table docs/kernels.md

conformance: build ## ONNX's node cases, by family and by reason of refusal
	@for b in $(BACKENDS); do \
	  bin/lathe verify --testdata $(SHARED)/onnx-backend-tests/node --backend $$b --lenient --peers $(SHARED)/onnx-backend-tests/peers.tsv || exit $$?; done

fuzz: ## each fuzz target for FUZZ
	@grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read f; do \
	  grep -o '^func Fuzz[A-Za-z0-9_]*' $$f | cut -c6- | while read t; do \
	    echo "$$t ($$(dirname $$f))"; $(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZ) ./$$(dirname $$f) || exit 1; \
	  done || exit 1; done

bench-checkpoint: ## conversion and resharding of 1.5 GB checkpoints beside cp -r, with the bars checked
	$(GO) run ./zoo/checkpoint/benchmark -check

peer: $(PEER)/node_modules/onnxruntime-node/package.json ## ONNX Runtime, for comparisons only

$(PEER)/node_modules/onnxruntime-node/package.json:
	mkdir -p $(PEER)
	cd $(PEER) && npm install --ignore-scripts --no-audit --no-fund $(ORT)

generate: ## generated sources (a test holds that they are current)
	$(GO) generate ./...

clean:
	rm -rf bin dist

# make          build the programs into bin/
# make demo     bring everything up on this machine, and say what to try
# make test     run every test, as CI does
# make check    formatting, vet, staticcheck, modules, imports, no skipped test
# make bench    how fast it is, with PostgreSQL's fsync on
# make soak     broker and PostgreSQL killed 200 times under load, with fsync on
# make pictures take the README's pictures anew
# make clean    remove what the others made

.DEFAULT_GOAL := build
.PHONY: build demo test check bench soak pictures clean

# Dex is built at the version in tools/go.mod and kept in Go's cache. The
# settings are those of internal/dex, so that both find the same program.
DEX = cd tools && GOFLAGS= GOWORK=off CGO_ENABLED=0 go tool -n dex

# Static programs: one that was built here runs on hosts with an older libc, too.
BUILD = CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

build:
	$(BUILD)

demo:
	@scripts/install-deps demo
	@echo 'Building (two minutes the first time, then seconds) …'
	@$(BUILD)
	@$(DEX) >/dev/null
	@exec bin/sallyportd demo

test:
	@scripts/install-deps test
	@$(DEX) >/dev/null
	go test -race -timeout 20m ./...

check:
	@scripts/check

soak:
	SALLYPORT_CRASH_ROUNDS=200 SALLYPORT_CRASH_CALLERS=64 go test -count=1 -timeout 60m -v -run TestP1_BrokerKilledAgainAndAgain ./internal/e2e

bench:
	@scripts/install-deps test
	@$(DEX) >/dev/null
	go test -run '^$$' -bench . -benchtime 5x ./internal/e2e
	go test -run '^$$' -bench . ./approvals/policy
	go test -run '^$$' -bench . ./broker/agents
	go test -run '^$$' -bench Thousand -benchtime 5x ./broker/rollout
	go test -run '^$$' -bench Token -benchtime 200x ./broker/rollout
	go test -run '^$$' -bench Search ./audit
	go test -run '^$$' -bench . -benchtime 100x ./cmd/sally-host

pictures:
	@scripts/install-deps test
	@$(DEX) >/dev/null
	SALLYPORT_PICTURES=$(CURDIR)/docs/images go test -count=1 -run TestIncident ./internal/e2e

clean:
	rm -rf bin .demo

# Plain `make` lists the targets. Each installs what it needs first, into .venv alone.
# ARGS="…" is passed on: make test ARGS="tests/unit -k backoff", make up ARGS="--help".
# AMQP_URL=… and MONGO_URL=… name servers to use instead of starting some. RABBITMQ=4 starts RabbitMQ 4.0.5 (Debian
# trixie's, unpacked into .servers/cache) wherever one is started, instead of the one that this machine has.
# RABBITMQ_IMAGE=… and MONGO_IMAGE=… name images for `make test`, which then runs on containers of them or fails.

.DEFAULT_GOAL := help
.PHONY: help install demo up test long chaos delays away mixed priorities revoking releases groups upgrade soak lint check fuzz bench
.PHONY: docs image containers compose lock clean
.PHONY: dashboards pictures

BIN := .venv/bin
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' dispatcher/__init__.py)
IMAGE ?= job-dispatcher:$(VERSION)
SOURCES := $(wildcard schemas config dispatcher consumers deploy dev examples bench tests)
COMPILE = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.installed ## install the project and its tools into .venv, pinned and checked by hash

demo: install ## run a few hundred jobs end to end on real servers, and show what happened
	@$(BIN)/python -m dev.demo $(ARGS)

up: install ## start servers and every service in the foreground, until Ctrl-C (data stays in .servers/up)
	@$(BIN)/python -m dev.up $(ARGS)

test: install ## run the tests, on real servers
	@$(BIN)/python -m dev.test $(ARGS)

long: install ## run the tests that take long, which `make test` leaves out; some 8 minutes
	@$(BIN)/python -m dev.test --long -m long $(ARGS)

chaos: install ## publish 100,000 jobs while everything is killed, cut off and frozen; print the ledger
	@$(BIN)/python -m tests.faults $(ARGS)

delays: install ## put off 6,000 jobs, kill the broker twice while they wait; nothing may be lost, none early
	@$(BIN)/python -m tests.faults.delays $(ARGS)

away: install ## take MongoDB away for 4 minutes, then RabbitMQ nine times, under load; ask /readyz all the time
	@$(BIN)/python -m tests.faults.away $(ARGS)

mixed: install ## 500 short jobs a second beside some of 300 s, a worker killed; the short ones keep their rate
	@$(BIN)/python -m tests.faults.mixed $(ARGS)

priorities: install ## a backlog of lower jobs, higher ones meanwhile, three workers; what starts when
	@$(BIN)/python -m tests.faults.priorities $(ARGS)

revoking: install ## revoke 60 keys under load; until when is each still accepted?
	@$(BIN)/python -m tests.faults.revoking $(ARGS)

releases: install ## 100,000 jobs with long delays, due in the same second; how fast they come, and what waits
	@$(BIN)/python -m tests.faults.releases $(ARGS)

groups: install ## 100,000 members of 1,000 groups while dispatchers and RabbitMQ are killed; each in one batch?
	@$(BIN)/python -m tests.faults.gathering $(ARGS)

upgrade: install ## two versions side by side under load, service by service, there and back; nothing may be lost
	@$(BIN)/python -m tests.faults.upgrading $(ARGS)

.PHONY: restore screenshots
restore: install ## save both servers, go on, destroy and restore them in four ways; is every job there? Some 10 minutes
	@$(BIN)/python -m tests.faults.restoring $(ARGS)

screenshots: .venv-pictures/.installed ## take docs/images/rabbitmq-*.png anew, of RabbitMQ 4 at work; some 5 minutes
	@.venv-pictures/bin/python -m dev.screenshots $(ARGS)

soak: install ## an hour of load with a million queued jobs: the memory of every process stays flat
	@$(BIN)/python -m tests.soak $(ARGS)

.PHONY: chart
chart: install ## lint and package the Helm chart into dist/ (ARGS="template jobs helm -f my-values.yaml": any helm command)
	@$(BIN)/python -m dev.helm $(ARGS)

lint: install ## lint, format, types and import rules
	@echo "lint: ruff" && $(BIN)/ruff check $(SOURCES)
	@echo "lint: format" && $(BIN)/ruff format --check $(SOURCES)
	@echo "lint: types" && $(BIN)/mypy
	@echo "lint: import rules" && $(BIN)/lint-imports --no-cache

check: lint ## the same and the unit tests: under a minute, no server
	@echo "check: unit tests" && $(BIN)/pytest -q tests/unit

fuzz: install ## hostile inputs to intake and the recorder for a minute; finds are kept in tests/corpus
	@$(BIN)/python -m dev.fuzz $(ARGS)

docs: install ## build the documentation site into build/site (ARGS=serve: show it while you write)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(ARGS),build --strict)

dashboards: install ## write the Grafana dashboards, helm/files/dashboards, from their description in dev/dashboards
	@$(BIN)/python -m dev.dashboards $(ARGS)

pictures: .venv-pictures/.installed ## some five minutes of a real installation; what its dashboards showed, into docs/images
	@.venv-pictures/bin/python -m tests.pictures $(ARGS)

bench: .venv-bench/.installed ## measure, beside Celery (see bench/)
	@.venv-bench/bin/python -m bench $(ARGS)

image: ## build the image job-dispatcher:VERSION (BASE_IMAGE=… for another base, IMAGE=… for another name)
	@docker build $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(shell git rev-parse --short=12 HEAD) --tag $(IMAGE) .

containers: install ## build the image and run docker-compose.yml with it; check everything, and print what was seen
	@$(BIN)/python -m dev.image $(ARGS)

compose: ## run everything in containers, with a demo, Prometheus and Grafana; docs/deploy-compose.md
	@docker compose --profile demo --profile observability up --build --detach --wait
	@docker compose run --rm links

.PHONY: image-name
image-name: ## print what the image is called
	@echo $(IMAGE)

.PHONY: dist release-check licences audit sbom zizmor hooks
dist: install ## build wheel and sdist into dist/; check contents, metadata, and that they can be made the same again
	@$(BIN)/python -m dev.dist

release-check: install ## may this commit be released? TAG=v1.2.3 against version, chart and CHANGELOG.md
	@$(BIN)/python -m dev.release $(if $(TAG),"$(TAG)") $(ARGS)

licences: install ## list the licences of what is shipped; fails if one would bind those who use it
	@$(BIN)/python -m dev.licences

audit: .venv-project/.installed ## look for known vulnerabilities in requirements/runtime.txt; fails if one cannot be asked about
	@.venv-project/bin/pip-audit --strict --require-hashes --disable-pip -r requirements/runtime.txt $(ARGS)

sbom: install .venv-project/.installed ## what the product consists of, in build/sbom (ARGS="--image NAME": of an image)
	@$(BIN)/python -m dev.sbom $(ARGS)

zizmor: install ## audit the workflows; with GH_TOKEN set also whether each pinned action is what its version says
	@$(BIN)/zizmor $(if $(GH_TOKEN),,--offline) $(ARGS) .github

hooks: install .venv-project/.installed ## run the hooks of .pre-commit-config.yaml on all files
	@.venv-project/bin/pre-commit run --all-files $(ARGS)

lock: .venv-lock/.installed ## make the pinned requirements anew (UPGRADE=--upgrade takes newer releases)
	@echo "lock: runtime" && $(COMPILE) $(UPGRADE) pyproject.toml -o requirements/runtime.txt > /dev/null
	@echo "lock: dev" && $(COMPILE) $(UPGRADE) pyproject.toml --group dev --group ship \
		-c requirements/runtime.txt -o requirements/dev.txt > /dev/null
	@echo "lock: pictures" && $(COMPILE) $(UPGRADE) pyproject.toml --group dev --group ship --group pictures \
		-c requirements/dev.txt -o requirements/pictures.txt > /dev/null
	@echo "lock: bench" && $(COMPILE) $(UPGRADE) pyproject.toml --group dev --group bench \
		-c requirements/runtime.txt -o requirements/bench.txt > /dev/null
	@echo "lock: build" && $(COMPILE) $(UPGRADE) --group build \
		-c requirements/dev.txt -o requirements/build.txt > /dev/null
	@echo "lock: project" && $(COMPILE) $(UPGRADE) --group project -o requirements/project.txt > /dev/null
	@echo "lock: tools" && $(COMPILE) $(UPGRADE) --group lock -o requirements/lock.txt > /dev/null

clean: ## stop what runs in .servers and remove it, the environments and the caches
	@python3 -m dev.clean
	@rm -rf .venv .venv-bench .venv-pictures .venv-project .venv-lock build dist *.egg-info
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean"

.venv/.installed: requirements/dev.txt pyproject.toml dev/install.sh
	@dev/install.sh .venv requirements/dev.txt

.venv-bench/.installed: requirements/bench.txt pyproject.toml dev/install.sh
	@dev/install.sh .venv-bench requirements/bench.txt

.venv-pictures/.installed: requirements/pictures.txt pyproject.toml dev/install.sh
	@dev/install.sh .venv-pictures requirements/pictures.txt

.venv-project/.installed: requirements/project.txt dev/install.sh
	@dev/install.sh .venv-project requirements/project.txt --tools-only

.venv-lock/.installed: requirements/lock.txt dev/install.sh
	@dev/install.sh .venv-lock requirements/lock.txt --tools-only

# Everything that can be done here, from a fresh clone with git, make, Rust and apt:
#
#   make             the binaries, in target/release
#   make check       what CI calls lint
#   make test        all tests; those that need the kernel run as root, in private namespaces
#   make test-long   the proof of the policy language with a million verdicts; VERDICTS=50000 for so many
#   make test-newer  Podman 5 and Docker 26, from a Debian 13 of their own under target/ (600 MB)
#   make test-kernels  tests on kernels of Debian's, each in a virtual machine; KERNELS=6.1 TESTS=lab_traffic for some
#   make test-system  the packages on a Debian of its own, booted by systemd-nspawn (target/system, 260 MB)
#   make fuzz        TARGET=cni SECONDS=60: hostile bytes for a parser (tests/fuzz); needs cargo-fuzz and a nightly toolchain
#   make bench       figures for BENCHMARKS.md; ONLY=tcp. measures those whose names begin so
#   make demo        a shop of containers on two hosts; KEEP=1 leaves it open
#   make install     DESTDIR and PREFIX as usual
#   make deb, rpm    packages, in target/packages
#   make setup       the Debian packages that the above need (each does that by itself)
#
# Root is needed by the tests, bench and demo only: through sudo unless make is root already.

CARGO ?= cargo
PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
CNIDIR ?= $(PREFIX)/lib/cni
NETAVARKDIR ?= $(PREFIX)/lib/netavark
MANDIR ?= $(PREFIX)/share/man
# Where zsh looks below share/zsh: Debian's packages have vendor-completions.
ZSHDIR ?= site-functions
SYSCONFDIR ?= /etc

AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
TRIPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
MULTIARCH := $(shell gcc -print-multiarch 2>/dev/null || echo $$(uname -m)-linux-gnu)
# Test programs, not cargo itself, run as root.
RUNNER := CARGO_TARGET_$(shell echo $(TRIPLE) | tr a-z- A-Z_)_RUNNER
export LIBBPF_SYS_LIBRARY_PATH ?= /usr/lib/$(MULTIARCH)
ifneq ($(AS_ROOT),)
export $(RUNNER) = $(AS_ROOT)
endif

# What each goal needs: a program or file, and the Debian package that has it.
BUILD_NEEDS := clang-19|clang:clang-19|clang gcc:gcc /usr/include/libelf.h:libelf-dev /usr/include/zlib.h:zlib1g-dev pkg-config:pkg-config
# The last are real container runtimes, which tests start by themselves, in private namespaces.
TEST_NEEDS := ip:iproute2 podman:podman crun:crun containerd:containerd runc:runc /usr/lib/cni/loopback:containernetworking-plugins /usr/share/doc/busybox-static:busybox-static iptables:iptables dockerd:docker.io
NEWER_NEEDS := mmdebstrap:mmdebstrap cpio:cpio xz:xz-utils zstd:zstd strip:binutils
SYSTEM_NEEDS := mmdebstrap:mmdebstrap systemd-nspawn:systemd-container lintian:lintian rpmlint:rpmlint zsh:zsh fish:fish
BENCH_NEEDS := nft:nftables /usr/lib/cni/bridge:containernetworking-plugins nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client
DEMO_NEEDS := nginx:nginx-light curl:curl redis-server:redis-server redis-cli:redis-tools ping:iputils-ping
CHECK_NEEDS := clang-format-19|clang-format:clang-format-19|clang-format mandoc:mandoc
DEB_NEEDS := dpkg-shlibdeps:dpkg-dev readelf:binutils
RPM_NEEDS := rpmbuild:rpm readelf:binutils

.PHONY: all build setup check test test-long fuzz test-newer test-kernels test-system bench demo install install-files deb rpm clean
all: build

build: setup-build
	$(CARGO) build --release --locked

setup: setup-build setup-test setup-bench setup-demo setup-check

setup-build: NEEDS = $(BUILD_NEEDS)
setup-test: NEEDS = $(BUILD_NEEDS) $(TEST_NEEDS)
setup-newer: NEEDS = $(BUILD_NEEDS) $(TEST_NEEDS) $(NEWER_NEEDS)
setup-system: NEEDS = $(BUILD_NEEDS) $(TEST_NEEDS) $(DEB_NEEDS) $(RPM_NEEDS) $(SYSTEM_NEEDS)
setup-bench: NEEDS = $(BUILD_NEEDS) $(TEST_NEEDS) $(BENCH_NEEDS)
setup-demo: NEEDS = $(BUILD_NEEDS) $(TEST_NEEDS) $(DEMO_NEEDS)
setup-check: NEEDS = $(BUILD_NEEDS) $(CHECK_NEEDS)
setup-deb: NEEDS = $(BUILD_NEEDS) $(DEB_NEEDS)
setup-rpm: NEEDS = $(BUILD_NEEDS) $(RPM_NEEDS)

SETUPS := setup-build setup-test setup-newer setup-system setup-bench setup-demo setup-check setup-deb setup-rpm
.PHONY: $(SETUPS)
$(SETUPS):
	@AS_ROOT="$(AS_ROOT)" .ci/need $(foreach need,$(NEEDS),'$(need)')
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: see https://rustup.rs" >&2; exit 1; }

check: setup-check
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$$(command -v clang-format-19 || command -v clang-format) --dry-run -Werror \
		$$(find bpf -name '*.h' ! -name vmlinux.h -o -name '*.c')
	mandoc -T lint -W warning man/*.[0-9]

test: setup-test
	$(CARGO) test --locked --no-fail-fast

# Every variant that a world asks for is loaded, and the code is as fast as what is shipped.
VERDICTS ?= 1000000
test-long: setup-test
	PORIN_PROOF_VERDICTS=$(VERDICTS) PORIN_PROOF_VARIANTS=1000000 \
		$(CARGO) test --locked --profile bench --test proof -- --nocapture

# Container runtimes newer than Debian 12's, by the same tests. What is half made does not count.
# A mirror; empty: mmdebstrap's own.
DEBIAN ?=
NEWER := $(CURDIR)/target/newer
NEWER_PACKAGES := podman,netavark,crun,docker.io,docker-cli,containerd,runc,iptables,iproute2
test-newer: setup-newer
	[ -e $(NEWER)/root ] || { mkdir -p $(NEWER) && $(AS_ROOT) rm -rf --one-file-system $(NEWER)/new && \
		$(AS_ROOT) mmdebstrap --variant=minbase --include=$(NEWER_PACKAGES) \
			trixie $(NEWER)/new $(DEBIAN) && $(AS_ROOT) mv $(NEWER)/new $(NEWER)/root; }
	PORIN_NEWER_ROOT=$(NEWER)/root $(CARGO) test --locked \
		--test lab_podman5 --test lab_docker --test lab_docker_adopt

# Hours for all of it: the machines are emulated.
KERNELS ?=
TESTS ?=
test-kernels: setup-newer
	$(AS_ROOT) env CARGO='$(CARGO)' DEBIAN='$(DEBIAN)' TESTS='$(TESTS)' tests/kernels/run $(CURDIR)/target/kernels $(KERNELS)

# The package on a Debian that systemd boots.
SYSTEM := $(CURDIR)/target/system
SYSTEM_PACKAGES := systemd,systemd-sysv,systemd-container,dbus,udev,iproute2
test-system: setup-system
	[ -e $(SYSTEM)/root ] || { mkdir -p $(SYSTEM) && $(AS_ROOT) rm -rf --one-file-system $(SYSTEM)/new && \
		$(AS_ROOT) mmdebstrap --variant=minbase --include=$(SYSTEM_PACKAGES) \
			bookworm $(SYSTEM)/new $(DEBIAN) && $(AS_ROOT) mv $(SYSTEM)/new $(SYSTEM)/root; }
	PORIN_SYSTEM_ROOT=$(SYSTEM)/root $(CARGO) test --locked --test packages --test system

TARGET ?= cni
SECONDS ?= 60
fuzz: setup-build
	$(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz $(TARGET) -- -max_total_time=$(SECONDS) -max_len=16384

bench: setup-bench
	$(CARGO) bench --locked --bench porin -- --only '$(ONLY)' $(if $(ROUNDS),--rounds $(ROUNDS))

demo: setup-demo
	$(CARGO) test --locked --test demo -- $(if $(KEEP),--keep)

# Where the binaries are, and a porinctl that runs here: it prints its own completions.
BINARIES ?= target/release
PORINCTL ?= $(BINARIES)/porinctl
install: build
	$(MAKE) --no-print-directory install-files

# An existing porin.toml stays: it is the operator's.
install-files:
	install -D -m 755 $(BINARIES)/porind $(DESTDIR)$(SBINDIR)/porind
	install -D -m 755 $(BINARIES)/porinctl $(DESTDIR)$(BINDIR)/porinctl
	install -D -m 755 $(BINARIES)/porin-cni $(DESTDIR)$(CNIDIR)/porin-cni
	install -d -m 755 $(DESTDIR)$(NETAVARKDIR)
	ln -sfr $(DESTDIR)$(CNIDIR)/porin-cni $(DESTDIR)$(NETAVARKDIR)/porin
	cd etc && find cni porin/examples -type f | while read -r example; do \
		install -D -m 644 "$$example" "$(DESTDIR)$(PREFIX)/share/doc/porin/examples/$${example#porin/examples/}" || exit 1; \
	done
	install -d -m 755 $(DESTDIR)$(SYSCONFDIR)/porin/endpoints.d $(DESTDIR)$(SYSCONFDIR)/porin/policies.d
	[ -e $(DESTDIR)$(SYSCONFDIR)/porin/porin.toml ] || \
		install -m 644 etc/porin/porin.toml $(DESTDIR)$(SYSCONFDIR)/porin/porin.toml
	for page in man/*.[0-9]; do \
		install -D -m 644 "$$page" "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}"; \
	done
	install -d -m 755 $(DESTDIR)$(UNITDIR)
	for unit in porind.service porin-boot.service; do \
		sed 's|/usr/sbin/|$(SBINDIR)/|' systemd/$$unit >$(DESTDIR)$(UNITDIR)/$$unit && \
			chmod 644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	install -m 644 systemd/porin-netns@.service $(DESTDIR)$(UNITDIR)/porin-netns@.service
	install -D -m 644 systemd/sysusers.conf $(DESTDIR)$(SYSUSERSDIR)/porin.conf
	install -D -m 644 systemd/tmpfiles.conf $(DESTDIR)$(TMPFILESDIR)/porin.conf
	for shell in bash:bash-completion/completions/porinctl zsh:zsh/$(ZSHDIR)/_porinctl \
		fish:fish/vendor_completions.d/porinctl.fish; do \
		file="$(DESTDIR)$(PREFIX)/share/$${shell#*:}" && install -d -m 755 "$${file%/*}" && \
			$(PORINCTL) completions "$${shell%%:*}" >"$$file" && chmod 644 "$$file" || exit 1; \
	done

# Reproducible: the same commit and tools make the same bytes. packaging/README.md says how, and why so.
PACKAGES := target/packages
deb: setup-deb build
	packaging/deb $(BINARIES) $(PACKAGES)

rpm: setup-rpm build
	packaging/rpm/build $(BINARIES) $(PACKAGES)

clean:
	$(CARGO) clean

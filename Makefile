# SPDX-License-Identifier: MIT
# make demo and make test are all a newcomer types. Each installs what is missing, builds and runs.

SWIFT ?= swift
CLANG = $$(dirname "$$(command -v $(SWIFT))")/clang
SHELL = /bin/bash
# Headers to build with; opened at run time: the CPU of the software kernel, and a disassembler for run --step. Of packages
# between commas one is enough: the first that the distribution has.
PACKAGES = libc6-dev libunicorn2 libcapstone4,libcapstone5
# The lab: QEMU and an initramfs for lab/boot, a kernel build for lab/kernel/build.
LAB_PACKAGES = qemu-system-x86 busybox-static cpio make gcc binutils flex bison bc perl patch xz-utils zstd libelf-dev \
    libssl-dev
BUILD = .build-release

.PHONY: help setup lab-setup lab build demo test browser-test bench dist docs man install sanitize embedded reworded example soak fuzz hostile explore tables glossary clean

help:
	@echo "make demo      a tour in six acts"
	@echo "make test      the test suite"
	@echo "make browser-test  the page timeline in a headless Chromium"
	@echo "make bench     the monitor against plain C"
	@echo "make dist      a stripped binary with Swift's libraries inside, in dist/"
	@echo "make docs      the library's documentation, in .build-docs/MiniVMM.doccarchive"
	@echo "make man       man pages and shell completions, in dist/"
	@echo "make install   the binary, its man pages and completions, under PREFIX (/usr/local) and DESTDIR"
	@echo "make sanitize  the test suite under the address sanitizer"
	@echo "make embedded  the model of the interface for WebAssembly, with Embedded Swift"
	@echo "make reworded  every message rewritten, and every diagnosis found unchanged"
	@echo "make example   the package of the README that uses the library"
	@echo "make soak      10,000 VMs, and not one descriptor left"
	@echo "make fuzz      a million texts for the reader of litmus tests"
	@echo "make hostile   170,000 guests that are made to break the software CPU"
	@echo "make explore   each planted fault is found by random tests"
	@echo "make tables    what the litmus tests say of every kernel at hand, as litmus/TABLES.md and in the README"
	@echo "make glossary  docs/GLOSSARY.md, from the table that minivmm explain uses"
	@echo "make lab       the tests that want a real kernel, on one under QEMU; the first time builds it, see lab/README.md"
	@echo "make lab-setup what lab/boot and lab/kernel/build take, see lab/README.md"

setup:
	@command -v $(SWIFT) >/dev/null || { \
	    echo "No Swift toolchain on the PATH; https://www.swift.org/install/linux has them." >&2; exit 1; }
	@is_there() { dpkg-query -W -f '$${Status}' $$1 2>/dev/null | grep -q 'ok installed'; }; \
	missing=; for p in $(PACKAGES); do \
	    for q in $${p//,/ }; do is_there $$q && continue 2; done; missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	first_known() { for q in $${1//,/ }; do apt-cache show $$q >/dev/null 2>&1 && break; q=$${1%%,*}; done; echo $$q; }; \
	chosen() { for p in $$missing; do first_known $$p; done | tr '\n' ' '; }; \
	install() { apt-get install -y -qq $$(chosen); }; \
	if ! command -v apt-get >/dev/null; then \
	    echo "This system has no apt; install what it calls$$missing (C headers, the Unicorn engine, Capstone)." >&2; \
	elif [ "$$(id -u)" != 0 ]; then \
	    echo "Missing:$$missing. Install with:  sudo apt-get install -y $$(chosen)" >&2; exit 1; \
	else \
	    echo "installing $$(chosen)"; \
	    { install || { apt-get update -qq && install; }; } >/dev/null; \
	fi

# A machine that boots kernels needs no Swift, hence a command for it that is there.
lab-setup:
	@$(MAKE) --no-print-directory setup SWIFT=make PACKAGES="$(LAB_PACKAGES)"

lab: setup lab-setup
	@lab/check

# The demo needs no optimisation, and a debug build is the quickest to have.
demo: setup
	@$(SWIFT) build --product minivmm
	@.build/debug/minivmm demo

test: setup
	@$(SWIFT) build --build-tests
	@events=$$(mktemp); trap "rm -f $$events" EXIT; status=0; \
	$(SWIFT) test --skip-build --event-stream-version 0 --event-stream-output-path $$events || status=$$?; \
	$$($(SWIFT) build --show-bin-path)/ktap --summary < $$events; exit $$status

# The page of --report, driven by keys and clicks in a browser; installs Chromium where there is none.
browser-test: setup
	@command -v chromium >/dev/null || $(MAKE) --no-print-directory setup SWIFT=make PACKAGES=chromium
	@$(SWIFT) build --build-tests
	@MINIVMM_BROWSER=$$(command -v chromium) $(SWIFT) test --skip-build --filter BrowserTests

# What a start costs decides: not position independent, since relocating 15 MB takes a third of it, and C++'s library
# inside, in a directory that has nothing else of that name, since binding it takes another tenth. FoundationEssentials
# brings a mktemp that nobody calls; the linker's warning about it is left out.
build: setup
	@mkdir -p $(BUILD)/lib
	@ln -sf "$$($(CLANG) -print-file-name=libstdc++.a)" $(BUILD)/lib/
	@set -o pipefail; $(SWIFT) build -c release --product minivmm --scratch-path $(BUILD) --static-swift-stdlib \
	    --disable-local-rpath -Xlinker -L$(BUILD)/lib -Xswiftc -Xclang-linker -Xswiftc -static-libgcc \
	    -Xswiftc -Xclang-linker -Xswiftc -no-pie 2>&1 | { grep -v 'mktemp. is dangerous' || true; }

bench: build
	@$(BUILD)/release/minivmm bench

# A copy: what strip writes lies in the page cache so that a process maps 2 MiB more of it (22 instead of 20, measured).
dist: build
	@mkdir -p dist
	@strip -o $(BUILD)/minivmm $(BUILD)/release/minivmm
	@cp $(BUILD)/minivmm dist/minivmm
	@ls -l dist/minivmm

# The library's articles and its public symbols. A warning fails it, a link that leads nowhere for one; what is let pass is a
# parameter without words of its own. What other modules say is not ours.
DOCS = .build-docs
docs: setup
	@mkdir -p $(DOCS)/symbols
	@$(SWIFT) build --target MiniVMM --scratch-path $(DOCS)/build -Xswiftc -emit-symbol-graph \
	    -Xswiftc -emit-symbol-graph-dir -Xswiftc $(abspath $(DOCS))/symbols
	@find $(DOCS)/symbols -name '*.symbols.json' ! -name 'MiniVMM*' -delete
	@docc=$$(dirname $$(readlink -f $$(command -v $(SWIFT))))/docc; \
	$$docc convert Sources/MiniVMM/MiniVMM.docc --fallback-display-name MiniVMM \
	    --fallback-bundle-identifier minivmm --additional-symbol-graph-dir $(DOCS)/symbols \
	    --output-path $(DOCS)/MiniVMM.doccarchive > $(DOCS)/log 2>&1 || { cat $(DOCS)/log; exit 1; }; \
	awk '/^(warning|error): / && !/^warning: Parameter .* is missing documentation$$/ \
	    { print; getline; print; bad = 1 } END { exit bad }' $(DOCS)/log
	@echo "$(DOCS)/MiniVMM.doccarchive: docc preview shows it"

# Written by the command itself. The pages carry the date of the last change, where git knows it.
man: dist
	@rm -rf dist/man dist/completions
	@mkdir -p dist/man dist/completions
	@dist/minivmm generate-manual dist/man --date "$$(git log -1 --format=%cs 2>/dev/null)"
	@for s in bash zsh fish; do dist/minivmm --generate-completion-script $$s > dist/completions/minivmm.$$s; done
	@ls dist/man dist/completions

PREFIX ?= /usr/local
install: man
	@install -D -m 755 dist/minivmm $(DESTDIR)$(PREFIX)/bin/minivmm
	@install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 dist/man/*.1
	@install -D -m 644 dist/completions/minivmm.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/minivmm
	@install -D -m 644 dist/completions/minivmm.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_minivmm
	@install -D -m 644 dist/completions/minivmm.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/minivmm.fish

# The thread sanitizer cannot see Swift's Mutex on Linux (a futex in a library that it does not instrument) and
# reports every access under one. Leaks are not counted: what the runtime keeps for ever is reported as lost.
sanitize: setup
	@ASAN_OPTIONS=detect_leaks=0 $(SWIFT) test --sanitize=address --scratch-path .build-asan

# A package of its own, that depends on this one as any user's would.
example: setup
	@$(SWIFT) run --package-path docs/example

# No code may look into a message: what is said of each error, finding and test stays the same when all words change.
reworded: setup
	@SWIFT=$(SWIFT) Tests/Reworded/check

# The model imports nothing and has to compile for a browser, too.
embedded:
	@mkdir -p $(BUILD)
	@swiftc=$$(dirname "$$(command -v $(SWIFT))")/swiftc; \
	"$$swiftc" -parse-as-library -swift-version 6 -strict-memory-safety -warnings-as-errors -wmo -Osize \
	    -enable-experimental-feature Embedded -target wasm32-unknown-none-wasm -module-name ConversionModel \
	    -c $$(find Sources/ConversionModel -name '*.swift' | sort) -o $(BUILD)/ConversionModel.o
	@ls -l $(BUILD)/ConversionModel.o

# The long version of what the suite does quickly: 10,000 VMs, and not one descriptor left.
soak: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_SOAK_VMS=10000 $(SWIFT) test --skip-build --filter virtualMachinesLeaveNoDescriptorsBehind

# The long version of what the suite does with fewer.
fuzz: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_FUZZ_INPUTS=1000000 $(SWIFT) test --skip-build --filter nothingThatIsReadBreaksTheReader

# Every opcode with every prefix, and 100,000 random guests, on the software CPU.
hostile: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_HOSTILE=1 $(SWIFT) test --skip-build --filter HostileGuestTests

# Each planted fault is found by tests that nobody wrote.
explore: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_EXPLORE=1 $(SWIFT) test --skip-build --filter ExplorationTests

tables: setup lab-setup
	@lab/tables

# docs/GLOSSARY.md, from Sources/Explain/Glossary. A test compares the two.
glossary: setup
	@MINIVMM_WRITE_GLOSSARY=1 $(SWIFT) test --filter GlossaryTests >/dev/null
	@echo docs/GLOSSARY.md

clean:
	@rm -rf .build .build-* dist

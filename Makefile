# SPDX-License-Identifier: MIT
# A newcomer only needs make demo and make test. Each installs what is missing, builds and runs.

SWIFT ?= swift
CLANG = $$(dirname "$$(command -v $(SWIFT))")/clang
SHELL = /bin/bash
# Headers for the build, and two libraries that are opened at run time: Unicorn, the CPU of SoftKVM, and Capstone, the
# disassembler of run --step. Of packages separated by commas, the first that the distribution has is installed.
PACKAGES = libc6-dev libunicorn2 libcapstone4,libcapstone5
# The lab: QEMU and an initramfs for lab/boot, build tools for lab/kernel/build.
LAB_PACKAGES = qemu-system-x86 busybox-static cpio make gcc binutils flex bison bc perl patch xz-utils zstd libelf-dev \
    libssl-dev
BUILD = .build-release

.PHONY: help setup lab-setup lab build demo test newcomer browser-test bench dist docs man install sanitize embedded reworded example playground playground-table playground-test soak fuzz hostile explore exercises scale tables programs glossary lecture clean

help:
	@echo "make demo      show six acts: guests convert memory"
	@echo "make test      run the test suite"
	@echo "make newcomer  type the commands of docs/start.md in a fresh clone"
	@echo "make browser-test  test the page timeline in a headless Chromium"
	@echo "make bench     compare the monitor with plain C"
	@echo "make dist      build a stripped binary with Swift's libraries inside, in dist/"
	@echo "make docs      build the reference of the library, in .build-docs/html"
	@echo "make man       write man pages and shell completions to dist/"
	@echo "make install   install binary, man pages, completions and litmus tests under DESTDIR/PREFIX (/usr/local)"
	@echo "make sanitize  run the test suite under the address sanitizer"
	@echo "make embedded  compile the model for WebAssembly, with Embedded Swift"
	@echo "make playground  build the playground, one HTML file, in dist/ (docs/playground.md)"
	@echo "make playground-test  run every litmus test in the playground, in node and in a headless Chromium"
	@echo "make playground-table  write litmus/PLAYGROUND.md, the playground's verdicts beside the command's"
	@echo "make reworded  rewrite every message and check that no result depends on the words"
	@echo "make example   build and run the package of docs/library.md"
	@echo "make soak      create 10,000 VMs and check that no descriptor leaks"
	@echo "make fuzz      parse a million mutated litmus tests, and a million mutated images of each format"
	@echo "make hostile   run 170,000 guests that try to break the software CPU"
	@echo "make explore   check that random tests find each planted fault"
	@echo "make exercises check many seeds of the exercises, and their table of faults"
	@echo "make scale     run the litmus tests of 100,000 and a million runs of attributes on every backend"
	@echo "make tables    run the litmus tests on every backend, for litmus/TABLES.md and docs/litmus.md"
	@echo "make programs  export the litmus tests as C programs, compile them, and compare their verdicts in the lab"
	@echo "make glossary  write docs/GLOSSARY.md from the terms of minivmm explain"
	@echo "make lecture   make the slides, notes and pictures of docs/lecture.md in dist/lecture"
	@echo "make lab       run the tests that need a real kernel, under QEMU; the first run builds it (docs/lab.md)"
	@echo "make lab-setup install what lab/boot and lab/kernel/build need"

setup:
	@command -v $(SWIFT) >/dev/null || { \
	    echo "There is no Swift toolchain on the PATH. Install one from https://www.swift.org/install/linux" >&2; exit 1; }
	@is_there() { dpkg-query -W -f '$${Status}' $$1 2>/dev/null | grep -q 'ok installed'; }; \
	missing=; for p in $(PACKAGES); do \
	    for q in $${p//,/ }; do is_there $$q && continue 2; done; missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	first_known() { for q in $${1//,/ }; do apt-cache show $$q >/dev/null 2>&1 && break; q=$${1%%,*}; done; echo $$q; }; \
	chosen() { for p in $$missing; do first_known $$p; done | tr '\n' ' '; }; \
	install() { apt-get install -y -qq $$(chosen); }; \
	if ! command -v apt-get >/dev/null; then \
	    echo "This system has no apt. Install its packages for$$missing (C headers, the Unicorn engine, Capstone)." >&2; \
	elif [ "$$(id -u)" != 0 ]; then \
	    echo "Missing:$$missing. Install with:  sudo apt-get install -y $$(chosen)" >&2; exit 1; \
	else \
	    echo "installing $$(chosen)"; \
	    { install || { apt-get update -qq && install; }; } >/dev/null; \
	fi

# A machine that only boots kernels needs no Swift, so SWIFT names a command that exists.
lab-setup:
	@$(MAKE) --no-print-directory setup SWIFT=make PACKAGES="$(LAB_PACKAGES)"

lab: setup lab-setup
	@lab/check

# A debug build is the fastest to build, and fast enough for the demo.
demo: setup
	@$(SWIFT) build --product minivmm
	@.build/debug/minivmm demo

test: setup
	@$(SWIFT) build --build-tests
	@events=$$(mktemp); trap "rm -f $$events" EXIT; status=0; \
	$(SWIFT) test --skip-build --event-stream-version 0 --event-stream-output-path $$events || status=$$?; \
	$$($(SWIFT) build --show-bin-path)/ktap --summary < $$events; exit $$status

# Types the commands of docs/start.md in a fresh clone of this repository.
newcomer: setup
	@Tests/Newcomer/check

# Tests the page of --report with keys and clicks in a browser. Installs Chromium if it is missing.
browser-test: setup
	@command -v chromium >/dev/null || $(MAKE) --no-print-directory setup SWIFT=make PACKAGES=chromium
	@$(SWIFT) build --build-tests
	@MINIVMM_BROWSER=$$(command -v chromium) $(SWIFT) test --skip-build --filter BrowserTests

# Linked for a fast start. Not position independent, because relocating 15 MB takes a third of the start. With libstdc++
# inside, from a directory without a shared version of it, because binding it takes another tenth. Without the 7,600 dynamic
# symbols that nothing looks up, with identical functions folded, and without unwind tables, which only C++ exceptions need:
# 3.3 MB less. The linker is lld, because gold cannot leave out unwind tables.
build: setup
	@mkdir -p $(BUILD)/lib
	@ln -sf "$$($(CLANG) -print-file-name=libstdc++.a)" $(BUILD)/lib/
	@echo 'SECTIONS { /DISCARD/ : { *(.eh_frame) } } INSERT AFTER .text;' > $(BUILD)/lib/no-unwind-tables.ld
	@$(SWIFT) build -c release --product minivmm --scratch-path $(BUILD) --static-swift-stdlib \
	    --disable-local-rpath -Xlinker -L$(BUILD)/lib -Xlinker --no-export-dynamic -Xlinker --icf=safe \
	    -Xlinker --no-eh-frame-hdr -Xlinker -T$(BUILD)/lib/no-unwind-tables.ld -Xswiftc -use-ld=lld \
	    -Xswiftc -Xclang-linker -Xswiftc -static-libgcc \
	    -Xswiftc -Xclang-linker -Xswiftc -no-pie

bench: build
	@$(BUILD)/release/minivmm bench

# Copied, because a process maps 2 MiB more of a file as strip leaves it in the page cache (22 instead of 20, measured).
dist: build
	@mkdir -p dist
	@strip -o $(BUILD)/minivmm $(BUILD)/release/minivmm
	@cp $(BUILD)/minivmm dist/minivmm
	@ls -l dist/minivmm

# The articles and public symbols of the library. Warnings, such as a broken link, are errors; missing parameter descriptions
# are tolerated. Symbols of other modules are left out.
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
	@docc=$$(dirname $$(readlink -f $$(command -v $(SWIFT))))/docc; \
	rm -rf $(DOCS)/html; \
	$$docc process-archive transform-for-static-hosting $(DOCS)/MiniVMM.doccarchive --output-path $(DOCS)/html
	@echo "To read it, run this command and open http://localhost:8000/documentation/minivmm:"
	@echo "  python3 -m http.server --directory $(DOCS)/html 8000"

# Written by the command itself. The pages carry the date of the last commit, if there is a repository.
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
	@install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/minivmm/litmus litmus/*.litmus litmus/README.md litmus/TABLES.md
	@for d in scale snp tdx; do install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/minivmm/litmus/$$d litmus/$$d/*.litmus || exit 1; done
	@echo "installed under $(DESTDIR)$(PREFIX); try: minivmm litmus $(PREFIX)/share/minivmm/litmus"

# Not the thread sanitizer: it does not see Swift's Mutex on Linux (a futex in a library that it does not instrument) and
# reports every access under one. Leak detection is off, because it reports memory that the runtime never frees.
sanitize: setup
	@ASAN_OPTIONS=detect_leaks=0 $(SWIFT) test --sanitize=address --scratch-path .build-asan

# A separate package that depends on this one, like a user's.
example: setup
	@$(SWIFT) run --package-path docs/example

# No code may parse the words of a message: results must stay the same when all messages are rewritten.
reworded: setup
	@SWIFT=$(SWIFT) Tests/Reworded/check

# The model imports nothing, and must also compile for a browser.
embedded:
	@mkdir -p $(BUILD)
	@swiftc=$$(dirname "$$(command -v $(SWIFT))")/swiftc; \
	"$$swiftc" -parse-as-library -swift-version 6 -strict-memory-safety -warnings-as-errors -wmo -Osize \
	    -package-name minivmm -enable-experimental-feature Embedded -target wasm32-unknown-none-wasm -module-name ConversionModel \
	    -c $$(find Sources/ConversionModel -name '*.swift' | sort) -o $(BUILD)/ConversionModel.o
	@ls -l $(BUILD)/ConversionModel.o

# The model in one HTML file: the modules that it needs, compiled for WebAssembly, and the page. A module may import those before
# it. wasi-libc has the allocator and the functions on memory that Embedded Swift calls.
PLAYGROUND_MODULES ?= ConversionModel LitmusModel Exercises Playground
playground: setup
	@[ -e /usr/lib/wasm32-wasi/libc.a ] || $(MAKE) --no-print-directory setup SWIFT=make PACKAGES=wasi-libc
	@SWIFT=$(SWIFT) Sources/Playground/build dist/playground.html $(BUILD)/playground $(PLAYGROUND_MODULES)

# Both commands judge the same tests; TABLE_OPTION=--check compares litmus/PLAYGROUND.md instead of writing it.
playground-table: playground
	@command -v node >/dev/null || $(MAKE) --no-print-directory setup SWIFT=make PACKAGES=nodejs
	@$(SWIFT) build --product minivmm
	@.build/debug/minivmm litmus --backend soft --format json litmus litmus/snp litmus/tdx \
	    > $(BUILD)/playground/command.json || [ $$? = 1 ]
	@node Tests/Playground/verdicts.mjs $(BUILD)/playground/playground.wasm $(BUILD)/playground/library.txt \
	    $(BUILD)/playground/command.json litmus/PLAYGROUND.md $(TABLE_OPTION)
	@node Tests/Playground/exercises.mjs $(BUILD)/playground/playground.wasm .build/debug/minivmm 10 docs/exercises/*-*.txt

# With keys and clicks, from a file and without a network. Installs Chromium if it is missing.
playground-test: playground
	@$(MAKE) --no-print-directory playground-table TABLE_OPTION=--check
	@command -v chromium >/dev/null || $(MAKE) --no-print-directory setup SWIFT=make PACKAGES=chromium
	@$(SWIFT) build --build-tests
	@MINIVMM_BROWSER=$$(command -v chromium) MINIVMM_PLAYGROUND=$(abspath dist/playground.html) \
	    $(SWIFT) test --skip-build --filter PlaygroundPageTests

# The long version of a test of the suite: 10,000 VMs leave no descriptor behind.
soak: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_SOAK_VMS=10000 $(SWIFT) test --skip-build --filter virtualMachinesLeaveNoDescriptorsBehind

# The long version of a test of the suite.
IMAGES ?= 1000000
fuzz: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_FUZZ_INPUTS=1000000 $(SWIFT) test --skip-build --filter nothingThatIsReadBreaksTheReader
	@MINIVMM_FUZZ_INPUTS=$(IMAGES) $(SWIFT) test --skip-build --filter everyFormatSurvivesMutations

# Every opcode with every prefix, and 100,000 random guests, on the software CPU.
hostile: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_HOSTILE=1 $(SWIFT) test --skip-build --filter "HostileGuestTests|ConfidentialInstructionTests"

# Random tests find each planted fault.
explore: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_EXPLORE=1 $(SWIFT) test --skip-build --filter ExplorationTests

# The long version of tests of the suite: more seeds, and every row of the table in docs/exercises.md.
exercises: setup
	@$(SWIFT) build --build-tests
	@MINIVMM_EXERCISES=1 $(SWIFT) test --skip-build --filter ExercisesTests

# The tests of litmus/scale. Status 4 means that every test was skipped, as on a kernel without conversion in place.
scale: build lab-setup
	@lab/scale

tables: setup lab-setup
	@lab/tables

programs: setup lab-setup
	@lab/programs

# docs/GLOSSARY.md, from Sources/Explain/Glossary. A test compares the two.
glossary: setup
	@MINIVMM_WRITE_GLOSSARY=1 $(SWIFT) test --filter GlossaryTests >/dev/null
	@echo docs/GLOSSARY.md

# Slides, notes and pictures in dist/lecture; each command is run for them. Installs cmark-gfm and Chromium if they are missing.
# MINIVMM is a program that is already built. LECTURE_OPTION=--check writes nothing, and needs neither of them.
lecture: setup
	@[ "$(LECTURE_OPTION)" = --check ] || for p in cmark-gfm chromium; do \
	    command -v $$p >/dev/null || $(MAKE) --no-print-directory setup SWIFT=make PACKAGES=$$p || exit 1; done
	@[ -n "$(MINIVMM)" ] || $(SWIFT) build --product minivmm
	@MINIVMM="$(or $(MINIVMM),.build/debug/minivmm)" docs/lecture/build $(LECTURE_OPTION)

clean:
	@rm -rf .build .build-* dist

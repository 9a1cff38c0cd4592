# SPDX-License-Identifier: MIT
# Sourced by lab/selftest: the tests of lab/kernel/build, with a toy kernel source. The archive is a directory that apt
# reads through APT_CONFIG.

# toy_tree DIR: creates the parts of a kernel tree that lab/kernel/build uses. Each build appends a line to `builds`.
toy_tree() {
    mkdir -p "$1"/{arch/x86/kvm,include/uapi/linux,scripts/kconfig,virt/kvm}
    : >"$1/Kconfig"
    printf '%s\n' 'one' 'two' 'three' 'four' >"$1/virt/kvm/guest_memfd.c"
    echo '#define KVM_CAP_GUEST_MEMFD 234' >"$1/include/uapi/linux/kvm.h"
    cat >"$1/Makefile" <<'TEXT'
tinyconfig: ; @: > $(O)/.config
olddefconfig: ; @grep -v REFUSED $(O)/.config > $(O)/.config.new; mv $(O)/.config.new $(O)/.config
bzImage:
	@if [ -e slow ]; then touch $(O)/begun; sleep 1000; fi
	@if [ -e broken ]; then echo "virt/kvm/guest_memfd.c:2:1: error: expected something" >&2; exit 1; fi
	@mkdir -p $(O)/arch/x86/boot; cat virt/kvm/guest_memfd.c > $(O)/arch/x86/boot/bzImage
	@: > $(O)/System.map; echo built >> $(O)/builds
TEXT
    cat >"$1/scripts/kconfig/merge_config.sh" <<'TEXT'
#!/bin/sh
shift 4
cat "$@" >> .config
TEXT
    chmod +x "$1/scripts/kconfig/merge_config.sh"
}

# Copies the lab, so that tests can change its patches and its configuration.
toy_lab() {
    rm -rf "$scratch/lab"
    mkdir -p "$scratch/lab/kernel"
    cp "$lab_dir"/*.bash "$scratch/lab/"
    cp "$lab_dir"/kernel/{build,*.bash} "$scratch/lab/kernel/"
    printf 'CONFIG_%s=y\n' 64BIT PRINTK TTY SERIAL_8250 SERIAL_8250_CONSOLE BLK_DEV_INITRD BINFMT_ELF BINFMT_SCRIPT \
        DEVTMPFS PROC_FS KVM KVM_AMD >"$scratch/lab/kernel/config"
    rm -rf "${XDG_CACHE_HOME:?}/minivmm/kernels"
    build=$scratch/lab/kernel/build
    kernels=$XDG_CACHE_HOME/minivmm/kernels
}
toy_patch() { # FILE LINE: a patch that replaces line 2 of the toy, which must be LINE
    printf '%s\n' '--- a/virt/kvm/guest_memfd.c' '+++ b/virt/kvm/guest_memfd.c' '@@ -1,3 +1,3 @@' \
        ' one' "-$2" '+patched' ' three' >"$scratch/lab/kernel/$1.patch"
}

# archive_with VERSION…: creates an archive that offers linux-source-VERSION, and configures apt to use only that one.
archive_with() {
    local version package file
    rm -rf "$scratch/archive" "$scratch/apt"
    mkdir -p "$scratch/archive" "$scratch/apt/lists/partial" "$scratch/apt/cache/archives/partial"
    for version; do
        package=$scratch/package
        rm -rf "$package"
        mkdir -p "$package/DEBIAN" "$package/usr/src"
        [[ -d $scratch/toy ]] || toy_tree "$scratch/toy"
        tar -C "$scratch" -cJf "$package/usr/src/linux-source-$version.tar.xz" \
            --transform "s|^toy|linux-source-$version|" toy
        printf '%s\n' "Package: linux-source-$version" "Version: $version.1-1" 'Architecture: all' \
            'Maintainer: nobody <nobody@example.org>' 'Description: toy' >"$package/DEBIAN/control"
        file=linux-source-$version.deb
        dpkg-deb --root-owner-group -b "$package" "$scratch/archive/$file" >/dev/null
        {
            cat "$package/DEBIAN/control"
            printf '%s\n' "Filename: ./$file" "Size: $(stat -c %s "$scratch/archive/$file")" \
                "SHA256: $(sha256sum <"$scratch/archive/$file" | cut -d' ' -f1)" ''
        } >>"$scratch/archive/Packages"
    done
    configure_apt "deb [trusted=yes] file:$scratch/archive ./"
    apt-get -qq update >"$scratch/apt/log" 2>&1 || fail "the toy archive: $(cat "$scratch/apt/log")"
}
configure_apt() { # LINE: the only line in apt's list of archives
    mkdir -p "$scratch/apt/lists/partial"
    printf '%s\n' "$1" >"$scratch/apt/list"
    cat >"$scratch/apt/conf" <<TEXT
Dir::Etc::sourcelist "$scratch/apt/list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$scratch/apt/lists";
Dir::Cache "$scratch/apt/cache";
APT::Sandbox::User "$(id -un)";
TEXT
    export APT_CONFIG=$scratch/apt/conf
}
no_archive() { configure_apt 'deb http://127.0.0.1:9/debian trixie main'; }

# Prints the path that the last run printed; it must be the only line on standard output.
built() {
    ended_with 0 ''
    [[ $(wc -l <"$out") == 1 && -f $(cat "$out") ]] || fail "standard output is not the path of a file:" "$(cat "$out")"
    cat "$out"
}
no_partial_build() {
    local left
    left=$(find "$kernels" -maxdepth 1 -name 'build.*' -type d)
    [[ -z $left ]] || fail "left behind in the cache: $left"
}

# --- a developer's tree

t "build: an unknown option" expect 64 'unknown argument --nonsense' "$lab_dir/kernel/build" --nonsense
t "build: --jobs 0" expect 64 "not '0'" "$lab_dir/kernel/build" --jobs 0
t "build: a tree that does not exist" expect 66 'not a Linux kernel tree' "$lab_dir/kernel/build" --tree /nowhere
t "build: a directory that is not a kernel tree" expect 66 'not a Linux kernel tree' "$lab_dir/kernel/build" --tree /etc
t "build: a configuration file that does not exist" expect 66 'configuration file /nowhere does not exist' \
    "$lab_dir/kernel/build" --config /nowhere

tree_is_built() {
    toy_lab
    toy_tree "$scratch/tree"
    local before image
    before=$(cd "$scratch/tree" && find . -type f -exec sha256sum {} + | sort)
    run "$build" --tree "$scratch/tree" --print
    ended_with 1 'not been built'
    run "$build" --tree "$scratch/tree"
    image=$(built)
    cmp "$image" "$scratch/tree/virt/kvm/guest_memfd.c"
    same "$(cd "$scratch/tree" && find . -type f -exec sha256sum {} + | sort)" "$before"
    echo five >>"$scratch/tree/virt/kvm/guest_memfd.c"
    run "$build" --tree "$scratch/tree"
    same "$(built)" "$image"
    cmp "$image" "$scratch/tree/virt/kvm/guest_memfd.c"
    run "$build" --tree "$scratch/tree" --print
    same "$(built)" "$image"
}
t "build: a tree, and again after an edit; the tree is not written to" tree_is_built

tree_gains_an_item() {
    toy_lab
    rm -rf "$scratch/tree"
    toy_tree "$scratch/tree"
    # shellcheck disable=SC2016  # for make
    sed -i 's/^olddefconfig: .*/&; grep -q NEW Kconfig || sed -i "\/NEW\/d" $(O)\/.config/' "$scratch/tree/Makefile"
    echo CONFIG_NEW=y >"$scratch/new.config"
    local image config
    run "$build" --tree "$scratch/tree" --config "$scratch/new.config"
    ended_with 0 'CONFIG_NEW: requested y, is n'
    image=$(cat "$out")
    config=${image%/arch/*}/.config
    echo 'config NEW' >"$scratch/tree/Kconfig"
    run "$build" --tree "$scratch/tree" --config "$scratch/new.config"
    same "$(built)" "$image"
    grep -qx CONFIG_NEW=y "$config" || fail "the item of the new Kconfig is not set"
}
t "build: a tree that has an item which an earlier commit did not have" tree_gains_an_item

tree_built_in_place() {
    toy_lab
    toy_tree "$scratch/dirty"
    : >"$scratch/dirty/.config"
    expect 66 'mrproper' "$build" --tree "$scratch/dirty"
}
t "build: a tree that was built in place" tree_built_in_place

tree_does_not_compile() {
    toy_lab
    toy_tree "$scratch/broken"
    : >"$scratch/broken/broken"
    expect 70 'guest_memfd.c:2:1: error: expected something' "$build" --tree "$scratch/broken"
}
t "build: a tree that does not compile" tree_does_not_compile

refused_item() {
    toy_lab
    toy_tree "$scratch/tree"
    echo 'CONFIG_REFUSED=y' >"$scratch/extra"
    run "$build" --tree "$scratch/tree" --config "$scratch/extra"
    ended_with 0 'CONFIG_REFUSED: requested y, is n'
    echo '# CONFIG_KVM_AMD is not set' >"$scratch/extra"
    sed -i '/KVM_AMD/d' "$scratch/lab/kernel/config"
    expect 76 'CONFIG_KVM_AMD' "$build" --tree "$scratch/tree" --config "$scratch/extra"
}
t "build: refused configuration items" refused_item

build_interrupted() {
    local pid status=0 waited
    toy_lab
    toy_tree "$scratch/slow"
    : >"$scratch/slow/slow"
    env --default-signal=TERM "$build" --tree "$scratch/slow" >"$out" 2>"$err" &
    pid=$!
    for ((waited = 0; waited < 300; waited++)); do
        [[ -z $(find "$kernels" -name begun 2>/dev/null) ]] || break
        sleep 0.1
    done
    kill -TERM "$pid"
    wait "$pid" || status=$?
    same "$status" 143
}
t "build: ended by TERM" build_interrupted

# --- the archive

archive_kernel_is_cached() {
    toy_lab
    toy_patch 0001-change two
    run "$build" --print
    ended_with 1 'no kernel has been built'
    archive_with 6.12 7.3 7.10
    local image
    run "$build"
    image=$(built)
    ended_with 0 'building linux-source-7.10 7.10.1-1'
    same "$(sed -n 2p "$image")" patched
    same "$(ls "${image%/*}")" $'System.map\nbzImage\nconfig\nsource'
    no_partial_build
    # With a cached kernel no archive is needed, and a newer source is used only with --update.
    no_archive
    run "$build"
    same "$(built)" "$image"
    archive_with 7.11
    run "$build"
    same "$(built)" "$image"
    run "$build" --print
    same "$(built)" "$image"
    run "$build" --update
    [[ $(built) != "$image" ]] || fail "--update returned the old kernel"
    ended_with 0 'linux-source-7.11'
    # Different inputs produce a different kernel.
    run "$build" --no-patch
    same "$(sed -n 2p "$(built)")" two
    run "$build" --print
    same "$(sed -n 2p "$(built)")" patched
}
t "build: the newest source of the archive, patched, cached, updated" archive_kernel_is_cached

ended_while_waiting() {
    local pid status=0
    toy_lab
    mkdir -p "$kernels"
    exec {held}>"$kernels/lock"
    flock "$held"
    env --default-signal=TERM "$build" >"$out" 2>"$err" {held}>&- &
    pid=$!
    for ((waited = 0; waited < 300; waited++)); do
        ! grep -q 'waiting for it' "$err" || break
        sleep 0.1
    done
    kill -TERM "$pid"
    wait "$pid" || status=$?
    same "$status" 143
}
t "build: ended while it waits for another build" ended_while_waiting

builds_at_once() {
    local first status=0
    toy_lab
    archive_with 7.4
    "$build" >"$scratch/first" 2>&1 &
    first=$!
    run "$build"
    wait "$first" || status=$?
    same "$status" 0
    same "$(tail -n 1 "$scratch/first")" "$(built)"
    same "$(cat "$err" "$scratch/first" | grep -c 'building linux')" 1
}
t "build: of two at once, only one builds" builds_at_once

patch_does_not_apply() {
    toy_lab
    toy_patch 0001-change two
    toy_patch 0002-again two
    archive_with 7.4
    expect 75 '0002-again.patch does not apply to linux-source-7.4 7.4.1-1' "$build"
    grep -q 'virt/kvm/guest_memfd.c' "$err" || fail "does not name the file" "$(cat "$err")"
    no_partial_build
}
t "build: a patch that does not apply" patch_does_not_apply

patches_are_left_out() {
    toy_lab
    toy_patch 0001-change nothing-there
    toy_tree "$scratch/toy"
    echo '#define KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES 252' >>"$scratch/toy/include/uapi/linux/kvm.h"
    archive_with 7.5
    rm -rf "$scratch/toy"
    run "$build"
    ended_with 0 'no patch is applied'
    same "$(sed -n 2p "$(built)")" two
}
t "build: the patches are left out when the source has the change" patches_are_left_out

too_old() {
    toy_lab
    archive_with 6.1 7.2
    mkdir -p "$scratch/archive/empty"
    configure_apt "deb [trusted=yes] file:$scratch/archive/empty trixie main"
    expect 72 'offers linux-source 7.3 or newer' "$build"
}
t "build: the archive has no source that is new enough" too_old

unsigned() {
    toy_lab
    rm -rf "$scratch/unsigned" "$scratch/apt"
    mkdir -p "$scratch/unsigned/dists/trixie-backports"
    printf '%s\n' 'Suite: trixie-backports' "Date: $(date -u -R)" 'Architectures: amd64' 'Components: main' 'SHA256:' \
        >"$scratch/unsigned/dists/trixie-backports/Release"
    configure_apt "deb file:$scratch/unsigned trixie main"
    expect 74 'signature of trixie-backports is not valid' "$build"
    no_partial_build
}
t "build: an archive without a signature" unsigned

unreachable() {
    toy_lab
    rm -rf "$scratch/apt"
    no_archive
    expect 71 'cannot be reached' "$build"
    no_partial_build
}
t "build: an archive that cannot be reached" unreachable
no_archives() {
    toy_lab
    rm -rf "$scratch/apt"
    configure_apt ''
    expect 71 'no archive configured' "$build"
}
t "build: no archive configured" no_archives

# --- patches of --patch

# extra_patch LINE WITH: prints the path of a patch that replaces LINE of the toy.
extra_patch() {
    local file=$scratch/extra-$2.patch
    case $1 in
        three) printf '%s\n' '--- a/virt/kvm/guest_memfd.c' '+++ b/virt/kvm/guest_memfd.c' '@@ -2,3 +2,3 @@' ' patched' \
            '-three' "+$2" ' four' ;;
        two) printf '%s\n' '--- a/virt/kvm/guest_memfd.c' '+++ b/virt/kvm/guest_memfd.c' '@@ -1,3 +1,3 @@' ' one' \
            '-two' "+$2" ' three' ;;
    esac >"$file"
    printf '%s\n' "$file"
}
contents() { tr '\n' ' ' <"$(built)"; }

patches_are_added() {
    local race leak
    toy_lab
    toy_patch 0001-change two
    race=$(extra_patch three race)
    leak=$(extra_patch three leak)
    archive_with 7.4
    run "$build" --patch "$race"
    same "$(contents)" 'one patched race four '
    same "$(sed -n 3,4p "$(dirname "$(built)")/source")" $'0001-change.patch\nextra-race.patch'
    # The second one needs no archive, and is built with the same object files.
    no_archive
    run "$build" --patch "$leak"
    same "$(contents)" 'one patched leak four '
    same "$(cat "$kernels"/patched-*/objects/builds)" $'built\nbuilt'
    # The first one is cached.
    run "$build" --patch "$race" --print
    same "$(contents)" 'one patched race four '
    run "$build" --patch "$leak" --patch "$race"
    ended_with 75 'extra-race.patch does not apply'
    run "$build" --patch "$(extra_patch three third)"
    same "$(contents)" 'one patched third four '
    # Without --patch it is another kernel.
    run "$build" --print
    ended_with 1 'no kernel has been built'
    no_partial_build
}
t "build: one patch after the other is added, with the same object files" patches_are_added

patch_after_a_killed_build() {
    toy_lab
    archive_with 7.4
    run "$build" --no-patch --patch "$(extra_patch two first)"
    same "$(contents)" 'one first three four '
    # A build that was killed while it applied the patch.
    printf 'half\n' >"$(echo "$kernels"/patched-*/source/virt/kvm/guest_memfd.c)"
    run "$build" --no-patch --patch "$(extra_patch two second)"
    same "$(contents)" 'one second three four '
}
t "build: another patch, after a build that was killed" patch_after_a_killed_build

t "build: a patch that does not exist" expect 66 'patch /nowhere does not exist' "$lab_dir/kernel/build" --patch /nowhere
t "build: --patch with --tree" expect 64 'cannot be used with --tree' \
    "$lab_dir/kernel/build" --tree /etc --patch /etc/passwd

debug_is_added() {
    toy_lab
    printf 'CONFIG_%s=y\n' KASAN PROVE_LOCKING >"$scratch/lab/kernel/debug.config"
    archive_with 7.4
    run "$build" --debug
    grep -qx 'CONFIG_KASAN=y' "$(dirname "$(built)")/config" || fail "CONFIG_KASAN is not set"
    run "$build" --print
    ended_with 1 'no kernel has been built'
}
t "build: --debug" debug_is_added

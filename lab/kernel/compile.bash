# Sourced by lab/kernel/build: patches, configures and compiles a kernel tree.

# lab/boot does not work without these items.
essential=(
    64BIT PRINTK TTY SERIAL_8250 SERIAL_8250_CONSOLE BLK_DEV_INITRD BINFMT_ELF BINFMT_SCRIPT DEVTMPFS PROC_FS
    KVM KVM_AMD
)

# The names of the patches in the source.
applied=()

# check_patch DIR PATCH HINT: ends the build if PATCH does not apply; HINT is a line to print then.
check_patch() {
    local log
    log=$(LC_ALL=C patch -d "$1" -p1 --dry-run --force <"$2" 2>&1) ||
        die 75 "${2##*/} does not apply to $source_package $source_version:" \
            "$(grep -E '^(checking|Hunk .* FAILED|can.t find|No file to patch|.*malformed|.*garbage)' <<<"$log" |
                grep -B1 -E 'FAILED|find|No file|malformed|garbage' | tail -n 6)" "$3"
}

apply_patches() {
    local patch
    [[ ${#patches[@]} -gt 0 ]] || return 0
    if grep -q KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES "$1/include/uapi/linux/kvm.h"; then
        say "this source already converts guest_memfd in place; no patch is applied"
        return
    fi
    for patch in "${patches[@]}"; do
        check_patch "$1" "$patch" "use --no-patch to build without the patches"
        patch -d "$1" -p1 --force --silent <"$patch"
        applied+=("${patch##*/}")
    done
}

# apply_extra_patches KEPT: applies the patches of --patch to KEPT/source. Each is copied to KEPT/extra before it is
# applied, so that the next build can reverse it.
apply_extra_patches() {
    local patch
    mkdir -p "$1/extra"
    for patch in "${extra_patches[@]}"; do
        check_patch "$1/source" "$patch" "applied before it: ${applied[*]:-nothing}"
        cp "$patch" "$1/new"
        mv "$1/new" "$1/extra/$(printf %06d "${#applied[@]}")"
        patch -d "$1/source" -p1 --force --silent <"$patch"
        applied+=("${patch##*/}")
    done
}

# reverse_extra_patches KEPT: the last one first. The files get a new time, so make compiles them again. Fails if a patch
# is not applied completely, because a build was killed.
reverse_extra_patches() {
    local copy
    while IFS= read -r copy; do
        LC_ALL=C patch -d "$1/source" -p1 -R --force --silent <"$copy" >/dev/null || return 1
        rm "$copy"
    done < <(find "$1/extra" -type f 2>/dev/null | sort -r)
}

# The same inputs produce the same kernel, and nothing is written to the tree.
export KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00 UTC'
export PYTHONDONTWRITEBYTECODE=1

# Sets `make`, the command that builds TREE into OBJECTS.
make_command() { make=(make --no-print-directory -C "$1" O="$2" ${CC:+CC="$CC"}); }

# configure TREE OBJECTS: merges the fragments into tinyconfig. That is done again if the tree's Kconfig files have changed, as
# they do between commits: an item that the tree did not have at the last build is missing in its .config.
configure() {
    local tree=$1 objects=$2 log stamp
    local -a make
    make_command "$tree" "$objects"
    stamp=$({
        cat "${fragments[@]}"
        find "$tree" -name .git -prune -o -type f \( -name 'Kconfig*' -o -path '*/configs/*.config' \) -print0 | sort -z |
            xargs -0 -r cat
    } | hash_of)
    if [[ ! -f $objects/.config || $(cat "$objects/lab-config" 2>/dev/null) != "$stamp" ]]; then
        rm -f "$objects/lab-config"
        # Run in the objects directory, since merge_config.sh leaves its temporary file in the current directory.
        log=$({
            "${make[@]}" tinyconfig && cd "$objects" &&
                "$tree/scripts/kconfig/merge_config.sh" -m -O . .config "${fragments[@]}"
        } 2>&1) || die 70 "the kernel cannot be configured:" "$(tail -n 10 <<<"$log")"
    fi
    log=$("${make[@]}" olddefconfig 2>&1) ||
        die 70 "the kernel cannot be configured:" "$(tail -n 10 <<<"$log")"
    check_configuration "$objects/.config"
    printf '%s\n' "$stamp" >"$objects/lab-config"
}

# check_configuration FILE: compares the configuration with the fragments; the last fragment that sets an item counts.
check_configuration() {
    local line name value got
    local -A asked=()
    local -a refused=()
    while IFS= read -r line; do
        if [[ $line =~ ^CONFIG_([A-Za-z0-9_]+)=(.*)$ ]]; then
            asked[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
        elif [[ $line =~ ^#\ CONFIG_([A-Za-z0-9_]+)\ is\ not\ set ]]; then
            asked[${BASH_REMATCH[1]}]=n
        fi
    done < <(cat "${fragments[@]}")
    while IFS= read -r name; do
        value=${asked[$name]}
        got=$(sed -n "s/^CONFIG_$name=//p" "$1")
        [[ $value == "${got:-n}" ]] || refused+=("CONFIG_$name: requested $value, is ${got:-n}")
    done < <(printf '%s\n' "${!asked[@]}" | sort)
    if [[ ${#refused[@]} -gt 0 ]]; then
        say "note: these items differ from the request (this kernel does not have them, or other items determine them):"
        printf '  %s\n' "${refused[@]}" >&2
    fi
    for name in "${essential[@]}"; do
        grep -qx "CONFIG_$name=y" "$1" ||
            die 76 "CONFIG_$name is not set in the resulting configuration, but the lab requires it" \
                "check these configuration files: ${fragments[*]}"
    done
}

# compile TREE OBJECTS LOG: builds the bzImage and reports progress every 30 s.
compile() {
    local log=$3 status=0 began=$SECONDS reported=$SECONDS
    local -a make
    make_command "$1" "$2"
    : >"$log" || die 73 "cannot write $log"
    # Runs in its own process group so that all of it can be ended, and ends when this script does, even if killed.
    setsid setpriv --pdeathsig TERM "${make[@]}" -j"$jobs" bzImage </dev/null >"$log" 2>&1 {lock_held}>&- &
    compiling=$!
    while kill -0 "$compiling" 2>/dev/null; do
        sleep 1
        if [[ $((SECONDS - reported)) -ge 30 ]]; then
            reported=$SECONDS
            say "compiling: $(wc -l <"$log") steps in $((SECONDS - began)) s"
        fi
    done
    wait "$compiling" || status=$?
    compiling=''
    if [[ $status != 0 || ! -f $2/arch/x86/boot/bzImage ]]; then
        die 70 "the kernel does not compile:" \
            "$(grep -nE -A4 'error:|\*\*\*|undefined reference|No space left' "$log" | tail -n 25)" \
            "the whole log is $log"
    fi
    say "compiled in $((SECONDS - began)) s"
}

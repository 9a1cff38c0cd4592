# SPDX-License-Identifier: MIT
# Sourced by lab/selftest: the tests of lab/compare, with a script in place of lab/boot. The comparison itself is tested by
# ComparisonTests.

compare=$lab_dir/compare

t "compare: an unknown option" expect 64 'unknown option --nonsense' "$compare" --nonsense a b
t "compare: one kernel" expect 64 'two kernels, A and B, not 1' "$compare" "$kernel"
t "compare: three kernels" expect 64 'two kernels, A and B, not 3' "$compare" a b c
t "compare: --runs 0" expect 64 "not '0'" "$compare" --runs 0 a b
t "compare: --seed -1" expect 64 "not '-1'" "$compare" --seed=-1 a b
t "compare: --timeout abc" expect 64 "not 'abc'" "$compare" --timeout abc a b
t "compare: an unknown part" expect 64 "not 'prices'" "$compare" --only prices a b
t "compare: a kernel that does not exist" expect 66 '/nowhere does not exist' "$compare" "$kernel" /nowhere@quiet
t "compare: no Swift toolchain" no_swift
no_swift() { SWIFT=/nowhere expect 69 'no Swift toolchain' "$compare" "$kernel" "$kernel"; }

# compare_with SCRIPT: a copy of lab/compare whose lab/boot is SCRIPT, with $arguments and $outdir set, and whose comparison
# prints its arguments and the results.
compare_with() {
    rm -rf "$scratch/lab" "$scratch/bin"
    mkdir -p "$scratch/lab/kernel" "$scratch/bin"
    cp "$lab_dir"/{compare,common.bash} "$scratch/lab/"
    compare=$scratch/lab/compare
    cat >"$scratch/lab/boot" <<'TEXT'
#!/bin/bash
while [[ $# -gt 0 ]]; do
    case $1 in
        --append) arguments=$2 ;;
        --out) outdir=$2 ;;
        --kernel) kernel=$2 ;;
        --file) commands=$2 ;;
    esac
    shift
done
TEXT
    printf '%s\n' "$1" >>"$scratch/lab/boot"
    # shellcheck disable=SC2016  # for the script
    printf '#!/bin/bash\necho "args $1 $3 ${*:5}"; cat "$2"/* "$4"/*; exit 1\n' >"$scratch/bin/comparison"
    printf '#!/bin/bash\ncase $* in *--show-bin-path) echo %q ;; esac\n' "$scratch/bin" >"$scratch/swift"
    printf '#!/bin/bash\necho %q\n' "$kernel" >"$scratch/lab/kernel/build"
    chmod +x "$scratch/lab/boot" "$scratch/bin/comparison" "$scratch/swift" "$scratch/lab/kernel/build"
    export SWIFT=$scratch/swift
}

both_are_booted() {
    cp "$kernel" "$scratch/with@sign"
    # shellcheck disable=SC2016  # for the script
    compare_with 'mkdir -p "$outdir"; echo "${kernel##*/} $arguments" >"$outdir/text"; cat "$commands" >"$outdir/commands"'
    run "$compare" --only costs --only explore --tests 7 --seed 010 "$scratch/with@sign" @a=1@2\ quiet
    ended_with 1 'B: measured'
    same "$(sed -n 1p "$out")" "args $scratch/with@sign @a=1@2 quiet "
    grep -q '^with@sign  numa=fake=2' "$out" || fail "A has another kernel or arguments:" "$(cat "$out")"
    grep -q "^${kernel##*/} a=1@2 quiet numa=fake=2" "$out" || fail "B has another kernel or arguments:" "$(cat "$out")"
    grep -q 'explore --seed 10 --depth 1 --tests 7 ' "$out" || fail "the options do not arrive:" "$(cat "$out")"
    ! grep -q 'minivmm litmus' "$out" || fail "a part that was not asked for is run"
    rm -f "$scratch/with@sign"
}
t "compare: both kernels are booted, with their arguments" both_are_booted

boot_fails() {
    # shellcheck disable=SC2016  # for the script
    compare_with 'echo "the kernel panicked" >&2; [[ $arguments != bad* ]] || exit 125; mkdir -p "$outdir"'
    expect 125 'B: @bad could not be measured \(status 125\)' "$compare" "$kernel" @bad
    grep -q 'the kernel panicked' "$err" || fail "the output of lab/boot is missing"
}
t "compare: a kernel that panics" boot_fails

# status_of COMMANDS STATUS: runs the commands of the lab with a minivmm that ends with STATUS.
commands_of_the_lab() {
    # shellcheck disable=SC2016  # for the script
    compare_with 'mkdir -p "$outdir"; cp "$commands" "$outdir/"; PATH=$(dirname "$0"):$PATH sh -c "cd $(dirname "$0"); $(sed "s|/out/|$outdir/|" "$commands")"'
    printf '#!/bin/bash\nexit $MINIVMM_STATUS\n' >"$scratch/lab/minivmm"
    chmod +x "$scratch/lab/minivmm"
    MINIVMM_STATUS=1 run "$compare" --only litmus @ @
    ended_with 1 'B: measured'
    MINIVMM_STATUS=125 run "$compare" --only litmus @ @
    ended_with 125 'A: @ could not be measured'
    MINIVMM_STATUS=4 run "$compare" --only costs @ @
    ended_with 4 'A: @ could not be measured'
}
t "compare: a failed litmus test is a result, a failed measurement is not" commands_of_the_lab

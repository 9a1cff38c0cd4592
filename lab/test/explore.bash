# SPDX-License-Identifier: MIT
# Sourced by lab/selftest: the tests of lab/explore, with a script in place of lab/boot. The script plays a kernel that
# warns at every hole and dies at every conversion of pages that are held.

explore=("$lab_dir/explore" --kernel "$kernel")

# Sets `lab_minivmm` to a minivmm for this machine, or skips the test.
need_minivmm() {
    local candidate
    for candidate in "${lab_dir%/lab}"/dist/minivmm "${lab_dir%/lab}"/.build/debug/minivmm; do
        [[ ! -x $candidate ]] || { lab_minivmm=$candidate && return; }
    done
    skip "neither dist/minivmm nor .build/debug/minivmm exists"
}

# fake_boot: writes a script that takes lab/boot's arguments, and runs the command on SoftKVM. The announcements become
# console lines, up to the first test that has what the kernel dies of.
fake_boot() {
    cat >"$scratch/boot" <<'TEXT'
#!/bin/bash
files=() words=()
while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
        --file) files+=("$2"); shift ;;
        --minivmm) minivmm=$2; shift ;;
        --kernel | --timeout | --append | --memory) shift ;;
    esac
    shift
done
shift
echo boot >>"$SCRATCH/boots"
work=$(mktemp -d "$TMPDIR/fake.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
for file in "${files[@]}"; do cp "${file%:*}" "${file##*:}"; done
for word in "${@:2}"; do [[ $word == /dev/kmsg ]] && word=$work/log; words+=("$word"); done
: >"$work/log"
[[ " ${words[*]} " == *' --backend '* && " ${words[*]} " != *' --backend auto '* ]] || words+=(--backend soft)
status=0
"$minivmm" "${words[@]}" >"$work/out" 2>"$work/err" || status=$?
[[ $status != 64 ]] || { cat "$work/err" >&2; exit 64; }
setpriv --pdeathsig KILL "$SCRATCH/kernel" "$work/log" || status=$?
cat "$work/out"
exit "$status"
TEXT
    chmod +x "$scratch/boot"
    rm -rf "$scratch/boots" "$scratch/found"
    export LAB_BOOT=$scratch/boot SCRATCH=$scratch
}
# fake_kernel AWK: the program sees each line of the log as $0; `held` and so on are its own. Its status is the boot's.
fake_kernel() {
    {
        printf '#!/bin/bash\nexec awk '
        printf '%q' 'function say(text) { printf "[%12.6f] %s\n", NR / 1000, text > "/dev/stderr" }
            function warn(where) {
                say("------------[ cut here ]------------")
                say("WARNING: virt/kvm/guest_memfd.c:228 at " where "+0x1a2/0x2c0, CPU#0: litmus/71")
                say("---[ end trace 0000000000000000 ]---")
            }
            function die(where) {
                say("kernel BUG at virt/kvm/guest_memfd.c:615!")
                say("Oops: invalid opcode: 0000 [#1] SMP NOPTI")
                say("RIP: 0010:" where "+0x2f1/0x300")
                print "lab/boot: no exit status: the kernel panicked or restarted while the command ran" > "/dev/stderr"
                exit 125
            }'" $1"
        # shellcheck disable=SC2016  # for the script
        printf ' "$1"\n'
    } >"$scratch/kernel"
    chmod +x "$scratch/kernel"
}
run_explore() {
    need_minivmm
    run "${explore[@]}" --minivmm "$lab_minivmm" --output "$scratch/found" --depth 0 --tests 45 --parallel 0 "$@"
}

t "explore: options that are not for it" expect 64 'not an option of lab/explore' "${explore[@]}" --findings 3
t "explore: an option that it sets itself" expect 64 'sets --announce itself' "${explore[@]}" --announce /dev/null
t "explore: --hours abc" expect 64 "not 'abc'" "${explore[@]}" --hours abc
t "explore: --hang 0" expect 64 "not '0'" "${explore[@]}" --hang 0
t "explore: a kernel that does not exist" explore_without_kernel
explore_without_kernel() {
    need_minivmm
    run "$lab_dir/explore" --minivmm "$lab_minivmm" --kernel /nowhere --output "$scratch/found"
    ended_with 66 '/nowhere does not exist'
}
explore_bad_option() {
    need_minivmm
    expect 64 '--depth 9' "${explore[@]}" --minivmm "$lab_minivmm" --output "$scratch/found" --depth 9
}
t "explore: a bad option of minivmm explore" explore_bad_option

shards_are_command_lines() {
    run "$lab_dir/explore" --shards 2 --kernel /a --kernel '/b c' --seed 5 --hours 8 --depth 0
    ended_with 0 ''
    same "$(sed "s|^$lab_dir/explore||" "$out")" " --kernel /a --output findings --seed 5 --hours 8 --depth 0
 --kernel /a --output findings --seed 1000005 --hours 8 --depth 0
 --kernel /b\\ c --output findings --seed 5 --hours 8 --depth 0
 --kernel /b\\ c --output findings --seed 1000005 --hours 8 --depth 0"
    expect 64 "not '0'" "$lab_dir/explore" --shards 0
    expect 64 'need --shards' "$lab_dir/explore" --kernel /a --kernel /b
}
t "explore: shards are command lines" shards_are_command_lines

no_crash() {
    fake_boot
    fake_kernel '{ say($0) }'
    run_explore
    ended_with 0 ''
    grep -q '^No crash and no differences' "$out" || fail "$(tail -n 3 "$out")"
    same "$(wc -l <"$scratch/boots")" 1
    same "$(ls "$scratch/found")" ''
}
t "explore: a kernel without a bug" no_crash

crashes_are_shrunk() {
    fake_boot
    fake_kernel '{ say($0) }
        /minivmm: (test|probe)/ { held = probe = 0 } /minivmm: probe/ { probe = 1 }
        / hold / { held = 1 }
        / punch / && !probe && !warned++ { pending = "kvm_gmem_punch_hole" }
        / convert .* private/ && held && !probe { fatal = 1 }
        /minivmm: end/ && pending { warn(pending); pending = "" }
        /minivmm: end/ && fatal { die("kvm_gmem_convert") }'
    run_explore
    ended_with 1 ''
    same "$(ls "$scratch/found")" $'oops-kvm_gmem_convert\nwarning-kvm_gmem_punch_hole'
    local folder steps
    for folder in "$scratch"/found/*; do
        same "$(ls "$folder")" $'report.md\nreproducer.c\ntest.litmus'
        "$lab_minivmm" litmus --backend soft "$folder/test.litmus" &>/dev/null ||
            fail "$folder has no test that passes on the model"
        gcc -Wall -Wextra -Werror -pthread -o "$scratch/reproducer" "$folder/reproducer.c" || fail "$folder has no program"
    done
    steps=$(grep -cE '^(host|vcpu)' "$scratch/found/warning-kvm_gmem_punch_hole/test.litmus")
    same "$steps" 1
    local found=$scratch/found/oops-kvm_gmem_convert
    steps=$(grep -cE '^(host|vcpu)' "$found/test.litmus")
    same "$steps" 2
    grep -q '^# RIP: 0010:kvm_gmem_convert+0x2f1/0x300$' "$found/test.litmus" || fail "the kernel's lines are missing"
    grep -q '^    RIP: 0010:kvm_gmem_convert+0x2f1/0x300$' "$found/report.md" || fail "the report lacks the kernel's lines"
    grep -q 'was shrunk from [0-9]* steps' "$found/report.md" || fail "$(cat "$found/report.md")"
    [[ -z $(awk 'length > 72 && !/^    /' "$found/report.md") ]] || fail "the report has more than 72 columns"
    grep -qE '^seen +[0-9]+ times: oops-kvm_gmem_convert$' "$out" || fail "$(tail -n 5 "$out")"
    # Known findings are kept, and counted.
    echo mine >"$found/test.litmus"
    run_explore
    ended_with 1 ''
    same "$(cat "$found/test.litmus")" mine
    grep -q '^2 findings, 0 new: ' "$out" || fail "$(tail -n 3 "$out")"
}
t "explore: crashes are shrunk, counted once, and gone on behind" crashes_are_shrunk

crash_at_first_use() {
    fake_boot
    fake_kernel '{ say($0) } /minivmm: probe/ { held = 0 } / hold / { held = 1 }
        /minivmm: end/ && held { die("try_grab_folio") }'
    run_explore
    ended_with 1 ''
    grep -qE '^left out +hold by vmsplice: the kernel crashes$' "$out" || fail "$(tail -n 5 "$out")"
    [[ -e $scratch/found/oops-try_grab_folio/test.litmus ]] || fail "no file: $(ls "$scratch/found")"
}
t "explore: a kernel that dies at the first use of a step" crash_at_first_use

crash_that_depends_on_others() {
    fake_boot
    fake_kernel '{ say($0) } /minivmm: test 40$/ { fatal = 1 } /minivmm: end/ && fatal { die("mas_find") }'
    run_explore
    ended_with 1 ''
    grep -q '^# By itself, in a fresh boot, this test did not show it' "$scratch/found/oops-mas_find/test.litmus" ||
        fail "$(cat "$scratch/found/oops-mas_find/test.litmus")"
    grep -q '^boot .* from test 41' "$out" || fail "$(cat "$out")"
}
t "explore: a crash that the test alone does not show" crash_that_depends_on_others

hang_is_found() {
    fake_boot
    # shellcheck disable=SC2016  # for the script
    fake_kernel '{ say($0) } /minivmm: test/ { held = 0 } / punch / { held = 1 }
        /minivmm: end/ && held && !done++ { system("exec setpriv --pdeathsig KILL sleep 1000") }'
    run_explore --hang 4 --tests 8
    ended_with 1 ''
    [[ -e $scratch/found/hang/report.md ]] || fail "no file: $(ls "$scratch/found")"
}
t "explore: a hang" hang_is_found

reset_is_found() {
    fake_boot
    # shellcheck disable=SC2016  # for the script
    fake_kernel '{ say($0) } /minivmm: test 5$/ { fatal = 1 }
        /minivmm: end/ && fatal { print "lab/boot: no exit status: it restarted" > "/dev/stderr"; exit 125 }'
    run_explore
    ended_with 1 ''
    [[ -e $scratch/found/reset/report.md ]] || fail "no file: $(ls "$scratch/found")"
}
t "explore: a machine that is reset" reset_is_found

boot_fails() {
    need_minivmm
    fake_boot
    printf '#!/bin/bash\necho "lab/boot: the cat ate the kernel" >&2; exit 71\n' >"$scratch/boot"
    run "${explore[@]}" --minivmm "$lab_minivmm" --output "$scratch/found"
    ended_with 71 'the cat ate the kernel'
}
t "explore: a boot that fails" boot_fails

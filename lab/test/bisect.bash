# SPDX-License-Identifier: MIT
# Sourced by lab/selftest: the tests of lab/bisect, with a toy kernel tree and scripts in place of lab/boot and minivmm. The
# toy's bzImage is its guest_memfd.c, and lines in it tell what the scripts do: "boot STATUS" ends the boot before its
# command starts, "dies STATUS" while it runs, and "test STATUS" is the status of minivmm litmus.

t "bisect: no test" expect 192 'no test given' "$lab_dir/bisect"
t "bisect: an unknown option" expect 192 'unknown option --nonsense' "$lab_dir/bisect" --nonsense a.litmus
t "bisect: --timeout 0" expect 192 "not '0'" "$lab_dir/bisect" --timeout 0 a.litmus
t "bisect: --program and a test" expect 192 'omit a.litmus' "$lab_dir/bisect" --program a.c a.litmus
t "bisect: --minivmm none" expect 192 'litmus tests need minivmm' "$lab_dir/bisect" --minivmm none a.litmus
t "bisect: an option without its value" expect 192 '--tree needs a value' "$lab_dir/bisect" --tree

# bisect_lab: a copy of the lab, as ~/minivmm/lab, with the scripts, and a test. Changes to a directory outside of any git
# repository.
bisect_lab() {
    toy_lab
    cd "$scratch"
    cp "$lab_dir/bisect" "$scratch/lab/"
    rm -rf "$scratch/home" "$scratch/boots" "$scratch/arguments"
    mkdir -p "$scratch/home" "$scratch/dist"
    ln -s "$scratch" "$scratch/home/minivmm"
    echo 'test "toy"' >"$scratch/home/pages-in-use.litmus"
    cat >"$scratch/lab/boot" <<'TEXT'
#!/bin/bash
echo boot >>"$SCRATCH/boots"
while [[ $1 != -- ]]; do
    case $1 in
        --kernel) kernel=$2 ;;
        --minivmm) minivmm=$2 ;;
        --file) files=$2 ;;
    esac
    echo "$1" >>"$SCRATCH/arguments"
    shift
done
shift
kernel_says() { sed -n "s/^$1 //p" "$kernel"; }
[[ -z $(kernel_says boot) ]] || exit "$(kernel_says boot)"
[[ -z $(kernel_says sleeps) ]] || exec sleep 1000
work=$(mktemp -d "$TMPDIR/machine.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
[[ $minivmm == none ]] || cp "$minivmm" "$work/bin/minivmm"
cp -r "${files%:*}" "$work/${files##*:}"
cd "$work"
status=0
KERNEL=$kernel PATH=$work/bin:$PATH "$@" || status=$?
[[ -z $(kernel_says dies) ]] || exit "$(kernel_says dies)"
exit "$status"
TEXT
    cat >"$scratch/dist/minivmm" <<'TEXT'
#!/bin/bash
echo "minivmm $*" >>"$SCRATCH/arguments"
[[ -f ${!#} ]] || exit 99
echo "tested ${!#}"
status=$(sed -n "s/^test //p" "$KERNEL")
# A second test passes.
[[ ${!#} != */second.litmus ]] || status=0
exit "${status:-0}"
TEXT
    chmod +x "$scratch/lab/boot" "$scratch/dist/minivmm"
    export SCRATCH=$scratch
}

# --- one commit

# fake_build STATUS ERROR: a script in place of lab/kernel/build.
fake_build() {
    # shellcheck disable=SC2016  # for the script
    printf '#!/bin/bash\necho %q >&2\necho "$SCRATCH/bzImage"\nexit %d\n' "$2" "$1" >"$scratch/lab/kernel/build"
    chmod +x "$scratch/lab/kernel/build"
}
# bisect_is STATUS PATTERN KERNEL [ARGUMENT…]: runs lab/bisect on a commit whose kernel says KERNEL.
bisect_is() {
    printf '%s\n' "$3" >"$scratch/bzImage"
    run "$scratch/lab/bisect" "${@:4}"
    ended_with "$1" "$2"
    printf '%s\n' "$1" >>"$scratch/statuses"
}

every_status() {
    bisect_lab
    rm -f "$scratch/statuses"
    local test=$scratch/home/pages-in-use.litmus second=$scratch/home/second.litmus program=$scratch/home/program number
    echo 'test "second"' >"$second"
    # After the build and the boot.
    fake_build 0 'built'
    bisect_is 0 '^lab/bisect: good: ' '' "$test"
    same "$(cat "$out")" 'tested bisect/1001/pages-in-use.litmus'
    bisect_is 1 '^lab/bisect: bad: a test failed' 'test 1' "$test"
    bisect_is 1 'a test failed' 'test 1' "$second" "$test"
    bisect_is 125 '^lab/bisect: skip: .* was skipped' 'test 4' "$test"
    # The test that matters may be the skipped one.
    bisect_is 125 'was skipped' 'test 4' "$test" "$second"
    bisect_is 125 'has no result' 'test 125' "$test"
    bisect_is 125 'has no result' 'test 139' "$test"
    bisect_is 192 'minivmm refuses' 'test 64' "$test"
    for number in 2 3 5 77 126 127; do bisect_is 255 'no meaning' "test $number" "$test"; done
    # The boot.
    bisect_is 125 'lacks something' 'boot 70' "$test"
    for number in 124 125; do
        bisect_is 125 'does not boot' "boot $number" "$test"
        bisect_is 125 'does not boot' "boot $number" --crash-is-bad "$test"
        bisect_is 125 'while the test ran' "dies $number" "$test"
        bisect_is 1 'bad: .*while the test ran' "dies $number" --crash-is-bad "$test"
    done
    for number in 64 65 66 69 71 73; do
        bisect_is $((128 + number)) "^lab/bisect: not judged: lab/boot .* $number" "boot $number" --crash-is-bad "$test"
    done
    bisect_is 130 'not judged' 'boot 130' "$test"
    # Statuses that lab/boot does not have, although the first three have a meaning for git bisect or for minivmm.
    for number in 0 1 4 2 126 127; do bisect_is 255 'not judged' "boot $number" "$test"; done
    rm "$scratch/lab/boot"
    bisect_is 255 'not judged' '' "$test"
    # The build. There is no lab/boot any more.
    for number in 70 76; do
        fake_build "$number" 'virt/kvm/guest_memfd.c:2:1: error: expected something'
        bisect_is 125 'does not build' '' "$test"
        grep -q 'error: expected something' "$err" || fail "the compiler's error is missing"
    done
    fake_build 70 'fatal error: error writing to /tmp/ccXyz.s: No space left on device'
    bisect_is 201 'too little memory or disk space' '' "$test"
    fake_build 70 'gcc: fatal error: Killed signal terminated program cc1'
    bisect_is 201 'too little memory or disk space' '' "$test"
    for number in 64 66 69 73; do
        fake_build "$number" 'broken'
        bisect_is $((128 + number)) "lab/kernel/build .* $number" '' "$test"
    done
    for number in 1 2 71 75 127; do
        fake_build "$number" 'broken'
        bisect_is 255 "lab/kernel/build .* $number" '' "$test"
    done
    rm "$scratch/lab/kernel/build"
    bisect_is 255 'not judged' '' "$test"
    # Before the build.
    bisect_is 194 '/nowhere.litmus does not exist' '' /nowhere.litmus
    bisect_is 194 '/nowhere does not exist' '' --minivmm /nowhere "$test"
    bisect_is 194 'neither executable nor a C program' '' --program "$test"
    echo 'nonsense' >"$program.c"
    bisect_is 193 'does not compile' '' --program "$program.c"
    TMPDIR=/nowhere bisect_is 201 'cannot create a directory in /nowhere' '' "$test"
    rm -rf "$scratch/dist"
    SWIFT=/nowhere bisect_is 197 'no Swift toolchain' '' "$test"
    rm "$scratch/lab/common.bash"
    bisect_is 255 'common.bash' '' "$test"
    # That was every status of --help.
    "$lab_dir/bisect" --help >"$out" || fail "--help failed"
    same "$(sort -nu "$scratch/statuses" | grep -vx 130)" "$(sed -n 's/^ *\([0-9]\{1,3\}\)  [^ ].*/\1/p' "$out" | sort -n)"
}
t "bisect: every status" every_status

bisect_programs() {
    bisect_lab
    fake_build 0 'built'
    local program=$scratch/home/program number verdict
    for verdict in 0:0 1:1 4:125 139:125 2:255 64:255; do
        number=${verdict%:*}
        printf '#!/bin/sh\necho "arguments $*"\nexit %d\n' "$number" >"$program"
        chmod +x "$program"
        bisect_is "${verdict#*:}" '' '' --program "$program" -- 'one word' two
        same "$(cat "$out")" 'arguments one word two'
    done
    # shellcheck disable=SC2016  # a C program
    printf '#include <stdio.h>\nint main(int count, char **words) { puts(words[count - 1]); return count - 1; }\n' >"$program.c"
    bisect_is 1 'a test failed' '' --program "$program.c" -- last
    same "$(cat "$out")" last
    # A program cannot print what shows that the test has started, before it has.
    bisect_is 125 'does not boot' 'boot 125' --crash-is-bad --program "$program.c"
}
t "bisect: programs in place of litmus tests" bisect_programs

bisect_options() {
    bisect_lab
    # shellcheck disable=SC2016  # for the script
    printf '#!/bin/bash\nprintf "%%s\\n" "$@" >"$SCRATCH/build-arguments"\necho "$SCRATCH/bzImage"\n' \
        >"$scratch/lab/kernel/build"
    bisect_is 0 '' '' --tree /a --jobs=3 --config /b --debug --memory 1G --append quiet --icount --timeout 77 \
        "$scratch/home/pages-in-use.litmus" -- --runs 100000
    same "$(tr '\n' ' ' <"$scratch/build-arguments")" '--tree /a --jobs 3 --config /b --debug '
    same "$(tr '\n' ' ' <"$scratch/arguments" | sed 's/.*\(--require-kvm\)/\1/; s/--file.*minivmm/minivmm/')" \
        '--require-kvm --timeout 77 --memory 1G --append quiet --icount minivmm litmus --backend linux --runs 100000 bisect/1001/pages-in-use.litmus '
}
t "bisect: options arrive at lab/kernel/build, lab/boot and minivmm" bisect_options

bisect_is_ended() {
    bisect_lab
    fake_build 0 'built'
    echo 'sleeps 1' >"$scratch/bzImage"
    "$scratch/lab/bisect" "$scratch/home/pages-in-use.litmus" >"$out" 2>"$err" </dev/null &
    local pid=$! deadline=$((SECONDS + 20))
    while [[ ! -e $scratch/boots && $SECONDS -lt $deadline ]]; do sleep 0.1; done
    kill -TERM "$pid"
    got=0
    wait "$pid" || got=$?
    ended_with 143 ''
}
t "bisect: TERM during the boot" bisect_is_ended

# --- a history

# bisect_history: ~/linux with nine commits. v7.3 is the first and v7.4-rc2 the last. The middle ones cannot be judged: one
# does not build, one does not boot, and one cannot run the test. `culprit` is the commit since which the test fails.
bisect_history() {
    export HOME=$scratch/home GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
    export GIT_AUTHOR_NAME=lab GIT_AUTHOR_EMAIL=lab@localhost GIT_COMMITTER_NAME=lab GIT_COMMITTER_EMAIL=lab@localhost
    toy_tree "$HOME/linux"
    printf 'mrproper: ; @rm -f .config\n' >>"$HOME/linux/Makefile"
    : >"$HOME/linux/.config"
    cd "$HOME/linux"
    git init -q
    echo .config >.gitignore
    commit "one"
    git tag v7.3
    commit "two"
    : >broken
    commit "three does not build"
    rm broken
    echo 'boot 125' >>virt/kvm/guest_memfd.c
    commit "four does not boot"
    sed -i 's/^boot .*/test 4/' virt/kvm/guest_memfd.c
    commit "five cannot run the test"
    sed -i '/^test/d' virt/kvm/guest_memfd.c
    commit "six"
    echo 'test 1' >>virt/kvm/guest_memfd.c
    commit "seven has the bug"
    culprit=$(git rev-parse HEAD)
    commit "eight"
    commit "nine"
    git tag v7.4-rc2
}
commit() { # SUBJECT
    git add -A
    git commit -q --allow-empty -m "$1"
}
# The commands of lab/README.md.
recipe() {
    awk '/^```sh/ { block = ""; inside = 1; next }
        /^```/ { if (inside && block ~ /git bisect start/) printf "%s", block; inside = 0 }
        inside { block = block $0 "\n" }' "$lab_dir/README.md"
}

recipe_finds_the_commit() {
    bisect_lab
    bisect_history
    recipe >"$scratch/recipe"
    grep -q 'git bisect run' "$scratch/recipe" || fail "lab/README.md has no recipe"
    run bash -e "$scratch/recipe"
    ended_with 0 'skip: .*"five cannot run the test"'
    grep -qx "$culprit is the first bad commit" "$out" || fail "another answer:" "$(tail -n 8 "$out")"
    # The reset has checked out the last commit again.
    same "$(git -C "$HOME/linux" status --porcelain)" ''
    same "$(git -C "$HOME/linux" log -1 --format=%s)" nine
}
t "bisect: the recipe in lab/README.md finds the commit" recipe_finds_the_commit

each_commit_is_judged() {
    bisect_lab
    bisect_history
    rm .config
    local revision expected
    for revision in 8:0 7:0 6:125 5:125 4:125 3:0 2:1 0:1; do
        expected=${revision#*:}
        git checkout -q "v7.4-rc2~${revision%:*}"
        run "$scratch/lab/bisect" "$HOME/pages-in-use.litmus"
        ended_with "$expected" "$(git log -1 --format=%h) \\(\"$(git log -1 --format=%s)\"\\)"
    done
}
t "bisect: each commit of a history is judged" each_commit_is_judged

broken_lab_aborts() {
    bisect_lab
    bisect_history
    recipe | grep -v 'bisect reset' >"$scratch/recipe"
    cp "$scratch/lab/boot" "$scratch/working-boot"
    printf '#!/bin/bash\necho "lab/boot: QEMU failed" >&2\nexit 71\n' >"$scratch/lab/boot"
    run bash -e "$scratch/recipe"
    [[ $got != 0 ]] || fail "git bisect run does not fail"
    grep -q 'exit code 199' "$err" || fail "git bisect was not stopped:" "$(tail -n 8 "$err")"
    ! grep -q 'first bad commit' "$out" || fail "an answer of a broken lab:" "$(tail -n 8 "$out")"
    same "$(git bisect log | grep -c '^git bisect bad')" 1
    same "$(git bisect log | grep -c '^git bisect good')" 1
    # After the repair it goes on.
    mv "$scratch/working-boot" "$scratch/lab/boot"
    run git bisect run "$HOME/minivmm/lab/bisect" "$HOME/pages-in-use.litmus"
    ended_with 0 ''
    grep -qx "$culprit is the first bad commit" "$out" || fail "another answer:" "$(tail -n 8 "$out")"
}
t "bisect: a broken lab stops git bisect, which goes on after the repair" broken_lab_aborts

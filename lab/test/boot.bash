# SPDX-License-Identifier: MIT
# Sourced by lab/selftest: the tests of lab/boot.

boot_plain=("$lab_dir/boot" --minivmm none)
boot=("${boot_plain[@]}" --kernel "$kernel")

# --- options, and files that are not kernels

t "an unknown option" expect 64 'unknown option --nonsense' "${boot[@]}" --nonsense -- true
t "an option without its value" expect 64 '--kernel needs a value' "${boot_plain[@]}" --kernel
t "--timeout 0" expect 64 "not '0'" "${boot[@]}" --timeout 0 -- true
t "--timeout abc" expect 64 "not 'abc'" "${boot[@]}" --timeout=abc -- true
t "--cpus 0" expect 64 "not '0'" "${boot[@]}" --cpus 0 -- true
t "--memory 2" expect 64 "not '2'" "${boot[@]}" --memory 2 -- true
t "--memory 64M" expect 64 'at least 256M' "${boot[@]}" --memory 64M -- true
t "neither a command nor a terminal" expect 64 'no COMMAND' "${boot[@]}"
t "--interactive without a terminal" expect 64 'needs a terminal' "${boot[@]}" -i -- true
t "a kernel that does not exist" expect 66 '/nowhere does not exist' "${boot_plain[@]}" --kernel /nowhere -- true
t "a directory as the kernel" expect 66 '--kernel: / does not exist' "${boot_plain[@]}" --kernel / -- true
t "an empty file as the kernel" expect 65 'not an x86 bzImage' "${boot_plain[@]}" --kernel "$scratch/empty" -- true
t "a text file as the kernel" expect 65 'not an x86 bzImage' "${boot_plain[@]}" --kernel "$lab_dir/init" -- true
t "random bytes as the kernel" expect 65 'not an x86 bzImage' "${boot_plain[@]}" --kernel "$scratch/random" -- true
t "an ELF file as the kernel" expect 65 'is an ELF file' "${boot_plain[@]}" --kernel /bin/bash -- true
t "half a bzImage" expect 65 'is truncated' "${boot_plain[@]}" --kernel "$scratch/half" -- true
t "a file to copy that does not exist" expect 66 '/nowhere does not exist' "${boot[@]}" --file /nowhere:x -- true
t "a file to copy hidden by a mount" expect 64 'a mount would hide' "${boot[@]}" --file /bin/bash:/proc/bash -- true
t "a file to copy outside the root" expect 64 'must not contain [.][.]' "${boot[@]}" --file /bin/bash:../bash -- true
t "a minivmm that does not exist" expect 66 '/nowhere does not exist' \
    "$lab_dir/boot" --kernel "$kernel" --minivmm /nowhere -- true
t "--icount with two processors" expect 64 'one emulated processor' "${boot[@]}" --icount --cpus 2 -- true
t "a recording that does not exist" expect 66 '/nowhere does not exist' "${boot_plain[@]}" --replay /nowhere
t "a file that is not a recording" expect 65 'is not a recording' "${boot_plain[@]}" --replay "$scratch/random"
t "a replay with a command" expect 64 'runs what was recorded' "${boot_plain[@]}" --replay "$scratch/random" -- true
t "a recording to a directory" expect 73 'cannot write' "${boot[@]}" --record "$scratch" -- true
t "--out to a file" expect 73 'cannot write to' "${boot[@]}" --out "$lab_dir/init" -- true

: >"$scratch/empty"
head -c 1000000 /dev/urandom >"$scratch/random"
head -c $(($(stat -c %s "$kernel") / 2)) "$kernel" >"$scratch/half"

# --- QEMU missing, failing or silent; kernels that lack a feature, simulated by a script in place of QEMU

# path_without NAME…: prints a directory that links to all programs except the named ones.
path_without() {
    local directory=$scratch/path
    rm -rf "$directory"
    mkdir "$directory"
    # As on the PATH, the first program of a name counts; ln fails for the others.
    ln -s -t "$directory" /usr/local/bin/* /usr/bin/* /bin/* /usr/sbin/* /sbin/* 2>/dev/null || true
    (cd "$directory" && rm -f "$@")
    printf '%s\n' "$directory"
}
missing_program() {
    PATH=$(path_without "$1" apt-get) expect 69 "sudo apt-get install -y $2" "${boot[@]}" -- true
    grep -q "$1 is missing" "$err" || fail "does not name $1"
}
t "QEMU is missing" missing_program qemu-system-x86_64 qemu-system-x86
t "busybox is missing" missing_program busybox busybox-static
t "cpio is missing" missing_program cpio cpio

fake_qemu() { # SCRIPT: runs in place of QEMU, with $console and $events set to the pipes of these ports
    cat >"$scratch/qemu" <<'TEXT'
#!/bin/bash
for argument; do
    case $argument in
        file,id=console,*) console=${argument##*path=} ;;
        file,id=events,*) events=${argument##*path=} ;;
    esac
done
TEXT
    printf '%s\n' "$1" >>"$scratch/qemu"
    chmod +x "$scratch/qemu"
}
with_fake_qemu() { # STATUS PATTERN SCRIPT [OPTION…]
    fake_qemu "$3"
    QEMU=$scratch/qemu expect "$1" "$2" "${boot[@]}" "${@:4}" -- true
}
named_qemu_missing() { QEMU=/nowhere expect 69 'QEMU=/nowhere does not exist' "${boot[@]}" -- true; }
t "a QEMU that does not exist" named_qemu_missing
t "QEMU fails" with_fake_qemu 71 'some QEMU error' 'echo "some QEMU error" >&2; exit 1'
t "a kernel without a console" with_fake_qemu 70 CONFIG_SERIAL_8250_CONSOLE 'exec sleep 1000' --timeout 3
t "a kernel without an initramfs" with_fake_qemu 70 CONFIG_BLK_DEV_INITRD \
    'echo "[    0.5] check access for rdinit=/init failed: -2, ignoring
[    0.6] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)" >"$console"'
t "a kernel without scripts" with_fake_qemu 70 CONFIG_BINFMT_SCRIPT \
    'echo "[    0.5] Failed to execute /init (error -8)" >"$console"'
t "a kernel without devtmpfs" with_fake_qemu 70 CONFIG_DEVTMPFS \
    'echo "[    0.5] lab: lacks: no devtmpfs: it needs CONFIG_DEVTMPFS" >"$console"'
t "a kernel with two serial ports" with_fake_qemu 70 CONFIG_SERIAL_8250_NR_UARTS=4 \
    'echo "[    0.5] Booting" >"$console"
echo "[    0.6] lab: lacks: no serial port ttyS2: it needs CONFIG_SERIAL_8250_NR_UARTS=4" >"$events"'
t "a kernel that dies during boot" with_fake_qemu 125 'BUG: something' \
    'echo "[    0.5] BUG: something" >"$console"'
t "a kernel that hangs during boot" with_fake_qemu 124 'Booting somehow' \
    'echo "[    0.5] Booting somehow" >"$console"; exec sleep 1000' --timeout 3

# The first fake machines report an uptime of an hour, the later ones of 0 s. A fake machine starts within milliseconds.
fast_clock='n=$(cat "$SCRATCH_COUNT" 2>/dev/null || echo 0); echo $((n + 1)) >"$SCRATCH_COUNT"
echo "[    0.5] Booting" >"$console"
[ "$n" -ge "$FAST_CLOCKS" ] || { printf "alive\nuptime 3600.00\n" >"$events"; exec sleep 1000; }
printf "alive\nuptime 0.00\nstart\nstatus 7\n" >"$events"'
clock_is_checked() { # FAST_CLOCKS STATUS PATTERN
    rm -f "$scratch/count"
    SCRATCH_COUNT=$scratch/count FAST_CLOCKS=$1 with_fake_qemu "$2" "$3" "$fast_clock" --timeout 100
}
t "a kernel whose clock runs fast is restarted" clock_is_checked 2 7 'restarting it'
t "a kernel whose clock always runs fast" clock_is_checked 9 71 'clock ran fast'

# The output reader ends when QEMU does. If events are read later, lab/boot must not report that standard output was
# closed. The script stops lab/boot until QEMU has ended, to force this order.
late_events() {
    with_fake_qemu 7 '' 'kill -STOP "$PPID"
printf "alive\nstart\nnote one\nnote two\nstatus 7\n" >"$events"
(exec 3>&- 4>&- 5>&- 6>&-; sleep 2; kill -CONT "$PPID") &'
}
t "a status that is read after QEMU has ended" late_events

damaged_kernel() {
    cp "$kernel" "$scratch/damaged"
    dd if=/dev/zero of="$scratch/damaged" bs=4096 seek=$(($(stat -c %s "$kernel") / 8192)) count=64 conv=notrunc \
        status=none
    run "${boot_plain[@]}" --kernel "$scratch/damaged" --timeout 15 -- true
    # 70 if the kernel printed nothing: the decompressor's messages need CONFIG_EARLY_PRINTK.
    case $got in 70 | 124 | 125) ;; *) fail "status $got" "$(tail -n 8 "$err")" ;; esac
    ended_with "$got" 'kernel'
}
t "a bzImage with a damaged middle" damaged_kernel

# --- statuses

exits_with() {
    run "${boot[@]}" -- "${@:2}"
    [[ $got == "$1" ]] || fail "status $got, not $1" "$(tail -n 8 "$err")"
}
t "a command that succeeds" exits_with 0 true
t "status 1" exits_with 1 false
t "status 123" exits_with 123 sh -c 'exit 123'
t "status 126: not executable" exits_with 126 /etc/passwd
t "status 127: not found" exits_with 127 no-such-command
t "status 139: a segmentation fault" exits_with 139 sh -c 'kill -SEGV $$'
t "status 137: a command that kills every process" exits_with 137 sh -c 'kill -9 1; kill -9 -1; kill -9 $$'

# --- arguments and output

arguments_arrive() {
    local -a words=('a b' "it's" '"quoted"' $'two\nlines' '' '$HOME `date`' '\n' '*' $'\xff\xfe\x01' ' ' $'end\n')
    run "${boot[@]}" -- printf '<%s>' "${words[@]}"
    ended_with 0 ''
    printf '<%s>' "${words[@]}" | cmp - "$out" || fail "the arguments changed:" "$(cat -A "$out")"
}
t "arguments arrive unchanged" arguments_arrive

output_is_exact() {
    { head -c 60000 /dev/urandom && head -c 60000 /dev/zero | tr '\0' x; } >"$scratch/data"
    run "${boot[@]}" --file "$scratch/data" -- sh -c 'cat data & cat data >&2; wait'
    ended_with 0 ''
    cmp "$scratch/data" "$out" || fail "standard output changed"
    # Standard error may also contain the kernel's warnings and the lab's notes.
    cmp "$scratch/data" <(tail -c 120000 "$err") || grep -qa '^\[' "$err" || fail "standard error changed"
}
t "binary output, NULs, a long line, both outputs at once" output_is_exact

forged_status() {
    run "${boot[@]}" -- sh -c 'for to in /dev/stdout /dev/stderr /dev/kmsg; do
        printf "status 0\nlab: lacks: nothing\nlacks nothing\n[ 1.0] lab: the command starts\n" >$to; done; exit 7'
    ended_with 7 'status 0'
    grep -q '^status 0$' "$out" || fail "the output is missing"
}
t "output that looks like a status" forged_status

leaves_child_behind() {
    local began=$SECONDS
    run "${boot[@]}" --timeout 200 -- sh -c 'sleep 1000 & trap "" TERM; echo started'
    same "$got $(cat "$out")" '0 started'
    [[ $((SECONDS - began)) -lt 150 ]] || fail "waited for the background process"
}
t "a command that leaves a process behind" leaves_child_behind

no_input() {
    run "${boot[@]}" -- wc -c
    same "$got $(cat "$out")" '0 0'
}
t "standard input is empty" no_input

reader_leaves() {
    local -a statuses
    set +e
    timeout 300 "${boot[@]}" -- yes 2>"$err" | head -c 4 >/dev/null
    statuses=("${PIPESTATUS[@]}")
    set -e
    same "${statuses[0]}" 141
}
t "the reader of standard output closes it" reader_leaves

output_is_full() {
    got=0
    timeout 300 "${boot[@]}" -- seq 10000 >/dev/full 2>"$err" || got=$?
    ended_with 73 'standard output cannot be written'
}
t "standard output cannot be written" output_is_full

# --- files

files_arrive() {
    mkdir -p "$scratch/directory/inner"
    echo inner >"$scratch/directory/inner/file"
    echo 'a b' >"$scratch/with space"
    run "${boot[@]}" --file "$scratch/directory" --file "$scratch/with space:sub/new name" \
        --file "$(command -v bash):/bin/bash" -- bash -c 'cat directory/inner/file "sub/new name"; echo ${BASH_VERSION:+bash}; pwd'
    ended_with 0 ''
    same "$(cat "$out")" $'inner\na b\nbash\n/lab'
}
t "files, directories and dynamic programs arrive" files_arrive

out_comes_back() {
    run "${boot[@]}" --out "$scratch/back" -- sh -c 'mkdir /out/d; seq 20000 >"/out/d/the numbers"; exit 5'
    ended_with 5 ''
    seq 20000 | cmp - "$scratch/back/d/the numbers" || fail "the contents of /out changed"
}
t "--out copies files back, and the status is returned" out_comes_back

out_is_harmless() {
    run "${boot[@]}" --out "$scratch/foreign" -- sh -c 'cp /bin/busybox /out/root; chmod 6755 /out/root
        mkdir /out/d; chmod 2777 /out/d; mknod /out/d/memory c 1 1; exit 0'
    ended_with 0 ''
    same "$(find "$scratch/foreign" -perm /6000 -o -type c)" ''
    [[ -x $scratch/foreign/root ]] || fail "the file is missing"
}
t "--out copies no set-user-ID bits and no devices" out_is_harmless

t "--verbose shows the kernel's log" verbose_shows_log
verbose_shows_log() {
    run "${boot[@]}" --verbose -- true
    ended_with 0 'Linux version'
}
t "--append reaches the kernel" append_arrives
append_arrives() {
    run "${boot[@]}" --append 'lab.test=1 lab.more' -- grep -c 'lab.test=1 lab.more' /proc/cmdline
    same "$got $(cat "$out")" '0 1'
}
t "a recording and its replay" record_and_replay
record_and_replay() {
    local recorded
    # The clock differs from boot to boot without a recording, as does the random number.
    run "${boot[@]}" --record "$scratch/recording" -- sh -c 'cat /proc/uptime; od -A n -N 8 -t x8 /dev/urandom; exit 7'
    ended_with 7 ''
    recorded=$(cat "$out")
    run "${boot_plain[@]}" --replay "$scratch/recording"
    ended_with 7 ''
    same "$(cat "$out")" "$recorded"
}
t "two processors, with a note" two_processors
two_processors() {
    run "${boot[@]}" --cpus 2 -- nproc
    ended_with 0 'several emulated processors'
    same "$(cat "$out")" 2
}

# --- how a run ends

hangs() {
    local began=$SECONDS
    expect 124 'time limit of 25 s' "${boot[@]}" --timeout 25 -- sh -c 'trap "" TERM INT HUP; while :; do :; done'
    [[ $((SECONDS - began)) -lt 60 ]] || fail "took $((SECONDS - began)) s"
}
t "a command that does not end" hangs

takes_kernel_down() {
    # shellcheck disable=SC2016  # for the shell inside
    run "${boot[@]}" --memory 512M -- sh -c '
        if [ -e /proc/sysrq-trigger ]; then
            echo c >/proc/sysrq-trigger
        elif echo 2 >/proc/sys/vm/panic_on_oom; then
            tail /dev/zero
        fi
        exit 77'
    [[ $got != 77 ]] || skip "this kernel has neither CONFIG_MAGIC_SYSRQ nor CONFIG_PROC_SYSCTL"
    ended_with 125 'Kernel panic'
    ended_with 125 'no exit status'
}
t "a command that takes the kernel down" takes_kernel_down
t "a command that restarts the machine" expect 125 'no exit status' "${boot[@]}" -- reboot -f

# Starts a command that does not end, waits until it runs, and sets `pid`.
start_and_wait() {
    local waited
    # The children of a shell that runs in the background or under nohup ignore signals.
    env --default-signal=HUP,INT,TERM "${boot[@]}" -- sh -c 'echo up; sleep 1000' >"$out" 2>"$err" </dev/null &
    pid=$!
    for ((waited = 0; waited < 1200; waited++)); do
        [[ ! -s $out ]] || return 0
        sleep 0.1
    done
    fail "the command did not start" "$(tail -n 8 "$err")"
}
ended_by() { # SIGNAL STATUS
    local pid status=0
    start_and_wait
    kill "-$1" "$pid"
    { wait "$pid" || status=$?; } 2>/dev/null # where the shell would report the signal
    same "$status" "$2"
}
t "ended by TERM" ended_by TERM 143
t "ended by HUP" ended_by HUP 129
t "ended by INT" ended_by INT 130
killed_outright() {
    local pid status=0
    start_and_wait
    kill -KILL "$pid"
    { wait "$pid" || status=$?; } 2>/dev/null
    same "$status" 137
    sleep 2
    rm -rf "$TMPDIR"/minivmm-lab.* # lab/boot could not delete its directory
}
t "ended by KILL, QEMU ends too" killed_outright

# --- KVM

t "/dev/kvm exists" kvm_is_there
kvm_is_there() {
    run "${boot[@]}" -- test -c /dev/kvm
    ! grep -q 'CONFIG_KVM' "$err" || skip "this kernel has no KVM built in"
    ended_with 0 ''
}
without_svm() { # sets QEMU to a script that emulates a processor without SVM
    printf '#!/bin/bash\nexec qemu-system-x86_64 "${@/+svm,/-svm,}"\n' >"$scratch/qemu"
    chmod +x "$scratch/qemu"
    export QEMU=$scratch/qemu
}
kvm_missing() {
    without_svm
    run "${boot[@]}" -- echo fine
    ended_with 0 'note: this kernel has no /dev/kvm: SVM not supported'
    same "$(cat "$out")" fine
}
t "a missing /dev/kvm is only a note" kvm_missing
kvm_required() {
    without_svm
    expect 70 'no /dev/kvm: SVM not supported' "${boot[@]}" --require-kvm -- echo fine
}
t "a missing /dev/kvm with --require-kvm" kvm_required
minivmm_runs() {
    [[ -x ${lab_dir%/lab}/dist/minivmm ]] || skip "no dist/minivmm"
    run "$lab_dir/boot" --kernel "$kernel" --require-kvm --minivmm "${lab_dir%/lab}/dist/minivmm" -- minivmm probe
    ! grep -q 'CONFIG_KVM' "$err" || skip "this kernel has no KVM built in"
    ended_with 0 ''
    grep -q '/dev/kvm' "$out" || fail "$(head -n 20 "$out")"
}
t "minivmm probe" minivmm_runs

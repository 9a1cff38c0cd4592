# SPDX-License-Identifier: MIT
# Sourced by lab/boot: runs QEMU, follows what lab/init tells, says how it ended. Uses lab/boot's variables.

# How long a kernel may stay without a word before it is not worth waiting for.
silence_limit=60
# How often a kernel that misjudged its clock is started again.
clock_attempts=4

# The frequency of this machine's time stamp counter in kHz, as a kernel in the lab measured it against the HPET over a
# second or more. A file for each boot of this machine, since the frequency is constant for that long.
tsc_file() { printf '%s/khz-%s\n' "$(cache_dir tsc)" "$(cut -c 1-8 /proc/sys/kernel/random/boot_id)"; }
remember_tsc() {
    local khz
    khz=$(sed -n 's/.*tsc: Refined TSC clocksource calibration: \([0-9]*\)\.\([0-9]\{3\}\) MHz.*/\1\2/p' "$work/log" | tail -1)
    [[ -z $khz ]] || printf '%s\n' "$khz" >"$(tsc_file)" || true
}

compose_machine() {
    local ports=${work//,/,,} # as QEMU writes a comma
    local arguments="console=ttyS0,115200 earlyprintk=serial,ttyS0,115200 rdinit=/init panic=-1 oops=panic"
    arguments+=" tsc=reliable no_timer_check ${verbose:+ignore_loglevel }loglevel=7"
    # A starved emulator makes the kernel's own first measurement wrong by a factor, and its clock with it.
    local khz
    khz=$(cat "$(tsc_file)" 2>/dev/null) || khz=''
    [[ ! $khz =~ ^[1-9][0-9]{4,7}$ ]] || arguments+=" tsc_early_khz=$khz"
    arguments+=$append
    machine=(
        "$qemu" -accel "tcg,thread=single" -machine q35
        # EPYC less what QEMU does not emulate and would warn of.
        -cpu "EPYC,+svm,+npt,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save,-xsavec"
        -smp "$cpus" -m "$memory" -kernel "$kernel" -initrd "$work/initrd" -append "$arguments"
        -no-user-config -nodefaults -no-reboot -display none
        -chardev "file,id=console,path=$ports/console" -chardev "file,id=events,path=$ports/events"
        -chardev "file,id=err,path=$ports/err"
    )
    if [[ -n $interactive ]]; then
        machine+=(-chardev "stdio,id=out,mux=on,signal=off" -mon chardev=out)
    else
        machine+=(-chardev "file,id=out,path=$ports/out")
    fi
    machine+=(
        -device isa-serial,index=0,chardev=console -device isa-serial,index=1,chardev=out
        -device isa-serial,index=2,chardev=err -device isa-serial,index=3,chardev=events
    )
}

# The readers of the serial ports end when QEMU does. The kernel's log is kept, and shown from the command's start on,
# without the farewell and without what KVM says of every VM where the processor cannot scale the TSC.
start_readers() {
    local -a filter=(-u -e 's/\r//g' -e "w $work/log")
    [[ -n $verbose ]] || filter+=(-e '0,/lab: the command starts$/d' -e '/reboot: Restarting system$/d'
        -e '/kvm: user requested TSC rate below hardware speed$/d' -e '/set_tsc_khz: [0-9]* callbacks suppressed$/d')
    [[ -z $interactive ]] || filter+=(-e 's/$/\r/')
    mkfifo "$work"/{events,console,out,err}
    : >"$work/log"
    cat "$work/out" 2>/dev/null &
    out_pid=$!
    cat "$work/err" >&2 &
    readers=($!)
    sed "${filter[@]}" "$work/console" >&2 &
    readers+=($!)
}

# Descriptors 3 to 6 hold the pipes open for as long as QEMU lives, and no longer.
start_qemu() {
    local input
    if [[ -n $interactive ]]; then exec {input}<&0; else exec {input}</dev/null; fi
    (
        exec 3>"$work/events" 4>"$work/console" 5>"$work/out" 6>"$work/err"
        [[ -z $interactive ]] || exec 1>&"$terminal"
        exec setpriv --pdeathsig KILL "${machine[@]}" <&"$input" 2>"$work/qemu-errors"
    ) &
    qemu_pid=$!
    exec {input}<&-
    exec {events}<"$work/events"
}

# The shell would say on standard error that it was killed.
stop_qemu() {
    { kill -KILL "$qemu_pid" && wait "$qemu_pid"; } 2>/dev/null || true
    qemu_pid=''
}

# A kernel cannot have been up for longer than its emulator. `uptime` is in seconds, with a fraction.
clock_is_right() {
    local now=${EPOCHREALTIME/[.,]/} uptime=$1
    [[ $uptime =~ ^[0-9]{1,6}\.[0-9]{2}$ ]] || return 0
    uptime=${uptime/./}
    [[ $((10#$uptime * 10000)) -le $((now - machine_started)) ]]
}

# Reads events until the command has ended or cannot any more. Sets `phase` to how far it came (boot, init, command),
# `ended` to status, lacks, gone (QEMU), time, silence, halted, clock or closed (our standard output), and `detail` to the
# status or what is lacking.
follow_events() {
    local part line='' waited
    phase=boot ended='' detail=''
    while [[ -z $ended ]]; do
        waited=''
        if IFS= read -r -t 1 -u "$events" part; then
            line+=$part
            case $line in
                alive) phase=init ;;
                'uptime '*) clock_is_right "${line#uptime }" || ended=clock ;;
                start) phase=command ;;
                'note '*) say "note: ${line#note }" ;;
                'lacks '*) ended=lacks detail=${line#lacks } ;;
                # A kernel that drives fewer ports than there are may move its console to the last.
                '['*'lab: lacks: '*) ended=lacks detail=${line##*lab: lacks: } detail=${detail%$'\r'} ;;
                'status '*) [[ ! ${line#status } =~ ^[0-9]{1,3}$ ]] || ended=status detail=${line#status } ;;
            esac
            line=
        elif [[ $? -gt 128 ]]; then # a second has passed, perhaps amid a line
            line+=$part waited=1
        else
            ended=gone
        fi
        [[ -z $ended ]] || break
        if [[ -n $timeout && $((SECONDS - started)) -ge $timeout ]]; then
            ended=time
        elif [[ $phase == boot && ! -s $work/log && $((SECONDS - started)) -ge $silence_limit ]]; then
            ended=silence
        elif [[ $phase == boot ]] && grep -q -e '-- System halted' "$work/log"; then
            ended=halted # what the decompressor says of a damaged kernel
        elif [[ -z $interactive && -n $waited ]] && ! kill -0 "$out_pid" 2>/dev/null &&
            kill -0 "$qemu_pid" 2>/dev/null; then
            # Only while QEMU lives, and when no event is left: the reader ends with QEMU, too, before all its events
            # have been read.
            ended=closed
        fi
    done
}

# What follows the status on the events' port is a tar of /out.
receive_out() {
    local left=600
    [[ -z $timeout ]] || left=$((timeout - (SECONDS - started) + 10))
    # What a kernel under test has written is not to be trusted: no owners, no set-user-ID bits, no devices.
    timeout "$left" tar -x --no-same-owner --no-same-permissions -C "$out" -f - <&"$events" 2>"$work/tar-errors" &&
        find "$out" -xdev \( -type b -o -type c \) -delete &&
        find "$out" -xdev ! -type l -perm /6000 -exec chmod a-s {} + ||
        die 73 "--out: what came back from /out could not be unpacked to $out" "$(tail -n 3 "$work/tar-errors")"
}

# QEMU leaves when the kernel restarts. One that does not has said all the same what was asked of it.
await_qemu() {
    local patience=$((SECONDS + 10))
    while [[ $SECONDS -lt $patience ]]; do
        read -r -t 1 -u "$events" _ || [[ $? -gt 128 ]] || break
    done
}

kernel_lines() {
    [[ $phase != command ]] || return 0 # shown as they came
    tail -n 30 "$work/log" | sed 's/^/  /' >&2
}

no_console() {
    die 70 "the kernel printed nothing on the serial console for $1 s:" \
        "it needs CONFIG_SERIAL_8250_CONSOLE and CONFIG_PRINTK, or it is damaged or hangs before its console is there" \
        "(with CONFIG_EARLY_PRINTK it would say more)."
}

# What a boot that ended in a panic usually lacked; prints a sentence, or nothing.
lacking() {
    local sentence
    sentence=$(sed -n 's/.*lab: lacks: //p' "$work/log" | tail -1)
    if [[ -n $sentence ]]; then
        printf '%s\n' "$sentence"
    elif grep -q 'Initramfs unpacking failed' "$work/log"; then
        echo "it could not unpack the initramfs; more --memory may help"
    elif grep -qE 'Failed to execute /init \(error -8\)|Requested init /init failed \(error -8\)' "$work/log"; then
        echo "it cannot run scripts and programs: it needs CONFIG_BINFMT_SCRIPT and CONFIG_BINFMT_ELF"
    elif grep -qE 'rdinit=/init failed|Unable to mount root fs|No working init found' "$work/log"; then
        echo "no initramfs support: it needs CONFIG_BLK_DEV_INITRD"
    fi
}

# QEMU has gone, and no status came.
explain_end() {
    local qemu_status=$1 sentence
    if [[ ! -s $work/log && $phase == boot && $qemu_status != 0 ]]; then
        die 71 "QEMU failed (status $qemu_status)" "$(tail -n 5 "$work/qemu-errors")"
    elif [[ $phase != command ]]; then
        sentence=$(lacking)
        if [[ -n $sentence ]]; then
            kernel_lines
            die 70 "this kernel lacks something: $sentence"
        fi
        say "the kernel died before the command started; its last lines:"
        kernel_lines
    elif [[ $qemu_status != 0 ]]; then
        die 71 "QEMU ended amid the command (status $qemu_status)" "$(tail -n 5 "$work/qemu-errors")"
    else
        say "the kernel died or was restarted while the command ran: no status came back"
    fi
    exit 125
}

# Starts the machine and follows it to its end; again, if its clock was wrong before the command began.
start_machine() {
    local attempt
    for ((attempt = 1; ; attempt++)); do
        start_readers
        machine_started=${EPOCHREALTIME/[.,]/}
        start_qemu
        follow_events
        [[ $ended == clock && $attempt -lt $clock_attempts ]] || break
        say "note: the kernel misjudged the processor's frequency, so its clock is fast; starting it again"
        stop_qemu
        exec {events}<&-
        wait "$out_pid" "${readers[@]}" 2>/dev/null || true
        rm -f "$work"/{events,console,out,err}
    done
}

# Runs the machine and exits as --help says.
run_machine() {
    local qemu_status=0 out_status=0 started
    compose_machine
    if [[ -n $verbose ]]; then
        say "initramfs of $(stat -c %s "$work/initrd") bytes, prepared in ${SECONDS} s"
        say "$(quoted "${machine[@]}")"
    fi
    exec {terminal}>&1
    started=$SECONDS
    start_machine
    case $ended in
        status)
            [[ -z $out ]] || receive_out
            await_qemu
            stop_qemu
            ;;
        gone) wait "$qemu_pid" || qemu_status=$? ;;
        *) stop_qemu ;;
    esac
    qemu_pid=''
    exec {terminal}>&-
    wait "$out_pid" || out_status=$?
    wait "${readers[@]}" || true
    remember_tsc
    # 141: the reader of our output has left, which is its right.
    [[ $out_status == 0 || $out_status == 141 ]] || die 73 "standard output cannot be written"
    case $ended in
        status) exit "$detail" ;;
        lacks) die 70 "this kernel lacks something: $detail" ;;
        gone | halted) explain_end "$qemu_status" ;;
        silence) no_console "$silence_limit" ;;
        closed) exit 141 ;;
        clock) die 71 "the kernel's clock is fast, $clock_attempts times in a row: this machine is too busy for the lab" ;;
        time)
            [[ -s $work/log || $phase != boot ]] || no_console "$timeout"
            case $phase in
                command) say "the time limit of $timeout s was reached; the command was ended" ;;
                *)
                    say "the time limit of $timeout s was reached before the command started; the kernel's last lines:"
                    kernel_lines
                    ;;
            esac
            exit 124
            ;;
    esac
}

# SPDX-License-Identifier: MIT
# Sourced by lab/boot: runs QEMU, follows the events of lab/init, reports the result. Uses lab/boot's variables.

# Seconds without console output after which a booting kernel is ended, if QEMU has used half of them as processor time: on a busy
# machine a kernel is silent because it does not run. A kernel that idles in silence is ended after ten times as long.
silence_limit=60
# How often the machine is started until the kernel's clock is right.
clock_attempts=4

# The file with the frequency of the time stamp counter in kHz, which a kernel in the lab measured against the HPET for
# at least a second. There is one file per boot of this machine, since the frequency is constant for that long.
tsc_file() { printf '%s/khz-%s\n' "$(cache_dir tsc)" "$(cut -c 1-8 /proc/sys/kernel/random/boot_id)"; }
remember_tsc() {
    local khz
    [[ -z $icount ]] || return 0
    khz=$(sed -n 's/.*tsc: Refined TSC clocksource calibration: \([0-9]*\)\.\([0-9]\{3\}\) MHz.*/\1\2/p' "$work/log" | tail -1)
    [[ -z $khz ]] || printf '%s\n' "$khz" >"$(tsc_file)" || true
}

# Virtual time that counts instructions: 1 ns each, and no sleeping while the emulated processor is idle. A recording has
# every input of the machine in order.
icount_options() {
    local options=shift=0,sleep=off
    [[ -z $record ]] || options+=,rr=record,rrfile=${work//,/,,}/rr
    [[ -z $replay ]] || options+=,rr=replay,rrfile=${work//,/,,}/rr
    printf '%s' "$options"
}

compose_machine() {
    local ports=${work//,/,,} # QEMU writes a comma as two
    local arguments="console=ttyS0,115200 earlyprintk=serial,ttyS0,115200 rdinit=/init panic=-1 oops=panic"
    arguments+=" tsc=reliable no_timer_check ${verbose:+ignore_loglevel }loglevel=7"
    # If the emulator gets too little CPU time, the kernel's own measurement is far too low, and its clock runs fast.
    local khz
    khz=$(cat "$(tsc_file)" 2>/dev/null) || khz=''
    # Under --icount the time stamp counter counts virtual nanoseconds.
    [[ -z $icount ]] || khz=1000000
    [[ ! $khz =~ ^[1-9][0-9]{4,7}$ ]] || arguments+=" tsc_early_khz=$khz"
    arguments+=$append
    machine=(
        "$qemu" -accel "tcg,thread=single" -machine q35
        # EPYC without the features that QEMU does not emulate and would warn about.
        -cpu "EPYC,+svm,+npt,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save,-xsavec"
        -smp "$cpus" -m "$memory" -kernel "$kernel" -initrd "$work/initrd" -append "$arguments"
        -no-user-config -nodefaults -no-reboot -display none
        -chardev "file,id=console,path=$ports/console" -chardev "file,id=events,path=$ports/events"
        -chardev "file,id=err,path=$ports/err"
    )
    [[ -z $icount ]] || machine+=(-icount "$(icount_options)")
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

# The readers of the serial ports end when QEMU does. The kernel's log is stored, and printed from the start of the
# command on. The restart message is left out, as are the warnings that KVM prints for every VM on a processor that
# cannot scale the TSC.
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

# Descriptors 3 to 6 keep the pipes open until QEMU ends.
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

# A recording is one archive: kernel, initramfs, settings, and QEMU's log of every input.
keep_recording() {
    printf '%s\n' "$memory" "$append" >"$work/settings"
    cp "$kernel" "$work/kernel" && tar -c -f "$record" -C "$work" settings kernel initrd rr 2>"$work/tar-errors" ||
        die 73 "--record: $record cannot be written" "$(tail -n 3 "$work/tar-errors")"
}

# open_recording FILE: sets what the machine is composed of.
open_recording() {
    tar -x -f "$1" --no-same-owner -C "$work" settings kernel initrd rr 2>"$work/tar-errors" ||
        die 65 "--replay: $1 is not a recording of lab/boot" "$(tail -n 3 "$work/tar-errors")"
    kernel=$work/kernel
    { IFS= read -r memory && IFS= read -r append; } <"$work/settings" && [[ $memory =~ ^[1-9][0-9]{0,6}[MG]$ ]] ||
        die 65 "--replay: $1 is damaged: its settings cannot be read"
}

# QEMU completes a recording only if it ends by itself. Standard error is redirected, where the shell would report the kill.
stop_qemu() {
    local left=10
    if [[ -n $record ]]; then
        kill -TERM "$qemu_pid" 2>/dev/null || true
        while kill -0 "$qemu_pid" 2>/dev/null && ((left-- > 0)); do sleep 1; done
    fi
    { kill -KILL "$qemu_pid" && wait "$qemu_pid"; } 2>/dev/null || true
    qemu_pid=''
}

# Fails if the kernel has been up longer than its emulator. The uptime is in seconds, with two decimals.
clock_is_right() {
    local now=${EPOCHREALTIME/[.,]/} uptime=$1
    # Under --icount the guest's clock has nothing to do with wall time.
    [[ -z $icount ]] || return 0
    [[ $uptime =~ ^[0-9]{1,6}\.[0-9]{2}$ ]] || return 0
    uptime=${uptime/./}
    [[ $((10#$uptime * 10000)) -le $((now - machine_started)) ]]
}

# Seconds of processor time that QEMU has used; 0 if it has ended.
qemu_seconds() {
    local stat fields
    read -r stat 2>/dev/null <"/proc/$qemu_pid/stat" || {
        echo 0
        return
    }
    # The name in parentheses may have spaces. User and system time are the 14th and 15th field.
    read -ra fields <<<"${stat##*) }"
    echo $(((fields[11] + fields[12]) / $(getconf CLK_TCK)))
}

# Reads events until the command has ended or can no longer run. Sets `phase` to boot, init or command; `ended` to
# status, lacks, gone (QEMU ended), time (limit), silence, halted, clock or closed (standard output); and `detail` to
# the exit status or the missing feature.
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
                # A kernel that supports fewer ports than there are may move its console to the last one.
                '['*'lab: lacks: '*) ended=lacks detail=${line##*lab: lacks: } detail=${detail%$'\r'} ;;
                'status '*) [[ ! ${line#status } =~ ^[0-9]{1,3}$ ]] || ended=status detail=${line#status } ;;
            esac
            line=
        elif [[ $? -gt 128 ]]; then # timed out after a second, perhaps in the middle of a line
            line+=$part waited=1
        else
            ended=gone
        fi
        [[ -z $ended ]] || break
        if [[ -n $timeout && $((SECONDS - started)) -ge $timeout ]]; then
            ended=time
        elif [[ $phase == boot && ! -s $work/log && $((SECONDS - started)) -ge $silence_limit ]] &&
            [[ $(($(qemu_seconds) * 2)) -ge $silence_limit || $((SECONDS - started)) -ge $((silence_limit * 10)) ]]; then
            ended=silence
        elif [[ $phase == boot ]] && grep -q -e '-- System halted' "$work/log"; then
            ended=halted # printed by the decompressor for a damaged kernel
        elif [[ -z $interactive && -n $waited ]] && ! kill -0 "$out_pid" 2>/dev/null &&
            kill -0 "$qemu_pid" 2>/dev/null; then
            # Checked only while QEMU runs and no event is pending: the reader also ends when QEMU does, possibly before
            # all events have been read.
            ended=closed
        fi
    done
}

# Unpacks the tar of /out, which follows the status on the events port.
receive_out() {
    local left=600
    [[ -z $timeout ]] || left=$((timeout - (SECONDS - started) + 10))
    # Files from a kernel under test are not trusted: no owners, no set-user-ID bits, no devices.
    timeout "$left" tar -x --no-same-owner --no-same-permissions -C "$out" -f - <&"$events" 2>"$work/tar-errors" &&
        find "$out" -xdev \( -type b -o -type c \) -delete &&
        find "$out" -xdev ! -type l -perm /6000 -exec chmod a-s {} + ||
        die 73 "--out: the contents of /out could not be unpacked to $out" "$(tail -n 3 "$work/tar-errors")"
}

# QEMU ends when the kernel restarts. If that takes more than 10 s, the status is valid all the same.
await_qemu() {
    local deadline=$((SECONDS + 10))
    while [[ $SECONDS -lt $deadline ]]; do
        read -r -t 1 -u "$events" _ || [[ $? -gt 128 ]] || break
    done
}

kernel_lines() {
    [[ $phase != command ]] || return 0 # already printed
    tail -n 30 "$work/log" | sed 's/^/  /' >&2
}

no_console() {
    die 70 "the kernel printed nothing on the serial console in $1 s." \
        "Enable CONFIG_SERIAL_8250_CONSOLE and CONFIG_PRINTK." \
        "If they are enabled, the kernel is damaged or hangs early; CONFIG_EARLY_PRINTK shows where."
}

# Prints the probable cause of a panic during boot, or nothing.
missing_feature() {
    local sentence
    sentence=$(sed -n 's/.*lab: lacks: //p' "$work/log" | tail -1)
    if [[ -n $sentence ]]; then
        printf '%s\n' "$sentence"
    elif grep -q 'Initramfs unpacking failed' "$work/log"; then
        echo "it could not unpack the initramfs: try more --memory"
    elif grep -qE 'Failed to execute /init \(error -8\)|Requested init /init failed \(error -8\)' "$work/log"; then
        echo "it cannot run scripts or programs: enable CONFIG_BINFMT_SCRIPT and CONFIG_BINFMT_ELF"
    elif grep -qE 'rdinit=/init failed|Unable to mount root fs|No working init found' "$work/log"; then
        echo "no initramfs support: enable CONFIG_BLK_DEV_INITRD"
    fi
}

# Exits with the reason why QEMU ended before a status arrived.
explain_end() {
    local qemu_status=$1 sentence
    if [[ ! -s $work/log && $phase == boot && $qemu_status != 0 ]]; then
        die 71 "QEMU failed (status $qemu_status)" "$(tail -n 5 "$work/qemu-errors")"
    elif [[ $phase != command ]]; then
        sentence=$(missing_feature)
        if [[ -n $sentence ]]; then
            kernel_lines
            die 70 "the lab cannot use this kernel: $sentence"
        fi
        say "the kernel died before the command started; last lines of its log:"
        kernel_lines
    elif [[ $qemu_status != 0 ]]; then
        die 71 "QEMU failed while the command ran (status $qemu_status)" "$(tail -n 5 "$work/qemu-errors")"
    else
        say "no exit status: the kernel panicked or restarted while the command ran"
    fi
    exit 125
}

# Starts the machine and follows its events to the end. Restarts it if its clock is wrong.
start_machine() {
    local attempt
    for ((attempt = 1; ; attempt++)); do
        start_readers
        machine_started=${EPOCHREALTIME/[.,]/}
        start_qemu
        follow_events
        [[ $ended == clock && $attempt -lt $clock_attempts ]] || break
        say "note: the kernel misjudged the processor's frequency, so its clock runs fast; restarting it"
        stop_qemu
        exec {events}<&-
        wait "$out_pid" "${readers[@]}" 2>/dev/null || true
        rm -f "$work"/{events,console,out,err}
    done
}

# Runs the machine and exits with the status documented in --help.
run_machine() {
    local qemu_status=0 out_status=0 started
    compose_machine
    if [[ -n $verbose ]]; then
        say "initramfs: $(stat -c %s "$work/initrd") bytes, built in ${SECONDS} s"
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
    [[ -z $record ]] || keep_recording
    # 141: the reader of standard output has closed it, which is not an error.
    [[ $out_status == 0 || $out_status == 141 ]] || die 73 "standard output cannot be written"
    case $ended in
        status) exit "$detail" ;;
        lacks) die 70 "the lab cannot use this kernel: $detail" ;;
        gone | halted) explain_end "$qemu_status" ;;
        silence) no_console "$silence_limit" ;;
        closed) exit 141 ;;
        clock) die 71 "the kernel's clock ran fast in all $clock_attempts starts; retry when the machine is less busy" ;;
        time)
            [[ -s $work/log || $phase != boot ]] || no_console "$timeout"
            case $phase in
                command) say "the command was ended: the time limit of $timeout s was reached" ;;
                *)
                    say "the time limit of $timeout s was reached before the command started; the kernel's last lines:"
                    kernel_lines
                    ;;
            esac
            exit 124
            ;;
    esac
}

# SPDX-License-Identifier: MIT
# Sourced by lab/boot: builds the initramfs. The base (busybox, init, minivmm) does not change between runs and is
# cached. The files and the command of a run are a second archive appended to it, which the kernel supports.

# Archives a directory with root as the owner of all files.
archive_of() { (cd "$1" && find . -mindepth 1 -print0 | sort -z | cpio -o -0 -H newc -R 0:0 --quiet); }

# device_node NAME MAJOR MINOR: prints the archive entry of a character device. Creating the device would need root.
device_node() {
    local name=$1 pad
    printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
        0 $((8#020600)) 0 0 1 0 0 0 0 "$2" "$3" $((${#name} + 1)) 0 "$name"
    for ((pad = (110 + ${#name} + 1) % 4; pad % 4 != 0; pad++)); do printf '\0'; done
}

is_elf() { [[ $(head -c 4 "$1" 2>/dev/null | tr -d '\0') == $'\x7fELF' ]]; }

# Prints the libraries that the given executables and libraries load, one path per line, and notes missing ones.
libraries_of() {
    local file line
    for file; do
        is_elf "$file" || continue
        while IFS= read -r line; do
            case $line in
                *'not found'*) say "note: $file needs ${line%% =>*}, which is missing on this machine" ;;
                *'=> /'*) line=${line#*=> } && printf '%s\n' "${line% (*}" ;;
                /*' ('*) printf '%s\n' "${line% (*}" ;;
            esac
        done < <(ldd "$file" 2>/dev/null | sed 's/^[[:space:]]*//')
    done | sort -u
}

# copy_libraries ROOT FILE…: copies the libraries of FILE to the same path below ROOT, or to /usr/local/lib, which is in
# the LD_LIBRARY_PATH that init sets.
copy_libraries() {
    local root=$1 library target
    shift
    while IFS= read -r library; do
        case $library in
            /lib/* | /lib64/* | /usr/lib/* | /usr/lib64/*) target=$root$library ;;
            *) target=$root/usr/local/lib/${library##*/} ;;
        esac
        mkdir -p "${target%/*}"
        cp -L "$library" "$target"
    done < <(libraries_of "$@")
}

# The Unicorn engine, which minivmm loads at run time if it is installed.
unicorn_library() {
    { ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | sed -n 's/.*libunicorn\.so\.2.* => //p' | head -1
}

# initramfs_base MINIVMM: prints the path of a base that contains this minivmm ('' for none), building it if necessary.
initramfs_base() {
    local minivmm=$1 busybox cache base unicorn='' root
    local -a programs
    busybox=$(command -v busybox)
    programs=("$busybox")
    if [[ -n $minivmm ]]; then
        programs+=("$minivmm")
        unicorn=$(unicorn_library)
        [[ -z $unicorn ]] || programs+=("$unicorn")
    fi
    cache=$(cache_dir initramfs)
    base=$cache/$({
        cat "$lab_dir/init" "$lab_dir/initramfs.bash" "${programs[@]}"
        printf '%s\n' "$minivmm" "$unicorn"
        libraries_of "${programs[@]}" | tr '\n' '\0' | xargs -0 -r cat
    } | hash_of).cpio
    if [[ ! -f $base ]]; then
        root=$work/base
        mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,etc,root,lab,lib,lib64,usr/bin,usr/sbin,usr/lib,usr/local/lib}
        cp -L "$busybox" "$root/bin/busybox"
        cp "$lab_dir/init" "$root/init"
        chmod 755 "$root/init" "$root/bin/busybox"
        printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
        printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
        printf '127.0.0.1 localhost lab\n' >"$root/etc/hosts"
        copy_libraries "$root" "${programs[@]}"
        if [[ -n $minivmm ]]; then
            cp -L "$minivmm" "$root/bin/minivmm"
            chmod 755 "$root/bin/minivmm"
        fi
        [[ -z $unicorn ]] || cp -L "$unicorn" "$root/usr/lib/libunicorn.so.2"
        {
            archive_of "$root"
            device_node dev/console 5 1
            device_node dev/null 1 3
            device_node dev/kmsg 1 11
            for port in 0 1 2 3; do device_node "dev/ttyS$port" 4 $((64 + port)); done
        } >"$work/base.cpio"
        rm -rf "$root"
        # Delete bases that no run has used for a week.
        find "$cache" -name '*.cpio*' -mtime +7 -delete
        mv "$work/base.cpio" "$base.$$"
        mv "$base.$$" "$base"
    fi
    touch -c "$base"
    printf '%s\n' "$base"
}

# place ROOT HOSTPATH[:INSIDE]: copies a file or directory. INSIDE is relative to /lab; the default is the file's name.
place() {
    local root=$1 from=$2 inside=
    if [[ ! -e $from && $from == *:* ]]; then
        inside=${from##*:}
        from=${from%:*}
    fi
    [[ -e $from ]] || die 66 "--file: $from does not exist"
    [[ -r $from ]] || die 66 "--file: $from cannot be read"
    [[ -f $from || -d $from ]] || die 66 "--file: $from is neither a file nor a directory"
    [[ -n $inside && $inside != */ ]] || inside+=$(basename "$(realpath "$from")")
    [[ $inside == /* ]] || inside=/lab/$inside
    case $inside/ in
        */../*) die 64 "--file: the destination $inside must not contain .." ;;
        /dev/* | /proc/* | /sys/* | /tmp/* | /run/*) die 64 "--file: a mount would hide $inside; use /lab" ;;
    esac
    mkdir -p "$root${inside%/*}"
    cp -RL "$from" "$root$inside" || die 66 "--file: cannot copy $from"
    local -a executables
    mapfile -d '' executables < <(find "$root$inside" -type f \( -perm -u+x -o -name '*.so*' \) -print0)
    [[ ${#executables[@]} -eq 0 ]] || copy_libraries "$root" "${executables[@]}"
}

# quoted WORD…: quotes the words for a POSIX shell, preserving every byte.
quoted() {
    local LC_ALL=C word gap=''
    for word; do
        printf "%s'%s'" "$gap" "${word//\'/\'\\\'\'}"
        gap=' '
    done
}

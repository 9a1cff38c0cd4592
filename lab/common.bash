# SPDX-License-Identifier: MIT
# Sourced by the lab's scripts: messages, options, required packages, the cache.

shopt -s inherit_errexit
lab_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
lab_name=${0##*/}

say() { printf '%s: %s\n' "$lab_name" "$*" >&2; }

# die STATUS SENTENCE…: prints each sentence on its own line.
die() {
    local status=$1
    shift
    say "$1"
    shift
    [[ $# -eq 0 ]] || printf '%s\n' "$@" | sed 's/^/  /' >&2
    exit "$status"
}

usage_error() { die 64 "$1" "for usage: $lab_name --help"; }

# Reads the value of an option given as "--name value" or "--name=value". Sets `value`, and `taken` to the number of
# arguments consumed.
option_value() {
    case $1 in
        *=*) value=${1#*=} taken=1 ;;
        *)
            [[ $# -ge 2 ]] || usage_error "$1 needs a value"
            # shellcheck disable=SC2034  # for the caller
            value=$2 taken=2
            ;;
    esac
}

present() {
    case $1 in
        /*) [[ -e $1 ]] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# need_installed ITEM:PACKAGE…: ITEM is a command or an absolute path. As root, installs the packages of missing items;
# otherwise prints the command that installs them.
need_installed() {
    local item
    local -a packages=()
    for item; do
        present "${item%:*}" || packages+=("${item##*:}")
    done
    [[ ${#packages[@]} -gt 0 ]] || return 0
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "installing ${packages[*]}"
        local -a install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
        "${install[@]}" "${packages[@]}" >/dev/null 2>&1 ||
            { apt-get update -qq && "${install[@]}" "${packages[@]}"; } >/dev/null || true
    fi
    for item; do
        present "${item%:*}" ||
            die 69 "${item%:*} is missing; on Debian and Ubuntu this installs it:" \
                "sudo apt-get install -y ${packages[*]}"
    done
}

# find_minivmm [optional]: replaces `minivmm`, the value of --minivmm, by a path; '' for none. With auto, builds
# dist/minivmm if it is missing or out of date. With optional, a minivmm that cannot be built is left out.
find_minivmm() {
    local repository=${lab_dir%/lab}
    case $minivmm in
        none) minivmm='' ;;
        auto)
            minivmm=$repository/dist/minivmm
            if [[ ! -x $minivmm || -n $(find "$repository"/{Package.swift,Sources,guest} -newer "$minivmm" -print -quit \
                2>/dev/null) ]]; then
                if command -v "${SWIFT:-swift}" >/dev/null; then
                    say "building dist/minivmm"
                    make -C "$repository" --no-print-directory dist </dev/null >&2 ||
                        die 69 "make dist failed; give another binary with --minivmm FILE, or none with --minivmm none"
                elif [[ -x $minivmm ]]; then
                    say "note: dist/minivmm is older than its sources, but there is no Swift toolchain to rebuild it"
                elif [[ ${1:-} != optional ]]; then
                    die 69 "dist/minivmm does not exist, and there is no Swift toolchain to build it; give --minivmm FILE"
                else
                    say "note: dist/minivmm does not exist, and there is no Swift toolchain to build it;" \
                        "continuing without minivmm"
                    minivmm=''
                fi
            fi
            ;;
        *) [[ -f $minivmm && -r $minivmm ]] || die 66 "--minivmm: $minivmm does not exist or is not a readable file" ;;
    esac
}

# cache_dir NAME: the directory for cached files of this kind, created if necessary.
cache_dir() {
    local base=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
    [[ -n $base ]] || die 73 "there is no directory for the cache: set XDG_CACHE_HOME or HOME"
    mkdir -p "$base/minivmm/$1" 2>/dev/null || die 73 "cannot create the directory $base/minivmm/$1"
    printf '%s\n' "$base/minivmm/$1"
}

hash_of() { sha256sum | cut -c1-24; }

# start COMMAND…: runs a function or program beside those started before, one for each processor at a time. If one fails,
# the script ends with its status.
started=()
start() {
    [[ ${#started[@]} -lt $(nproc) ]] || finish_one
    "$@" &
    started+=($!)
}

finish_one() {
    local ended='' pid
    local -a others=()
    wait -n -p ended "${started[@]}" || exit
    for pid in "${started[@]}"; do [[ $pid == "$ended" ]] || others+=("$pid"); done
    started=("${others[@]}")
}

# finish: waits for all that was started.
finish() { while [[ ${#started[@]} -gt 0 ]]; do finish_one; done; }

# end_started: for the end of the script.
end_started() {
    [[ ${#started[@]} -eq 0 ]] || kill "${started[@]}" 2>/dev/null || true
    wait
}

# SPDX-License-Identifier: MIT
# Sourced by the lab's scripts: messages, what must be installed, where the cache is.

shopt -s inherit_errexit
lab_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
lab_name=${0##*/}

say() { printf '%s: %s\n' "$lab_name" "$*" >&2; }

# die STATUS SENTENCE…: one line a sentence.
die() {
    local status=$1
    shift
    say "$1"
    shift
    [[ $# -eq 0 ]] || printf '%s\n' "$@" | sed 's/^/  /' >&2
    exit "$status"
}

usage_error() { die 64 "$1" "$lab_name --help says more"; }

# The value of an option that was given as "--name value" or "--name=value"; sets `value` and `taken`, the number of
# arguments used up.
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

# need_installed WHAT:PACKAGE…: WHAT is a command or an absolute path. Root gets what is missing installed, anyone
# else is told the one command that does it.
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

# Where kernels and initramfs bases are kept; made if need be.
cache_dir() {
    local base=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
    [[ -n $base ]] || die 73 "no place for the cache: neither XDG_CACHE_HOME nor HOME is set"
    mkdir -p "$base/minivmm/$1" 2>/dev/null || die 73 "cannot make the directory $base/minivmm/$1"
    printf '%s\n' "$base/minivmm/$1"
}

hash_of() { sha256sum | cut -c1-24; }

# Sourced by lab/kernel/build: finds and fetches Debian's newest linux-source package through apt.

oldest_source=7.3
suites=(trixie-backports forky forky-backports sid)

# apt options for a private configuration; empty to use the machine's.
apt_options=()

# Finds the newest linux-source-X.Y that apt offers and sets source_package, source_version and source_sha256. Fails if
# there is none.
newest_offer() {
    local package record
    while IFS= read -r package; do
        dpkg --compare-versions "${package#linux-source-}" ge "$oldest_source" || return 1
        record=$(LC_ALL=C apt-cache "${apt_options[@]}" show --no-all-versions "$package" 2>/dev/null) || continue
        source_package=$package
        source_version=$(sed -n 's/^Version: //p' <<<"$record" | head -1)
        source_sha256=$(sed -n 's/^SHA256: //p' <<<"$record" | head -1)
        [[ -n $source_version && ${#source_sha256} == 64 ]] && return 0
    done < <(apt-cache "${apt_options[@]}" pkgnames linux-source- 2>/dev/null |
        grep -E '^linux-source-[0-9]+\.[0-9]+$' | sort -rV)
    return 1
}

# Prints the archives that apt is configured for, in either format of its lists, even if they have not been fetched.
archives() {
    LC_ALL=C apt-get -o Dir::State::lists="$1" --print-uris update 2>"$1/errors" |
        sed -n "s|^'\(.*\)/dists/.*/InRelease'.*|\1|p" | awk '!seen[$0]++'
}

# private_apt DIR ARCHIVE SUITE: configures apt for this suite only, without changing the machine's state.
private_apt() {
    local dir=$1 keyring
    rm -rf "$dir"
    mkdir -p "$dir"/{lists/partial,cache/archives/partial}
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$2" "$3"
        for keyring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
            [[ -e $keyring ]] && printf 'Signed-By: %s\n' "$keyring" && break
        done
    } >"$dir/lab.sources"
    : >"$dir/status"
    cat >"$dir/apt.conf" <<TEXT
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::sourcelist "$dir/lab.sources";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$dir/none";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
APT::Update::Error-Mode "any";
TEXT
    # Root downloads as root, since apt's sandbox user may not be able to enter the directory of the cache.
    [[ $(id -u) != 0 ]] || printf 'APT::Sandbox::User "root";\n' >>"$dir/apt.conf"
    apt_options=(-c "$dir/apt.conf")
}

# find_source DIR: sets the variables of newest_offer, and apt_options for the archive that has the package. Ends the
# script if no archive has it.
find_source() {
    local apt=$1/apt archive suite log list unreachable=''
    newest_offer && return
    mkdir -p "$apt-probe/partial"
    list=$(archives "$apt-probe") ||
        die 71 "apt's list of archives cannot be read:" "$(tail -n 3 "$apt-probe/errors")"
    [[ -n $list ]] || die 71 "apt on this machine has no archive configured; use --tree to build your own tree"
    while IFS= read -r archive; do
        for suite in "${suites[@]}"; do
            private_apt "$apt" "$archive" "$suite"
            if log=$(LC_ALL=C apt-get "${apt_options[@]}" -q update 2>&1); then
                newest_offer && return
            elif grep -qE 'NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|GPG error|is not signed|OpenPGP' <<<"$log"; then
                die 74 "the signature of $suite is not valid; try to update the package debian-archive-keyring" \
                    "$(grep -E '^(W|E|Err)' <<<"$log" | tail -n 3)"
            elif grep -qE '404 |File not found|Unable to find expected entry' <<<"$log"; then
                continue # this archive has no such suite
            else
                unreachable=$(grep -E '^(W|E|Err)' <<<"$log" | head -n 3)
                break
            fi
        done
    done <<<"$list"
    [[ -z $unreachable ]] || die 71 "the archive cannot be reached:" "$unreachable"
    die 72 "none of ${suites[*]} offers linux-source $oldest_source or newer in the archives apt is configured for;" \
        "use --tree to build your own tree"
}

# fetch_source DIR: downloads the package that was found and unpacks it to DIR/source.
fetch_source() {
    local log
    mkdir "$1/package" "$1/source"
    log=$(cd "$1/package" &&
        LC_ALL=C apt-get "${apt_options[@]}" -q download "$source_package=$source_version" 2>&1) ||
        die 71 "$source_package $source_version cannot be downloaded:" "$(tail -n 3 <<<"$log")"
    # Half a gigabyte of the source is register definitions of AMD graphics chips, which the lab does not need.
    dpkg-deb -x "$1"/package/*.deb "$1/package/x" &&
        tar -x -f "$1"/package/x/usr/src/linux-source-*.tar.xz -C "$1/source" --strip-components=1 \
            --exclude='*/drivers/gpu/drm/amd/include/*' ||
        die 70 "$source_package $source_version cannot be unpacked"
    rm -rf "$1/package"
}

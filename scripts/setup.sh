# shellcheck shell=bash
# Functions that make sure a tool is there. Sourced by the other scripts.

setup_fail() { # WHAT HINT
    printf 'error: %s\n  hint: %s\n' "$1" "$2" >&2
    return 1
}

# Sets AS_ROOT, the words to put before a command that needs root.
need_root_or_sudo() {
    AS_ROOT=()
    ((EUID == 0)) && return
    command -v sudo >/dev/null ||
        setup_fail "this needs root, and there is no sudo" 'run it as root' || return
    AS_ROOT=(sudo)
}

apt_install() { # PACKAGE...
    local package missing=() get
    for package; do
        dpkg-query -Wf '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null ||
        setup_fail "cannot install ${missing[*]}: there is no \`apt-get\`" \
            'install their equivalents by hand, or use Debian or Ubuntu' || return
    need_root_or_sudo || return

    echo "installing ${missing[*]}" >&2
    # --no-remove: a conflict with what the user has is an error, not a removal.
    get=("${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
    local install=("${get[@]}" -y --no-remove --no-install-recommends install "${missing[@]}")
    # The lists on the machine usually serve; fetch them only when they do not.
    local log pause
    log=$("${install[@]}" 2>&1) && return
    # A mirror may be away for a minute.
    for pause in 0 10 20 30; do
        sleep $pause
        # One dead source makes the update fail; the install says whether it mattered.
        log=$("${get[@]}" update 2>&1 || true; "${install[@]}" 2>&1) && return
    done
    printf '%s\n' "$log" >&2
    setup_fail "cannot install ${missing[*]}" 'see what apt says above, and whether its mirror is in reach'
}

# Installs the package of each tool that does not exist. By tool, as users have
# some of them from elsewhere (docker-ce instead of docker.io).
need_tools() { # TOOL:PACKAGE...
    local pair packages=()
    for pair; do
        # sbin is not in the PATH of Debian's ordinary users.
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    apt_install "${packages[@]}"
}

# A registry for the tests, out of its package without installing it: its service would start.
ensure_registry() {
    command -v docker-registry >/dev/null && return
    local tools=$PWD/target/tools
    if [[ ! -x $tools/usr/bin/docker-registry ]]; then
        echo 'unpacking docker-registry' >&2
        need_root_or_sudo || return
        rm -rf "${tools:?}/usr"
        mkdir -p "$tools"
        local get=(apt-get -qq -o APT::Sandbox::User=root download docker-registry)
        (
            cd "$tools"
            { "${get[@]}" 2>/dev/null || { "${AS_ROOT[@]}" apt-get -qq update && "${get[@]}"; }; } &&
                dpkg -x docker-registry_*.deb . && rm docker-registry_*.deb
        ) || setup_fail 'cannot fetch docker-registry' 'see what apt says above' || return
    fi
}

# The S3 servers for the tests, in a directory of their own: nothing of the user's Python is touched.
ensure_s3_servers() {
    local servers=$PWD/target/tools/s3 wanted=scripts/s3-servers.txt
    cmp -s "$wanted" "$servers/installed" && return
    need_tools python3:python3 setpriv:util-linux unshare:util-linux || return
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv || return
    echo 'installing the S3 servers' >&2
    rm -rf "$servers"
    # Their dependencies are listed, too: what is not listed is not needed for S3.
    python3 -m venv "$servers" &&
        "$servers/bin/pip" --quiet --disable-pip-version-check --retries 9 install \
            --no-deps --only-binary=:all: --require-hashes --requirement "$wanted" >&2 ||
        setup_fail 'cannot install the S3 servers' 'see what pip says above, and whether its index is in reach' || return
    cp "$wanted" "$servers/installed"
}

# age's test vectors (C2SP/CCTV), out of the npm package that has them, which is not installed.
ensure_age_vectors() {
    local vectors=$PWD/target/tools/age-vectors package=cctv-age version=0.2.0
    local sha512=d5f88601a5abfac9ea82ef3eb820bba8f780a40bae78e112113da7a4a7b41552d8f87b9ff8a9226bcf51c9bc7fba818d0a6977d528008e2408785398e0adcd7b
    grep -qsx "$sha512" "$vectors/installed" && return
    echo "fetching $package" >&2
    rm -rf "$vectors"
    mkdir -p "$vectors"
    local archive=$package-$version.tgz
    # npm knows mirrors and proxies; where it is not there, it is not worth three hundred packages.
    if command -v npm >/dev/null; then
        (cd "$vectors" && npm pack --silent "$package@$version" >/dev/null)
    else
        need_tools curl:curl && apt_install ca-certificates &&
            curl --proto '=https' --tlsv1.2 --retry 6 --retry-connrefused -sSfo "$vectors/$archive" "https://registry.npmjs.org/$package/-/$archive"
    fi || setup_fail "cannot fetch $package" 'see above, and whether the npm registry is in reach' || return
    (cd "$vectors" && sha512sum --quiet -c <<<"$sha512  $archive" >&2 && tar xzf "$archive") ||
        setup_fail "$package $version is not what it was" 'somebody changed it on the way, or in the registry' || return
    echo "$sha512" >"$vectors/installed"
}

# Cargo of at least the `rust-version` of ./Cargo.toml, and a linker.
ensure_rust() {
    local wanted=0
    [[ ! -e Cargo.toml ]] ||
        wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml | head -n1)
    need_tools cc:gcc make:make || return
    [[ -e /usr/include/stdio.h ]] || apt_install libc6-dev || return

    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    cargo_is "$wanted" && return
    if ! command -v rustup >/dev/null; then
        install_rustup || return
        hash -r
    fi
    echo 'installing the stable Rust toolchain' >&2
    rustup toolchain install stable --profile minimal --component rustfmt --component clippy >&2 ||
        setup_fail 'rustup could not install a toolchain' 'see whether static.rust-lang.org is in reach' || return
    # The user's default stays what it is: stable is chosen for this script alone.
    cargo_is "$wanted" || export RUSTUP_TOOLCHAIN=stable
    cargo_is "$wanted" ||
        setup_fail "tazpod needs cargo $wanted or later, found $(cargo --version 2>&1 | head -n1)" \
            'update Rust: https://rustup.rs'
}

cargo_is() { # VERSION
    local found
    # A rustup without a toolchain has a cargo that only fails.
    found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return
    printf '%s\n' "${1:-0}" "$found" | sort -CV
}

install_rustup() {
    if apt-cache show rustup >/dev/null 2>&1 && apt_install rustup; then
        return
    fi
    need_tools curl:curl && apt_install ca-certificates || return
    local script
    script=$(curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs) ||
        setup_fail 'cannot fetch https://sh.rustup.rs' 'install Rust by hand: https://rustup.rs' || return
    sh -s -- -y --profile minimal --no-modify-path >&2 <<<"$script" ||
        setup_fail 'rustup did not install' 'install Rust by hand: https://rustup.rs'
}

# What bootstraps a root filesystem where no registry is in reach, and the keys that its mirror signs with.
ensure_bootstrap() {
    local keyring=debian-archive-keyring
    ! grep -qsE '^ID(_LIKE)?=.*ubuntu' /etc/os-release || keyring=ubuntu-keyring
    need_tools mmdebstrap:mmdebstrap && apt_install "$keyring" || return
    # For its unshare mode.
    ((EUID == 0)) || need_tools newuidmap:uidmap
}

# The path of what cargo built.
built() { # PROFILE-DIRECTORY
    local target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$PWD/$target
    echo "$target/$(rustc -vV | sed -n 's/^host: //p')/$1/tazpod"
}

#!/bin/sh
# Installs the tools of verticals. Each says in verticals/NAME.sh what it has, where that comes from, and which versions; tools/NAME
# then says what became of it. An image's build calls this with its vertical's name. In a pod,
# `sudo sh /usr/local/share/tazpod/tools.sh` fetches what was left out of all its layers.
set -eu
umask 022
# shellcheck source=images/base/apt.sh
. /usr/local/share/tazpod/apt.sh
# As the images have it, whatever `sudo` makes of it.
PATH=/home/tazpod/.local/bin:/home/tazpod/go/bin:/home/tazpod/.nvm/current/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

SHARE=/usr/local/share/tazpod
USER_HOME=/home/tazpod
# Certificates of the host's own, besides those that the distribution trusts: there may be a proxy that opens what is encrypted.
HOST_CA=/run/tazpod-ca.pem

ARCHITECTURE=$(dpkg --print-architecture)
# shellcheck disable=SC2034 # for verticals
case $ARCHITECTURE in
    amd64) CPU=x86_64 ;;
    arm64) CPU=aarch64 ;;
    *) CPU=$ARCHITECTURE ;;
esac
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
UNREACHABLE=' '
LEFT_OUT=

if [ -s "$HOST_CA" ]; then
    cat /etc/ssl/certs/ca-certificates.crt "$HOST_CA" >"$WORK/ca.pem"
    for name in SSL_CERT_FILE CURL_CA_BUNDLE GIT_SSL_CAINFO PIP_CERT REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS; do
        export "$name=$WORK/ca.pem"
    done
    chmod 0755 "$WORK"
fi

have() { # TOOL SOURCE VERSION
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$MANIFEST.new"
}

leave_out() { # TOOL
    have "$1" - "$REASON"
    LEFT_OUT="$LEFT_OUT $1"
    printf 'left out: %s: %s\n' "$1" "$REASON"
}

packaged() { # TOOL PACKAGE
    set -- "$1" "$2" "$(dpkg-query -W -f '${db:Status-Abbrev}${Version}' "$2" 2>/dev/null || true)"
    case $3 in ii*) have "$1" apt "$(printf %s "${3#ii}" | tr -d ' ')" ;; *) return 1 ;; esac
}

# Packages of the distribution.
packages() { # PACKAGE...
    REASON="apt cannot install $*"
    apt_packages "$@"
}

# A tool that is one.
package() { # TOOL PACKAGE
    packages "$2" && packaged "$1" "$2"
}

# Tools that are packages and there: lines of tool and package.
packaged_tools() {
    while read -r tool package; do
        packaged "$tool" "$package" || {
            printf 'error: the package %s is not installed\n' "$package" >&2
            exit 1
        }
    done
}

pin() { # TOOL
    # shellcheck disable=SC2046 # words
    set -- $(pins | awk -v tool="$1" -v cpu="$ARCHITECTURE" '$1 == tool && ($3 == cpu || $3 == "any")')
    VERSION=${2-} DIGEST=${4-} REASON="no build for $ARCHITECTURE"
    [ "$VERSION" ]
}

# After these seconds a host that does not answer is asked again; in all, as the next one may be out of reach for good.
PAUSES='5 15 30 60 '
# A host that did not answer then is not asked again: a network that swallows packets costs 15 s, not 15 s a tool.
fetch() { # URL FILE [HEADER]
    host=${1#https://} host=${host%%/*}
    REASON="cannot reach $host"
    case $UNREACHABLE in *" $host "*) return 1 ;; esac
    while :; do
        code=0
        fetch_once "$@" || code=$?
        case $code in
            # A resolver that does not answer now may in a minute; one that knows no such name will not.
            6) python3 -c 'import socket, sys
try: socket.getaddrinfo(sys.argv[1], 443)
except socket.gaierror as error: sys.exit(error.errno == socket.EAI_NONAME)' "$host" || break ;;
            7 | 28 | 35 | 52) ;;
            *) break ;;
        esac
        [ "$PAUSES" ] || break
        sleep "${PAUSES%% *}"
        PAUSES=${PAUSES#* }
    done
    case $code in
        0) return ;;
        22) REASON="$host does not give $VERSION" ;;
        60) REASON="$host shows a certificate that is not trusted here" ;;
        5 | 6 | 7 | 28 | 35) UNREACHABLE="$UNREACHABLE$host " ;;
        *) REASON="the transfer from $host broke off" ;;
    esac
    return 1
}

fetch_once() { # URL FILE [HEADER]
    curl --fail --silent --location --proto '=https' --connect-timeout 15 --max-time 1800 --speed-limit 1000 --speed-time 30 \
        ${3:+--header "$3"} --header 'Accept: */*' \
        --header 'Accept: application/vnd.oci.image.index.v1+json' \
        --header 'Accept: application/vnd.oci.image.manifest.v1+json' \
        --header 'Accept: application/vnd.docker.distribution.manifest.list.v2+json' \
        --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
        --output "$2" "$1"
}

verify() { # FILE DIGEST
    REASON="$VERSION has another checksum than the one that is pinned"
    sum=sha256sum
    [ ${#2} -ne 128 ] || sum=sha512sum
    printf '%s  %s\n' "${2#sha256:}" "$1" | $sum --check --status || return
    REASON="$VERSION does not unpack or install"
}

# An archive, unpacked.
archive() { # TOOL URL
    mkdir "$WORK/$1"
    file=$WORK/${2##*/}
    fetch "$2" "$file" && verify "$file" "$DIGEST" &&
        case $2 in
            *.zip) python3 -m zipfile -e "$file" "$WORK/$1" ;;
            *) tar -xzf "$file" -C "$WORK/$1" --no-same-owner ;;
        esac
}

# One of a release on GitHub.
release() { # TOOL REPOSITORY ARCHIVE
    archive "$1" "https://github.com/$2/releases/download/$VERSION/$3"
}

# A program alone, as it was fetched.
program() { # TOOL URL
    fetch "$2" "$WORK/$1" && verify "$WORK/$1" "$DIGEST" && install "$WORK/$1" "/usr/local/bin/$1"
}

# The files of a commit on GitHub, whose name is the hash of all that is in it.
commit() { # TOOL REPOSITORY
    fetch "https://github.com/$2.git/info/refs?service=git-upload-pack" "$WORK/reached" || return
    REASON="git cannot fetch $VERSION from github.com"
    git init --quiet "$WORK/$1"
    timeout 60 git -C "$WORK/$1" fetch --quiet --depth 1 "https://github.com/$2.git" "$DIGEST" &&
        git -C "$WORK/$1" checkout --quiet "$DIGEST" && rm -rf "$WORK/$1/.git"
}

# Packages of npm with all that they need, at the versions and digests of the vertical's package-lock.json.
npm_packages() { # VERTICAL [OPTION]
    VERSION='' REASON='there is no npm'
    command -v npm >/dev/null && fetch https://registry.npmjs.org/npm/latest "$WORK/reached" || return
    REASON='npm cannot fetch or install it'
    set -- "/opt/tazpod/$1" "$SHARE/verticals/$1" ${2:+"$2"}
    mkdir -p "$1" && cp "$2/package.json" "$2/package-lock.json" "$1" &&
        timeout 900 npm ci ${3:+"$3"} --prefix "$1" --cache "$WORK/npm" --no-audit --no-fund --no-update-notifier --loglevel=error
}

# A tool of these: its version, and its program in everybody's path. (Two packages may have programs of one name.)
npm_tool() { # VERTICAL TOOL PACKAGE [PROGRAM]
    directory=/opt/tazpod/$1/node_modules/$3
    VERSION=$(jq -r .version "$directory/package.json") || return
    if [ "${4-}" ]; then
        ln -sf "$directory/$(jq -r --arg name "$4" '.bin[$name]' "$directory/package.json")" "/usr/local/bin/$4" || return
    fi
    have "$2" npm "$VERSION"
}

# Programs of PyPI's with all that they need, in an environment of their own, at the versions and digests of a list.
python_programs() { # VERTICAL LIST PROGRAM...
    VERSION=''
    fetch https://pypi.org/simple/pip/ "$WORK/reached" || return
    REASON='pip cannot fetch or install it'
    tool=$2 environment=/opt/tazpod/$1/$2 list=$SHARE/verticals/$1/$2.txt
    shift 2
    python3 -m venv "$environment" &&
        timeout 900 "$environment/bin/pip" install --quiet --retries 9 --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
            --requirement "$list" || return
    for program; do ln -sf "$environment/bin/$program" /usr/local/bin/ || return; done
    VERSION=$(sed -n "s/^$tool==\([^ ]*\).*/\1/p" "$list")
}

# Files of an image on ghcr.io: index, manifest, layers, each checked against the digest that names it.
image_files() { # TOOL REPOSITORY FILE...
    tool=$1 repository=$2
    shift 2
    api=https://ghcr.io/v2/$repository
    mkdir "$WORK/$tool"
    fetch "https://ghcr.io/token?service=ghcr.io&scope=repository:$repository:pull" "$WORK/token" || return
    authorization="Authorization: Bearer $(jq -r .token "$WORK/token")"
    fetch "$api/manifests/$DIGEST" "$WORK/index" "$authorization" && verify "$WORK/index" "$DIGEST" || return
    DIGEST=$(jq -r --arg cpu "$ARCHITECTURE" \
        'first(.manifests[] | select(.platform.os == "linux" and .platform.architecture == $cpu)).digest' "$WORK/index")
    fetch "$api/manifests/$DIGEST" "$WORK/manifest" "$authorization" && verify "$WORK/manifest" "$DIGEST" || return
    for DIGEST in $(jq -r '.layers[].digest' "$WORK/manifest"); do
        fetch "$api/blobs/$DIGEST" "$WORK/layer" "$authorization" && verify "$WORK/layer" "$DIGEST" || return
        # It fails where a layer lacks one of the files.
        tar --no-anchored -xf "$WORK/layer" -C "$WORK/$tool" --no-same-owner "$@" 2>/dev/null || true
    done
    for file; do
        REASON="$file is not in $repository $VERSION"
        [ -f "$WORK/$tool/$file" ] || return
    done
    REASON="$VERSION does not install"
}

as_user() { runuser -u tazpod -- env HOME="$USER_HOME" NVM_DIR="$USER_HOME/.nvm" PATH="$PATH" "$@"; }

# Whether an earlier run has installed these. They stay as they are: the user's NVM above all, with what was installed by it.
kept() { # TOOL...
    for one; do grep -qs "^$one	[^-]" "$MANIFEST" || return; done
    for one; do grep "^$one	" "$MANIFEST" >>"$MANIFEST.new"; done
}

upstream() { # TOOL SOURCE
    if kept "$1"; then
        return
    elif pin "$1" && "get_$(echo "$1" | tr - _)"; then have "$1" "$2" "${VERSION#v}"; else return 1; fi
}

mkdir -p "$SHARE/tools"
# Those below come first.
ORDER=$SHARE/verticals/order
for vertical; do grep -sqx "$vertical" "$ORDER" || echo "$vertical" >>"$ORDER"; done
# shellcheck disable=SC2046 # words
[ $# -gt 0 ] || set -- $(cat "$ORDER")
for vertical; do
    MANIFEST=$SHARE/tools/$vertical
    : >"$MANIFEST.new"
    # shellcheck source=/dev/null
    . "$SHARE/verticals/$vertical.sh"
    mv "$MANIFEST.new" "$MANIFEST"
done

[ -z "$LEFT_OUT" ] || [ "${ALLOW_MISSING-}" ] || {
    printf 'error: left out:%s; ALLOW_MISSING=1 builds without them\n' "$LEFT_OUT" >&2
    exit 1
}

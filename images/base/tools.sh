#!/bin/sh
# What is in the image, in a manifest, and the tools that the distribution does not package, from upstream.
# In a pod, `sudo sh /usr/local/share/tazpod/tools.sh` fetches what was left out when the image was built.
set -eu
umask 022
export DEBIAN_FRONTEND=noninteractive

MANIFEST=/usr/local/share/tazpod/tools/base
USER_HOME=/home/tazpod

# Tool, version, architecture, digest: SHA-256 of the archive, of the image, or the commit. Renovate raises them.
pins() {
    cat <<'END'
# renovate: datasource=github-release-attachments depName=neovim/neovim
nvim v0.12.4 amd64 012bf3fcac5ade43914df3f174668bf64d05e049a4f032a388c027b1ebd78628
# renovate: datasource=github-release-attachments depName=neovim/neovim
nvim v0.12.4 arm64 ceb7e88c6b681f0515d135dcdfad54f5eb4373b25ce6172197cd9a69c758063f
# renovate: datasource=github-release-attachments depName=starship/starship
starship v1.26.0 amd64 b7c232b0e8249d8e55a40beb79c5c43a7d370f3f9408bd215deb0170daeaadf3
# renovate: datasource=github-release-attachments depName=starship/starship
starship v1.26.0 arm64 dc30189378d2f2e287384e8a692d3f95ad1df64cf0e8c36aa9201516028aed6b
# renovate: datasource=github-release-attachments depName=jesseduffield/lazygit
lazygit v0.65.0 amd64 44d8e7dd1484b4a66e191bd4ab25a71e8b4b3a65ab122f838e65677ef58c5506
# renovate: datasource=github-release-attachments depName=jesseduffield/lazygit
lazygit v0.65.0 arm64 d954a09c128bd37b2bd0d254308474e87de3729cfe0e37f5b46a49357a4fe257
# renovate: datasource=github-release-attachments depName=sxyazi/yazi
yazi v26.9.1 amd64 9b9c39decccf8cb0ff53a7d637d38f8a79d93bbd0099f4ea9c619ef6bb392f5d
# renovate: datasource=github-release-attachments depName=sxyazi/yazi
yazi v26.9.1 arm64 dd569daecaae914185f295634109295ccd25c1b42b02eb89a74f651970024f2e
# renovate: datasource=docker depName=ghcr.io/tailscale/tailscale
tailscale v1.102.5 any sha256:c507f3a2a6ab1cabd8d809b98edeb41edbd5c3fb6ad9632ffd098b4c7d0b4065
# renovate: datasource=docker depName=ghcr.io/osscontainertools/kaniko
kaniko v1.27.6-alpine any sha256:795a358f6c22a9fcd66bb7e14bd97728155e1c171ca951f3c3ba6501054234ce
# renovate: datasource=github-tags depName=nvm-sh/nvm
nvm v0.40.7 any f0b0c6bb0b281ceeb106c8cf9ab8fde141215092
# renovate: datasource=node-version depName=node versioning=node
node v24.21.0 any
END
}

ARCHITECTURE=$(dpkg --print-architecture)
case $ARCHITECTURE in
    amd64) CPU=x86_64 ;;
    arm64) CPU=aarch64 ;;
    *) CPU=$ARCHITECTURE ;;
esac
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
mkdir -p "${MANIFEST%/*}"
EARLIER=$(cat "$MANIFEST" 2>/dev/null || true)
: >"$MANIFEST"
UNREACHABLE=' '
LEFT_OUT=

have() { # TOOL SOURCE VERSION
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$MANIFEST"
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

pin() { # TOOL
    # shellcheck disable=SC2046 # words
    set -- $(pins | awk -v tool="$1" -v cpu="$ARCHITECTURE" '$1 == tool && ($3 == cpu || $3 == "any")')
    VERSION=${2-} DIGEST=${4-} REASON="no build for $ARCHITECTURE"
    [ "$VERSION" ]
}

# A host that did not answer once is not asked again: a network that swallows packets costs 15 s, not 15 s a tool.
fetch() { # URL FILE [HEADER]
    host=${1#https://} host=${host%%/*} code=0
    REASON="cannot reach $host"
    case $UNREACHABLE in *" $host "*) return 1 ;; esac
    curl --fail --silent --location --proto '=https' --connect-timeout 15 --max-time 300 --speed-limit 1000 --speed-time 30 \
        ${3:+--header "$3"} --header 'Accept: */*' \
        --header 'Accept: application/vnd.oci.image.index.v1+json' \
        --header 'Accept: application/vnd.oci.image.manifest.v1+json' \
        --header 'Accept: application/vnd.docker.distribution.manifest.list.v2+json' \
        --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
        --output "$2" "$1" || code=$?
    case $code in
        0) return ;;
        22) REASON="$host does not give $VERSION" ;;
        60) REASON="$host shows a certificate that is not trusted here" ;;
        5 | 6 | 7 | 28 | 35) UNREACHABLE="$UNREACHABLE$host " ;;
        *) REASON="the transfer from $host broke off" ;;
    esac
    return 1
}

verify() { # FILE DIGEST
    REASON="$VERSION has another checksum than the one that is pinned"
    printf '%s  %s\n' "${2#sha256:}" "$1" | sha256sum --check --status || return
    REASON="$VERSION does not unpack or install"
}

# An archive of a release on GitHub, unpacked.
release() { # TOOL REPOSITORY ARCHIVE
    mkdir "$WORK/$1"
    fetch "https://github.com/$2/releases/download/$VERSION/$3" "$WORK/$3" && verify "$WORK/$3" "$DIGEST" &&
        case $3 in
            *.zip) python3 -m zipfile -e "$WORK/$3" "$WORK/$1" ;;
            *) tar -xzf "$WORK/$3" -C "$WORK/$1" --no-same-owner ;;
        esac
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

get_starship() {
    release starship starship/starship "starship-$CPU-unknown-linux-musl.tar.gz" &&
        install "$WORK/starship/starship" /usr/local/bin
}

get_lazygit() {
    release lazygit jesseduffield/lazygit "lazygit_${VERSION#v}_linux_$(echo "$CPU" | sed s/aarch64/arm64/).tar.gz" &&
        install "$WORK/lazygit/lazygit" /usr/local/bin
}

get_yazi() {
    release yazi sxyazi/yazi "yazi-$CPU-unknown-linux-musl.zip" &&
        install "$WORK"/yazi/*/yazi "$WORK"/yazi/*/ya /usr/local/bin
}

get_nvim() {
    release nvim neovim/neovim "nvim-linux-$(echo "$CPU" | sed s/aarch64/arm64/).tar.gz" &&
        rm -rf "$WORK"/nvim/*/share/man && cp -R "$WORK"/nvim/*/. /usr/local
}

get_tailscale() {
    image_files tailscale tailscale/tailscale usr/local/bin/tailscale usr/local/bin/tailscaled &&
        install "$WORK"/tailscale/usr/local/bin/* /usr/local/bin
}

# At the path that it knows to leave alone when it unpacks an image over its own root.
get_kaniko() {
    image_files kaniko osscontainertools/kaniko kaniko/executor && install -D "$WORK/kaniko/kaniko/executor" /kaniko/executor
}

as_user() { runuser -u tazpod -- env HOME="$USER_HOME" NVM_DIR="$USER_HOME/.nvm" PATH="$PATH" "$@"; }

# By its commit, which is the hash of all that is in it.
get_nvm() {
    REASON='cannot reach github.com'
    case $UNREACHABLE in *' github.com '*) return 1 ;; esac
    REASON="git cannot fetch $VERSION from github.com"
    git init --quiet "$WORK/nvm"
    timeout 60 git -C "$WORK/nvm" fetch --quiet --depth 1 https://github.com/nvm-sh/nvm.git "$DIGEST" &&
        git -C "$WORK/nvm" checkout --quiet "$DIGEST" && rm -rf "$WORK/nvm/.git" "$WORK/nvm/test" &&
        chown -R tazpod: "$WORK/nvm" && cp -a "$WORK/nvm" "$USER_HOME/.nvm"
}

get_node() {
    REASON='it comes by nvm, which is left out'
    [ -r "$USER_HOME/.nvm/nvm.sh" ] || return
    REASON='cannot reach nodejs.org'
    # shellcheck disable=SC2016
    as_user timeout 300 bash -c '. "$NVM_DIR/nvm.sh" --no-use && nvm install --no-progress "$1" && nvm cache clear' - "$VERSION" &&
        as_user ln -sfn "versions/node/$VERSION" "$USER_HOME/.nvm/current"
}

# What is there stays as it is: the user's NVM above all, with what was installed by it.
upstream() { # TOOL SOURCE
    if printf '%s\n' "$EARLIER" | grep -q "^$1	[^-]"; then
        printf '%s\n' "$EARLIER" | grep "^$1	" >>"$MANIFEST"
    elif pin "$1" && "get_$1"; then have "$1" "$2" "${VERSION#v}"; else return 1; fi
}

while read -r tool package; do
    packaged "$tool" "$package" || [ "$tool" = docker ] || {
        printf 'error: the package %s is not installed\n' "$package" >&2
        exit 1
    }
done <<'END'
git git
curl curl
build-essential build-essential
python3 python3
golang golang-go
docker docker-cli
docker docker.io
fzf fzf
bat bat
fd fd-find
ripgrep ripgrep
jq jq
yq yq
tmux tmux
eza eza
zoxide zoxide
gh gh
wireguard wireguard-tools
dnsutils bind9-dnsutils
END

for tool in starship lazygit nvim yazi; do
    packaged "$tool" "$(echo "$tool" | sed s/nvim/neovim/)" || upstream "$tool" github.com || leave_out "$tool"
done
for tool in tailscale kaniko; do
    upstream "$tool" ghcr.io || leave_out "$tool"
done
if upstream nvm github.com; then :; else leave_out nvm; fi
if upstream node nvm; then
    :
elif apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends nodejs npm >/dev/null &&
    packaged node nodejs; then
    apt-get clean
    rm -rf /var/lib/apt/lists/*
else
    leave_out node
fi

[ -z "$LEFT_OUT" ] || [ "${ALLOW_MISSING-}" ] || {
    printf 'error: left out:%s; ALLOW_MISSING=1 builds without them\n' "$LEFT_OUT" >&2
    exit 1
}

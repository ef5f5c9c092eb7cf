# shellcheck shell=sh
# Packages of the distribution for an image: `. /usr/local/share/tazpod/apt.sh && apt_packages NAME...`, as root.
export DEBIAN_FRONTEND=noninteractive

# A mirror may be away for a minute, and an apt that has found it so does not ask it again.
apt_update() {
    for pause in 0 5 15 30 60; do
        sleep $pause
        apt-get -q -o APT::Update::Error-Mode=any update && return
    done
    return 1
}

apt_install() { # PACKAGE...
    apt-get -q install -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io "$@"
}

# Installs them, and leaves nothing else.
apt_packages() { # PACKAGE...
    status=0
    { apt_update && { apt_install "$@" || { apt_update && apt_install "$@"; }; }; } || status=$?
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old \
        /var/log/apt/* /var/log/dpkg.log /var/log/alternatives.log
    return $status
}

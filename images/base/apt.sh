# shellcheck shell=sh
# Packages of the distribution for an image: `. /usr/local/share/tazpod/apt.sh && apt_packages NAME...`, as root.
export DEBIAN_FRONTEND=noninteractive

# A mirror may be away for a minute, and an apt that has found it so does not ask it again. These are waited for once: a source may be dead,
# and the installation says whether that matters.
APT_PAUSES='5 15 30 60 '
apt_update() {
    until apt-get -q -o APT::Update::Error-Mode=any update; do
        [ "$APT_PAUSES" ] || return 0
        sleep "${APT_PAUSES%% *}"
        APT_PAUSES=${APT_PAUSES#* }
    done
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

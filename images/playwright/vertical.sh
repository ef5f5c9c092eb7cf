# A browser and a desktop that VNC shows.

# Tool, version, architecture, SHA-256; to be raised by hand, from Google's signed list of packages.
pins() {
    cat <<'END'
chrome v155.0.8059.39-1 amd64 c58aa0f2cd66179c9f050e062c882d27aa9b9f8c2b7c73fee3498560b5ed0b38
chrome v152.0.7977.82-1 arm64 1dc045587d808c207a19e9eb370f6e912dd7e6966953afb93c81d99c3fe318e3
END
}

# Its package would have apt ask Google's repository, too; and our own program stands where Playwright looks for it.
get_chrome() {
    fetch "https://dl.google.com/linux/chrome/deb/pool/main/g/google-chrome-stable/google-chrome-stable_${VERSION#v}_$ARCHITECTURE.deb" "$WORK/chrome.deb" &&
        verify "$WORK/chrome.deb" "$DIGEST" && printf '%s="false"\n' repo_add_once repo_reenable_on_distupgrade >/etc/default/google-chrome &&
        dpkg-divert --quiet --no-rename --divert /opt/google/chrome/chrome.real --add /opt/google/chrome/chrome &&
        packages "$WORK/chrome.deb" && rm -f /etc/apt/sources.list.d/google-chrome.* && return
    case $REASON in apt*) REASON="$VERSION does not install" ;; esac
    return 1
}

# Ubuntu's package of Chromium only asks for a snap.
browser() {
    . /etc/os-release
    if [ "$VERSION_CODENAME" = noble ]; then upstream chrome dl.google.com; else packages chromium && packaged chrome chromium; fi
}

packages foot fonts-dejavu-core fonts-noto-color-emoji sway swaybg wayvnc xdg-utils
packaged_tools <<'END'
sway sway
wayvnc wayvnc
END
if browser; then
    install "$SHARE/verticals/playwright/chrome" /usr/local/bin/chrome
    # Where Playwright looks for `channel: "chrome"`.
    [ -e /opt/google/chrome/chrome ] || { mkdir -p /opt/google/chrome && ln -sf /usr/local/bin/chrome /opt/google/chrome/chrome; }
else
    leave_out chrome
fi
if kept playwright; then
    :
elif npm_packages playwright; then
    npm_tool playwright playwright @playwright/test playwright
else
    leave_out playwright
fi

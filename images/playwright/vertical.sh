# A browser and a desktop that VNC shows.

# Ubuntu's package only asks for a snap.
browser() {
    . /etc/os-release
    REASON="$PRETTY_NAME has no browser as a package, and Chrome is not pinned yet"
    [ "$VERSION_CODENAME" != noble ] && packages chromium && packaged chrome chromium
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

# A desktop without a screen: what it shows, wayvnc shows.
set -eu
mkdir -p -m 0700 "$XDG_RUNTIME_DIR"
unset WAYLAND_DISPLAY
export WLR_BACKENDS=headless WLR_LIBINPUT_NO_DEVICES=1 WLR_RENDERER=pixman
exec sway --config /usr/local/share/tazpod/verticals/playwright/sway.conf

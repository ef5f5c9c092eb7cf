# The desktop for VNC clients. It asks for no password: it listens on the pod's loopback interface, which only the pod's own programs and its
# link reach.
set -eu
i=0
until [ -S "$XDG_RUNTIME_DIR/$WAYLAND_DISPLAY" ]; do
    i=$((i + 1))
    [ "$i" -le 100 ] || { echo 'wayvnc: there is no desktop' >&2; exit 1; }
    sleep 0.1
done
exec wayvnc --render-cursor 127.0.0.1 "$TAZPOD_PORT"

# The clouds' tools, Firebase's and Grafana's.

# shellcheck source=images/clouds.sh
. "$SHARE/verticals/devops/clouds.sh"

# Tool, version, architecture, SHA-256. Renovate raises them.
pins() {
    clouds
    cat <<'END'
# renovate: datasource=github-release-attachments depName=grafana/gcx
gcx v1.5.0 amd64 e7fafdad78081fab56b1b77e3bd3237e4175e24102772711c26130e6283e83f5
# renovate: datasource=github-release-attachments depName=grafana/gcx
gcx v1.5.0 arm64 8a3433cd6fc7c52a6f378a6dff773791a65c81f63b8c8a04854c28e47a78a73b
# renovate: datasource=github-release-attachments depName=grafana/loki
logcli v3.7.2 amd64 7850d566d2af10d7adf255ed9452de632ab20c0f269dc61fac7f70bed4d99e48
# renovate: datasource=github-release-attachments depName=grafana/loki
logcli v3.7.2 arm64 2fec7cbf4c0929f2fbd1e339753b14bc6432aadb41abf4b4155b00d3f6509e4e
END
}

get_gcx() {
    release gcx grafana/gcx "gcx_${VERSION#v}_linux_$ARCHITECTURE.tar.gz" && install "$WORK/gcx/gcx" /usr/local/bin
}

get_logcli() {
    release logcli grafana/loki "logcli-linux-$ARCHITECTURE.zip" &&
        install "$WORK/logcli/logcli-linux-$ARCHITECTURE" /usr/local/bin/logcli
}

aws_cli
google_cloud_cli
kubectl_client
# `re2`, which it can do without, would fetch a program of its own from GitHub.
if kept firebase; then :; elif npm_packages devops --ignore-scripts; then npm_tool devops firebase firebase-tools firebase; else leave_out firebase; fi
upstream gcx github.com || leave_out gcx
upstream logcli github.com || leave_out logcli

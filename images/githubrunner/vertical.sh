# The runner of GitHub Actions.

pins() {
    cat <<'END'
# renovate: datasource=github-release-attachments depName=actions/runner
actions-runner v2.338.0 amd64 af4b794c1bc41d73d40535e3fe092a39f9679cd8d965954c2aca25a05ca41d32
# renovate: datasource=github-release-attachments depName=actions/runner
actions-runner v2.338.0 arm64 628b4a7258487b80c1d3c221095a7ded349f5ae0175fd3dfab708d07428f041b
END
}

get_actions_runner() {
    release actions-runner actions/runner \
        "actions-runner-linux-$(echo "$ARCHITECTURE" | sed s/amd64/x64/)-${VERSION#v}.tar.gz" || return
    . /etc/os-release
    case $VERSION_CODENAME in noble) icu=libicu74 ;; *) icu=libicu76 ;; esac
    packages "$icu" libkrb5-3 libssl3t64 zlib1g || return
    rm -rf /opt/actions-runner && mv "$WORK/actions-runner" /opt/actions-runner || return
    chown -R tazpod: /opt/actions-runner
}

upstream actions-runner github.com || leave_out actions-runner

# Coding agents, all from npm, and pi's extensions. What has a lock file is what that says, with all that it needs; opencode is a program alone, whose
# packages for other systems npm would have to know besides.

# Tool, version, architecture, SHA-256 or commit; opencode's to be raised by hand.
pins() {
    cat <<'END'
opencode v1.18.18 amd64 44c88fc35dd1ba0c8863e729cb8b99ddb0de934f6b52c234e1872c01d05f9e60
opencode v1.18.18 arm64 3455cc7f70bddb1595068f9bb3631df93dbd7ffa2c9944b29c8af3dd3fcd5fd6
# renovate: datasource=github-tags depName=ayagmar/pi-extmgr
pi-extmgr v0.1.15 any 042e97a14c5a9f8adef47699e157067abc68de4f
END
}

get_opencode() {
    name=opencode-linux-$(echo "$ARCHITECTURE" | sed s/amd64/x64/)
    archive opencode "https://registry.npmjs.org/$name/-/$name-${VERSION#v}.tgz" &&
        install "$WORK/opencode/package/bin/opencode" /usr/local/bin
}

# npm's registry does not know it. All that it needs is pi's.
get_pi_extmgr() {
    REASON='it comes into pi, which is left out'
    command -v pi >/dev/null && commit pi-extmgr ayagmar/pi-extmgr || return
    REASON='pi does not install it'
    rm -rf /opt/tazpod/ai/pi-extmgr && cp -R "$WORK/pi-extmgr" /opt/tazpod/ai && as_user timeout 60 pi install /opt/tazpod/ai/pi-extmgr
}

if kept pi gemini oh-my-pi pi-mcp-adapter; then
    :
elif npm_packages ai; then
    npm_tool ai pi @mariozechner/pi-coding-agent pi
    npm_tool ai gemini @google/gemini-cli gemini
    # Extensions of pi's.
    REASON='pi does not install it'
    for tool in oh-my-pi pi-mcp-adapter; do
        if as_user timeout 60 pi install "/opt/tazpod/ai/node_modules/$tool"; then npm_tool ai "$tool" "$tool"; else leave_out "$tool"; fi
    done
else
    for tool in pi gemini oh-my-pi pi-mcp-adapter; do leave_out "$tool"; done
fi
upstream opencode npm || leave_out opencode
upstream pi-extmgr github.com || leave_out pi-extmgr

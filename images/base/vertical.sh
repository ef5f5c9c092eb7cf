# The tools of base that the distribution does not package come from upstream.

# Tool, version, architecture, digest: SHA-256 of the archive, of the image, or the commit. Renovate raises them, but for those of npm's.
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
node-linux v24.20.0 amd64 f426dc36ee776c39d8542e343d85dd53f2efd36bd2f1800964c8bf4cd034e4c7
node-linux v24.20.0 arm64 82573e5998ba51948962d4fdb33342a5dedc585a1f25b91bbb7c790c3d8662f4
npm v11.21.2 any 8ad8563b81e71b90ef405b140bccf3ba9b5e7884ab210bd49ee4e2f4bc6f61f5
END
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

get_nvm() {
    commit nvm nvm-sh/nvm && rm -rf "$WORK/nvm/test" && chown -R tazpod: "$WORK/nvm" && cp -a "$WORK/nvm" "$USER_HOME/.nvm"
}

get_node() {
    REASON='it comes by nvm, which is left out'
    [ -r "$USER_HOME/.nvm/nvm.sh" ] || return
    REASON='cannot reach nodejs.org'
    # shellcheck disable=SC2016
    as_user timeout 300 bash -c '. "$NVM_DIR/nvm.sh" --no-use && nvm install --no-progress "$1" && nvm cache clear' - "$VERSION" &&
        as_user ln -sfn "versions/node/$VERSION" "$USER_HOME/.nvm/current"
}

# npm's registry has Node.js, too: a package for each kind of processor, and npm in another.
get_node_of_npm() {
    npm=https://registry.npmjs.org cpu=$(echo "$ARCHITECTURE" | sed s/amd64/x64/)
    { pin npm && fetch "$npm/npm/-/npm-${VERSION#v}.tgz" "$WORK/npm.tgz" && verify "$WORK/npm.tgz" "$DIGEST"; } || return
    { pin node-linux && fetch "$npm/node-linux-$cpu/-/node-linux-$cpu-${VERSION#v}.tgz" "$WORK/node.tgz" &&
        verify "$WORK/node.tgz" "$DIGEST"; } || return
    mkdir -p "$WORK/node" /usr/local/lib/node_modules/npm
    tar -xzf "$WORK/node.tgz" -C "$WORK/node" --no-same-owner && install "$WORK/node/package/bin/node" /usr/local/bin &&
        tar -xzf "$WORK/npm.tgz" -C /usr/local/lib/node_modules/npm --strip-components 1 --no-same-owner &&
        for program in npm npx; do ln -sf "../lib/node_modules/npm/bin/$program-cli.js" "/usr/local/bin/$program"; done
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
elif get_node_of_npm; then
    have node npm "${VERSION#v}"
else
    leave_out node
fi

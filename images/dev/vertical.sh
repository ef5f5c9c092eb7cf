# Languages and tools of developers that are too much for base.

# shellcheck source=images/clouds.sh
. "$SHARE/verticals/dev/clouds.sh"
# Tool, version, architecture, SHA-256, or 512 of .NET; those without a comment are to be raised by hand.
pins() {
    clouds
    cat <<'END'
# renovate: datasource=github-release-attachments depName=coder/code-server
code-server v4.139.1 amd64 53029be6c5781b7bca49b815fcc9a2a3fc111813ad8c9965b2c0f0d2985a0674
# renovate: datasource=github-release-attachments depName=coder/code-server
code-server v4.139.1 arm64 0edb4b60d9c4744b2dd14b0911e3c2e6dd8c6f3c13bd58bda23ae744e59e7df1
rustup v1.29.1 amd64 dda7234360b7f578ca8b0ddcb80145646fa61a67c1720a5abc7051b35c9fcb71
rustup v1.29.1 arm64 15f6e4ce9f583b929c996c91562bad6d4454f3281de858b02cdfdef615fac433
rust v1.95.0 any
dotnet v8.0.425 amd64 934b8060a7190e5909ad1fd0785db542f487b3bbf6cdd14826b02095fdd0d0394298b1634085eff302928fccc33f7c1a7253e9b87df555fc36fce819bcd2e798
dotnet v8.0.425 arm64 84a4d017d74d7aa842e981679d1b044e6be1f35b9b2b214021e30bc40871d016d29611cca373d8502ad5c890e3ad360ee698f9cf2d7a4d5a9fba102d88ba310f
python v3.13.5+20250702 amd64 9f5d5260f333fcb5372ec681851d92ddac79a33362aa85626b6cc96ffe75eeef
python v3.13.5+20250702 arm64 272a8817921856d7ac47f44c076fb62fbaf5649aa1d97b2d67a3a6adee969ff0
claude-code v2.1.330 amd64 40ff30c5768723958032132065e6fcdd1e2dc3a2b3ff9a0bf36c6620ef1c40ef
claude-code v2.1.330 arm64 5460d42c696670f4fd2a7ec619719edda14a576b28ee3c289b348ade96efbf6d
END
}

get_rust() {
    pin rustup && fetch "https://static.rust-lang.org/rustup/archive/${VERSION#v}/$CPU-unknown-linux-gnu/rustup-init" "$WORK/rustup-init" &&
        verify "$WORK/rustup-init" "$DIGEST" && chmod 0755 "$WORK" "$WORK/rustup-init" && pin rust &&
        REASON='rustup cannot fetch or install it' &&
        as_user timeout 900 "$WORK/rustup-init" -y --quiet --no-modify-path --profile minimal --component clippy --component rustfmt --default-toolchain "${VERSION#v}"
}

get_dotnet() {
    archive dotnet "https://builds.dotnet.microsoft.com/dotnet/Sdk/${VERSION#v}/dotnet-sdk-${VERSION#v}-linux-$(echo "$ARCHITECTURE" | sed s/amd64/x64/).tar.gz" &&
        rm -rf /opt/dotnet && mv "$WORK/dotnet" /opt && ln -sf /opt/dotnet/dotnet /usr/local/bin/dotnet
}

# Beside the distribution's. A build that needs nothing of it: https://github.com/astral-sh/python-build-standalone
get_python() {
    archive python "https://github.com/astral-sh/python-build-standalone/releases/download/${VERSION#*+}/cpython-$(echo "${VERSION#v}" | sed s/+/%2B/)-$CPU-unknown-linux-gnu-install_only.tar.gz" &&
        rm -rf /opt/python3.13 && mv "$WORK/python/python" /opt/python3.13 && ln -sf /opt/python3.13/bin/python3.13 /usr/local/bin/
}

get_code_server() {
    name=code-server-${VERSION#v}-linux-$ARCHITECTURE
    release code-server coder/code-server "$name.tar.gz" && rm -rf /opt/code-server && mv "$WORK/code-server/$name" /opt/code-server &&
        ln -sf /opt/code-server/bin/code-server /usr/local/bin/code-server
}

get_claude_code() {
    name=claude-code-linux-$(echo "$ARCHITECTURE" | sed s/amd64/x64/)
    archive claude-code "https://registry.npmjs.org/@anthropic-ai/$name/-/$name-${VERSION#v}.tgz" &&
        install "$WORK/claude-code/package/claude" /usr/local/bin
}

. /etc/os-release
case $VERSION_CODENAME in noble) icu=libicu74 ;; *) icu=libicu76 ;; esac
packages buildah cmake crun default-jdk-headless "$icu" libcap2-bin meson netavark ninja-build php-cli podman ruby uidmap
# For `[pod] builds`: as set-id programs these write no map of ids without CAP_SYS_ADMIN, which a pod has not.
chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap
setcap cap_setuid+ep /usr/bin/newuidmap
setcap cap_setgid+ep /usr/bin/newgidmap
packaged_tools <<'END'
buildah buildah
cmake cmake
java default-jdk-headless
meson meson
ninja ninja-build
php php-cli
podman podman
ruby ruby
END
case $VERSION_CODENAME in noble) upstream python github.com || leave_out python ;; *) package python python3 ;; esac
upstream rust static.rust-lang.org || { packages cargo rustc && packaged rust rustc; } || leave_out rust
upstream dotnet builds.dotnet.microsoft.com || leave_out dotnet
kubectl_client
helm_client
upstream claude-code npm || leave_out claude-code
upstream code-server github.com || leave_out code-server

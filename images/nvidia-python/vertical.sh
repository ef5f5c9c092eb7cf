# PyTorch and its kin for CUDA, of conda-forge, by pixi: the environment of pixi.toml in /opt/tazpod/nvidia-python.

pins() {
    cat <<'END'
# renovate: datasource=github-release-attachments depName=prefix-dev/pixi
pixi v0.81.0 amd64 7aa3ec39aecceff9062fa2ed4d42cbaa0bdc25ddea727d048e061cf188d434f6
# renovate: datasource=github-release-attachments depName=prefix-dev/pixi
pixi v0.81.0 arm64 9f8d2113fe9dc01788a65f5c2acec34fa56b1193461a5c3e9a775d6d2d621bcb
END
}

get_pixi() { release pixi prefix-dev/pixi "pixi-$CPU-unknown-linux-musl.tar.gz" && install "$WORK/pixi/pixi" /usr/local/bin; }

# There is no GPU where images are built.
environment() {
    VERSION='' REASON='it comes by pixi, which is left out'
    command -v pixi >/dev/null && fetch https://conda.anaconda.org/conda-forge/noarch/repodata_shards.msgpack.zst "$WORK/reached" || return
    REASON='pixi cannot fetch or install it'
    mkdir -p "$PYTORCH" && cp "$SHARE/verticals/nvidia-python/pixi.toml" "$PYTORCH" &&
        CONDA_OVERRIDE_CUDA=13.0 PIXI_CACHE_DIR=$WORK/pixi-cache timeout 1800 pixi install --quiet --manifest-path "$PYTORCH/pixi.toml"
}

PYTORCH=/opt/tazpod/nvidia-python
upstream pixi github.com || leave_out pixi
if kept pytorch torchvision torchaudio; then
    :
elif environment; then
    for tool in pytorch torchvision torchaudio; do
        module=$(echo "$tool" | sed s/pytorch/torch/)
        have "$tool" conda-forge "$("$PYTORCH/.pixi/envs/default/bin/python" -c "import importlib.metadata as m; print(m.version('$module'))")"
    done
else
    for tool in pytorch torchvision torchaudio; do leave_out "$tool"; done
fi

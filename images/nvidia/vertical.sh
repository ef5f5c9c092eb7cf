# CUDA 13.0, cuDNN and TensorRT: the libraries, and nvcc, out of NVIDIA's repository for Ubuntu. The driver is the host's.

# Package, version, architecture, SHA-256; to be raised by hand. apt verifies what comes out of the repository.
pins() {
    cat <<'END'
keyring v1.1-1 amd64 d2a6b11c096396d868758b86dab1823b25e14d70333f1dfa74da5ddaf6a06dba
keyring v1.1-1 arm64 6ea7d2737648936820e85677177957a0f6521b840d98eb0bbae0a4f003fa7249
cuda v13.0.3-1 any
cudnn v9.20.0.48-1 any
tensorrt v10.14.1.48-1+cuda13.0 any
END
}

# That for Debian 13 begins at CUDA 13.1, and what signs that for Debian 12 is no good to the apt of 13.
repository() {
    . /etc/os-release
    REASON="NVIDIA has CUDA 13.0 for Ubuntu 24.04, not for $PRETTY_NAME"
    [ "$VERSION_CODENAME" = noble ] || return
    cpu=$(echo "$ARCHITECTURE" | sed 's/amd64/x86_64/; s/arm64/sbsa/')
    pin keyring &&
        fetch "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/$cpu/cuda-keyring_${VERSION#v}_all.deb" "$WORK/keyring.deb" &&
        verify "$WORK/keyring.deb" "$DIGEST" && dpkg -i "$WORK/keyring.deb"
}

# Login shells make PATH anew.
get_cuda() {
    packages "cuda-libraries-13-0=${VERSION#v}" "cuda-minimal-build-13-0=${VERSION#v}" &&
        echo 'PATH=/usr/local/cuda-13.0/bin:$PATH' >/etc/profile.d/cuda.sh
}

get_cudnn() { packages "libcudnn9-cuda-13=${VERSION#v}"; }

get_tensorrt() {
    packages "libnvinfer10=${VERSION#v}" "libnvinfer-plugin10=${VERSION#v}" "libnvonnxparsers10=${VERSION#v}"
}

if kept cuda cudnn tensorrt; then
    :
elif repository; then
    for tool in cuda cudnn tensorrt; do upstream "$tool" developer.download.nvidia.com || leave_out "$tool"; done
else
    for tool in cuda cudnn tensorrt; do leave_out "$tool"; done
fi

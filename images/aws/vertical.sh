# AWS CLI v2 is a package of Debian 13's; Ubuntu 24.04 has none.

# Tool, version, architecture, SHA-256, which AWS does not publish: raise them by hand, after a look at the signature.
pins() {
    cat <<'END'
aws v2.37.4 amd64 0c59444563f4df735eeb5481f6165f95dae546c33761760d8be9855d5cfe2d12
aws v2.37.4 arm64 869aa72b9bdb931a9158d0cea9f4f0dc3f7aecf24ea1552da549b87907d28ab2
END
}

get_aws() {
    fetch "https://awscli.amazonaws.com/awscli-exe-linux-$CPU-${VERSION#v}.zip" "$WORK/aws.zip" &&
        verify "$WORK/aws.zip" "$DIGEST" && mkdir "$WORK/aws" && python3 -m zipfile -e "$WORK/aws.zip" "$WORK/aws" &&
        chmod -R +x "$WORK/aws/aws" && "$WORK/aws/aws/install" --update >/dev/null
}

. /etc/os-release
if [ "$VERSION_CODENAME" = noble ]; then
    upstream aws awscli.amazonaws.com || leave_out aws
else
    packages awscli
    packaged aws awscli
fi

# The clouds' own tools, which several verticals have: they call these functions.

# Tool, version, architecture, SHA-256; to be raised by hand. AWS publishes none: look at the signature.
clouds() {
    cat <<'END'
aws v2.37.4 amd64 0c59444563f4df735eeb5481f6165f95dae546c33761760d8be9855d5cfe2d12
aws v2.37.4 arm64 869aa72b9bdb931a9158d0cea9f4f0dc3f7aecf24ea1552da549b87907d28ab2
google-cloud-cli v588.0.0 amd64 e38ceac43022bb5a4d94d5a4a9c9c51f90f28c910b59a018ae07011e220c4412
google-cloud-cli v588.0.0 arm64 15d0365242d72caebda77647642ae73f68bde10b1f71338c8a704aea200d8ab1
helm v4.3.0 amd64 86584a54def73570558f66f5111cc53dfed56689637ae32c1201205d494f54fb
helm v4.3.0 arm64 31c5794dd55c66a51e6b7d2e2ac7a114ae8b1de41ff1d9ba51748ac973b06a08
kubectl v1.37.1 amd64 65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8
kubectl v1.37.1 arm64 ff749f4b78d9c4f1ec87307df9b50119ed819e2094aa9810cb9acffc3286c8c7
END
}

get_aws() {
    fetch "https://awscli.amazonaws.com/awscli-exe-linux-$CPU-${VERSION#v}.zip" "$WORK/aws.zip" &&
        verify "$WORK/aws.zip" "$DIGEST" && mkdir "$WORK/aws" && python3 -m zipfile -e "$WORK/aws.zip" "$WORK/aws" &&
        chmod -R +x "$WORK/aws/aws" && "$WORK/aws/aws/install" --update >/dev/null
}

# A package of Debian 13's; Ubuntu 24.04 has none.
aws_cli() {
    . /etc/os-release
    if [ "$VERSION_CODENAME" = noble ]; then
        upstream aws awscli.amazonaws.com || leave_out aws
    else
        packages awscli
        packaged aws awscli
    fi
}

# With a Python of its own on amd64 alone; elsewhere it takes the distribution's.
get_google_cloud_cli() {
    archive google-cloud-cli "https://dl.google.com/dl/cloudsdk/channels/rapid/downloads/google-cloud-cli-${VERSION#v}-linux-$(echo "$CPU" | sed s/aarch64/arm/).tar.gz" &&
        rm -rf /opt/google-cloud-sdk && mv "$WORK/google-cloud-cli/google-cloud-sdk" /opt &&
        for program in gcloud gsutil bq; do ln -sf "/opt/google-cloud-sdk/bin/$program" /usr/local/bin/ || return; done
}

google_cloud_cli() { upstream google-cloud-cli dl.google.com || leave_out google-cloud-cli; }

get_kubectl() { program kubectl "https://dl.k8s.io/release/$VERSION/bin/linux/$ARCHITECTURE/kubectl"; }

# Not the package first: a client more than one version behind its cluster is not supported.
kubectl_client() { upstream kubectl dl.k8s.io || package kubectl kubernetes-client || leave_out kubectl; }

get_helm() {
    archive helm "https://get.helm.sh/helm-$VERSION-linux-$ARCHITECTURE.tar.gz" &&
        install "$WORK/helm/linux-$ARCHITECTURE/helm" /usr/local/bin
}

helm_client() { upstream helm get.helm.sh || leave_out helm; }

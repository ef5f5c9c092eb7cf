# Tools for clusters and clouds. Clusters move on faster than distributions: what upstream publishes comes first.

# shellcheck source=images/clouds.sh
. "$SHARE/verticals/k8s/clouds.sh"

# Tool, version, architecture, SHA-256. Renovate raises those of releases on GitHub.
pins() {
    clouds
    cat <<'END'
# renovate: datasource=github-release-attachments depName=derailed/k9s
k9s v0.51.0 amd64 c3752ad51a5a4015a113819c4eeb6e55a4d0e4b8e652494797532f6fc8161dd7
# renovate: datasource=github-release-attachments depName=derailed/k9s
k9s v0.51.0 arm64 3ee05c82e5f9198928a4e86133608ba6a2c10a2244d6a7789e820f78319d640c
# renovate: datasource=github-release-attachments depName=siderolabs/talos
talosctl v1.14.2 amd64 c6c9552b0e5f767352c595fa1c0af4f186f697488646872955057d23990a66c4
# renovate: datasource=github-release-attachments depName=siderolabs/talos
talosctl v1.14.2 arm64 5b7119f9cc68c1e6dcd394564208a9ae417c5cc9e8e2585fa173082e53f5e6d7
# renovate: datasource=github-release-attachments depName=stern/stern
stern v1.34.0 amd64 7754adfa653939240f7d20fff4ada9b69cda40c9e70732301f67bb8045f1ef3e
# renovate: datasource=github-release-attachments depName=stern/stern
stern v1.34.0 arm64 e215cfc5e42d71e93b77d3fac8f0df7d736271f44b2d92a5b417eaa588edff3a
terraform v1.16.5 amd64 2bc2fcfff033265c9e02ca0351f01794eb122f62a9b2a49a3294b9e49eaab5e4
terraform v1.16.5 arm64 61a50b00485ee4810cf20581ef080fc54d34d666e175c58d9a10501c65c1ccde
# renovate: datasource=github-release-attachments depName=gruntwork-io/terragrunt
terragrunt v1.1.6 amd64 d75a80bb264758ba00dabcb17f4b507fcdab4ca90d9e41f96750df036bf69b04
# renovate: datasource=github-release-attachments depName=gruntwork-io/terragrunt
terragrunt v1.1.6 arm64 44b43df99bae7a309fdb831180bd9efb84fb145cf38a80c139e490395581649d
# renovate: datasource=github-release-attachments depName=fluxcd/flux2
flux v2.9.5 amd64 b853df82adfd7736f580692f9f734473d571606307139f8fd20c2a80dd1ff473
# renovate: datasource=github-release-attachments depName=fluxcd/flux2
flux v2.9.5 arm64 f3e159af616ec0b9bd0a405c2185cf09d06b74652c1de3c7f377e8166826651a
# renovate: datasource=github-release-attachments depName=hetznercloud/cli
hcloud v1.68.0 amd64 4b3b4b98aaec7add939cef69256d81831b6317ee601e44c52309594650ccfec2
# renovate: datasource=github-release-attachments depName=hetznercloud/cli
hcloud v1.68.0 arm64 33164d240bbb4f44430160f00bf6b9e913d5085266c7b7009045dff1ef7c4e96
END
}

get_k9s() {
    release k9s derailed/k9s "k9s_Linux_$ARCHITECTURE.tar.gz" && install "$WORK/k9s/k9s" /usr/local/bin
}

get_talosctl() {
    program talosctl "https://github.com/siderolabs/talos/releases/download/$VERSION/talosctl-linux-$ARCHITECTURE"
}

get_stern() {
    release stern stern/stern "stern_${VERSION#v}_linux_$ARCHITECTURE.tar.gz" && install "$WORK/stern/stern" /usr/local/bin
}

get_terraform() {
    archive terraform "https://releases.hashicorp.com/terraform/${VERSION#v}/terraform_${VERSION#v}_linux_$ARCHITECTURE.zip" &&
        install "$WORK/terraform/terraform" /usr/local/bin
}

get_terragrunt() {
    program terragrunt "https://github.com/gruntwork-io/terragrunt/releases/download/$VERSION/terragrunt_linux_$ARCHITECTURE"
}

get_flux() {
    release flux fluxcd/flux2 "flux_${VERSION#v}_linux_$ARCHITECTURE.tar.gz" && install "$WORK/flux/flux" /usr/local/bin
}

get_hcloud() {
    release hcloud hetznercloud/cli "hcloud-linux-$ARCHITECTURE.tar.gz" && install "$WORK/hcloud/hcloud" /usr/local/bin
}

packages ansible-core kubectx python3-venv
packaged_tools <<'END'
ansible-core ansible-core
kubectx kubectx
END
kubectl_client
helm_client
for tool in k9s talosctl stern terragrunt flux; do
    upstream "$tool" github.com || leave_out "$tool"
done
upstream terraform releases.hashicorp.com || leave_out terraform
upstream hcloud github.com || package hcloud hcloud-cli || leave_out hcloud
google_cloud_cli
if kept oci-cli; then :; elif python_programs k8s oci-cli oci; then have oci-cli PyPI "$VERSION"; else leave_out oci-cli; fi

# A runner of GitHub Actions, for one job, after which it is started again. The vault has in `github-runner/`: `url`, of a repository or an
# organisation; `token`, of somebody who may administer its runners; and if wanted `name`, `labels` with commas between, `group`, a number.
# What it is given then to prove itself stays in RAM, and goes with it.
set -eu
umask 077
runner=/opt/actions-runner settings=/run/vault/open/github-runner
fail() {
    printf 'actions-runner: %s\n' "$1" >&2
    exit "${2-1}"
}
setting() { [ ! -s "$settings/$1" ] && echo "$2" || cat "$settings/$1"; }

[ -x "$runner/run.sh" ] || fail 'it was left out of this image' 127
for name in url token; do [ -s "$settings/$name" ] || fail "the vault has no github-runner/$name"; done

url=$(cat "$settings/url")
url=${url%/}
case $url in
    # On this machine alone without encryption: the token goes there.
    https://*/* | http://127.0.0.1:*/*) ;;
    *) fail "$url is no address of a repository or an organisation" ;;
esac
host=${url#*://}
path=${host#*/}
host=${host%%/*}
case $path in */*) path=repos/$path ;; *) path=orgs/$path ;; esac
case $host in
    github.com) api=https://api.github.com ;;
    *.ghe.com) api=https://api.$host ;;
    *) api=${url%%://*}://$host/api/v3 ;;
esac

request=$(jq -n --arg name "$(setting name "$(hostname)")-$(od -An -N4 -tx1 /dev/urandom | tr -d ' ')" \
    --arg labels "$(setting labels tazpod)" --arg group "$(setting group 1)" \
    '{$name, runner_group_id: ($group | tonumber), labels: ($labels | split(",")), work_folder: "_work"}') ||
    fail 'github-runner/group is no number'
# https://docs.github.com/rest/actions/self-hosted-runners: a configuration that is good for one job. The token is no argument, which every
# program of the pod could read.
answer=$(printf 'header = "Authorization: Bearer %s"\n' "$(cat "$settings/token")" |
    curl --config - --silent --show-error --fail-with-body --max-time 60 --header 'Accept: application/vnd.github+json' \
        --json "$request" "$api/$path/actions/runners/generate-jitconfig") ||
    fail "$host does not register it: $(printf %s "$answer" | jq -r '.message? // empty' 2>/dev/null)"
# It writes through them, and removes them when a job is done.
for file in .runner .credentials .credentials_rsaparams; do ln -sfn "/run/vault/services/actions-runner/$file" "$runner/$file"; done
ACTIONS_RUNNER_INPUT_JITCONFIG=$(printf %s "$answer" | jq -er .encoded_jit_config) || fail "$host gives no configuration"
export ACTIONS_RUNNER_INPUT_JITCONFIG
unset answer
exec "$runner/run.sh"

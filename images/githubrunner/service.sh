# A runner of GitHub Actions. It registers itself with what the vault has in `github-runner/`: `url`, of a repository or an organisation, and
# `token`, for registration; `labels` and `name`, if wanted. What it is given then to prove itself stays in RAM, so each pod registers anew.
set -eu
umask 077
runner=/opt/actions-runner settings=/run/vault/open/github-runner kept=/run/vault/services/actions-runner
[ -x "$runner/run.sh" ] || { echo 'actions-runner: it was left out of this image' >&2; exit 127; }
for setting in url token; do
    [ -s "$settings/$setting" ] || { echo "actions-runner: the vault has no github-runner/$setting" >&2; exit 1; }
done
mkdir -p "$kept"
if ! [ -e "$kept/.runner" ]; then
    # Not as arguments, which every program of the pod can read.
    ACTIONS_RUNNER_INPUT_URL=$(cat "$settings/url")
    ACTIONS_RUNNER_INPUT_TOKEN=$(cat "$settings/token")
    ACTIONS_RUNNER_INPUT_NAME=$(cat "$settings/name" 2>/dev/null || hostname)
    ACTIONS_RUNNER_INPUT_LABELS=$(cat "$settings/labels" 2>/dev/null || echo tazpod)
    export ACTIONS_RUNNER_INPUT_URL ACTIONS_RUNNER_INPUT_TOKEN ACTIONS_RUNNER_INPUT_NAME ACTIONS_RUNNER_INPUT_LABELS
    "$runner/config.sh" --unattended --replace --ephemeral --disableupdate --work /home/tazpod/actions
    unset ACTIONS_RUNNER_INPUT_URL ACTIONS_RUNNER_INPUT_TOKEN ACTIONS_RUNNER_INPUT_NAME ACTIONS_RUNNER_INPUT_LABELS
fi
exec "$runner/run.sh"

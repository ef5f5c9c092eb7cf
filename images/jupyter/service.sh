# JupyterLab as a service. Its token comes from the agent; that, and what else it writes down about who may come in, stays in RAM.
set -eu
umask 077
JUPYTER_RUNTIME_DIR=${TAZPOD_TOKEN_FILE%/*}/jupyter
mkdir -p "$JUPYTER_RUNTIME_DIR"
export JUPYTER_RUNTIME_DIR JUPYTER_TOKEN_FILE="$TAZPOD_TOKEN_FILE"
umask 022
exec jupyter-lab --no-browser --ip=127.0.0.1 --port="$TAZPOD_PORT" --ServerApp.port_retries=0 \
    --ServerApp.use_redirect_file=False --ServerApp.root_dir=/workspace

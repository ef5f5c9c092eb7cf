# JupyterLab, in an environment of its own; PyTorch's is a second kernel, where nvidia-python has it.

packages python3-venv
if kept jupyterlab; then
    :
elif python_programs jupyter jupyterlab jupyter jupyter-lab; then
    have jupyterlab PyPI "$VERSION"
    torch=/opt/tazpod/nvidia-python/.pixi/envs/default/bin/python
    # A kernel is a file that names a program: JupyterLab's own Python must not be what starts it.
    ! [ -x "$torch" ] || "$torch" -m ipykernel install --prefix /usr/local --name pytorch --display-name 'Python (PyTorch)'
else
    leave_out jupyterlab
fi

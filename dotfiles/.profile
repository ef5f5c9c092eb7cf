# Login shells. Settings of your own: ~/.profile.d/*.sh, ~/.bashrc.d/*.sh.

case ":$PATH:" in
    *":$HOME/.local/bin:"*) ;;
    *) PATH="$HOME/.local/bin:$PATH" ;;
esac

for file in "$HOME"/.profile.d/*.sh; do
    if [ -r "$file" ]; then . "$file"; fi
done
unset file

if [ -n "${BASH_VERSION-}" ] && [ -r "$HOME/.bashrc" ]; then . "$HOME/.bashrc"; fi

# Login shells. Settings of your own: ~/.profile.d/*.sh, ~/.bashrc.d/*.sh.

# /etc/profile has made PATH anew. The user's own programs come first, then Go's and Node's.
for directory in "$HOME/.nvm/current/bin" "$HOME/go/bin" "$HOME/.local/bin"; do
    case ":$PATH:" in
        *":$directory:"*) ;;
        *) PATH="$directory:$PATH" ;;
    esac
done
unset directory
export PATH

if command -v nvim >/dev/null; then export EDITOR=nvim; fi
export PAGER=less LESS=-FRi

for file in "$HOME"/.profile.d/*.sh; do
    if [ -r "$file" ]; then . "$file"; fi
done
unset file

if [ -n "${BASH_VERSION-}" ] && [ -r "$HOME/.bashrc" ]; then . "$HOME/.bashrc"; fi

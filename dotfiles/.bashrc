# Interactive shells. Settings of your own: ~/.bashrc.d/*.sh.

case $- in
    *i*) ;;
    *) return ;;
esac

HISTCONTROL=ignoreboth
HISTSIZE=50000
HISTFILESIZE=100000
HISTTIMEFORMAT='%F %T  '
shopt -s histappend checkwinsize globstar autocd cmdhist

# Whether a program is there, and where, without a process.
__tazpod_have() { hash "$1" 2>/dev/null; }

# What a tool has to say to the shell. It is kept, and asked for again when the tool is newer.
__tazpod_init() { # TOOL COMMAND...
    local kept=${XDG_CACHE_HOME:-$HOME/.cache}/tazpod/$1.bash said
    __tazpod_have "$1" || return
    if [[ ! -s $kept || ${BASH_CMDS[$1]} -nt $kept ]]; then
        said=$("${@:2}") && [[ $said ]] || return
        if ! { mkdir -p "${kept%/*}" && echo "$said" >"$kept.$$" && mv -f "$kept.$$" "$kept"; } 2>/dev/null; then
            eval "$said" # a home that cannot be written
            return
        fi
    fi
    . "$kept"
}

# --- programs ----------------------------------------------------------------

alias ..='cd ..' ...='cd ../..'
alias grep='grep --color=auto' diff='diff --color=auto' ip='ip -color=auto'
alias g=git
if __tazpod_have eza; then
    alias ls='eza --group-directories-first' ll='eza -l --git --group-directories-first'
    alias la='eza -la --git --group-directories-first' lt='eza --tree --level 2 --group-directories-first'
else
    alias ls='ls --color=auto' ll='ls -lh' la='ls -lAh'
fi
if __tazpod_have lazygit; then alias lg=lazygit; fi
if __tazpod_have nvim; then alias vi=nvim vim=nvim; fi

# The shell follows to where Yazi was left.
if __tazpod_have yazi; then
    y() {
        local file directory
        file=$(mktemp) || return
        yazi "$@" --cwd-file="$file"
        read -r -d '' directory <"$file"
        rm -f "$file"
        if [[ $directory && $directory != "$PWD" ]]; then cd -- "$directory" || return; fi
    }
fi

# NVM takes longer to load than the rest of the shell to start; Node itself is on PATH without it.
export NVM_DIR=${NVM_DIR:-$HOME/.nvm}
if [[ -r $NVM_DIR/nvm.sh ]]; then
    nvm() {
        unset -f nvm
        . "$NVM_DIR/nvm.sh" --no-use
        nvm "$@"
    }
fi

# --- completion and keys -----------------------------------------------------

# Completion takes 20 ms to load: the first TAB after a command's name pays for it, not every shell.
if [[ -r /usr/share/bash-completion/bash_completion ]]; then
    __tazpod_completion() {
        unset -f __tazpod_completion
        . /usr/share/bash-completion/bash_completion
        # What it would do from now on; by its name before 2.12, too.
        if declare -F _comp_complete_load >/dev/null; then _comp_complete_load "$@"; else _completion_loader "$@"; fi
    }
    complete -o bashdefault -o default -F __tazpod_completion -D
fi

# The keys alone (Ctrl-R, Ctrl-T, Alt-C): fzf's completion is most of its script. Before 0.48 they are in a file.
__tazpod_fzf() {
    local keys=/usr/share/doc/fzf/examples/key-bindings.bash said
    if said=$(fzf --bash 2>/dev/null); then
        sed -n '/^### key-bindings.bash ###/,/^### end: key-bindings.bash ###/p' <<<"$said"
    elif [[ -r $keys ]]; then
        cat "$keys"
    fi
}
__tazpod_init fzf __tazpod_fzf
export FZF_DEFAULT_OPTS='--height 40% --layout reverse --border'
if __tazpod_have fd; then
    export FZF_DEFAULT_COMMAND='fd --type f --hidden --exclude .git'
    export FZF_CTRL_T_COMMAND='fd --hidden --exclude .git' FZF_ALT_C_COMMAND='fd --type d --hidden --exclude .git'
fi
if __tazpod_have bat; then export FZF_CTRL_T_OPTS="--preview 'bat --color always --line-range :200 {} 2>/dev/null'"; fi

# --- prompt ------------------------------------------------------------------

# The branch, or the commit's first digits, in REPLY. Reads files alone: this prompt starts no process.
__tazpod_branch() {
    local directory=$PWD git head
    REPLY=
    while [[ -n $directory && ! -e $directory/.git ]]; do directory=${directory%/*}; done
    git=$directory/.git
    if [[ -f $git ]]; then # a worktree or a submodule
        read -r git <"$git" || return 0
        git=${git#gitdir: }
        [[ $git == /* ]] || git=$directory/$git
    fi
    [[ -r $git/HEAD ]] && read -r head <"$git/HEAD" || return 0
    case $head in
        'ref: refs/heads/'*) REPLY=" (${head#ref: refs/heads/})" ;;
        *) REPLY=" (${head:0:8})" ;;
    esac
}

__tazpod_prompt() {
    local status=$? REPLY
    history -a
    __tazpod_branch
    __tazpod_git=$REPLY
    __tazpod_status=
    if ((status)); then __tazpod_status="$status "; fi
}

# Starship's own script asks it for the time, and at every start for the second prompt, which never changes: 8 ms each.
__tazpod_starship() {
    local said
    said=$(starship init bash --print-full-init) || return
    sed -E -e 's/^PS2=.*/PS2="❯❯ "/' -e 's|\$\(\S*starship time\)|$((${EPOCHREALTIME/[.,]/} / 1000))|' \
        -e 's|^ *\S*starship time$|echo $((${EPOCHREALTIME/[.,]/} / 1000))|' <<<"$said"
}

__tazpod_title() { printf '\e]0;%s: %s\a' "$HOSTNAME" "${PWD/#"$HOME"/\~}"; }

PROMPT_COMMAND='history -a'
starship_precmd_user_func=__tazpod_title
if [[ $TERM == dumb ]] || ! __tazpod_init starship __tazpod_starship; then
    PROMPT_COMMAND=__tazpod_prompt
    case $TERM in
        dumb) PS1='$__tazpod_status\h:\w$__tazpod_git\$ ' ;;
        *)
            PS1='\[\e[31m\]$__tazpod_status\[\e[32m\]\h\[\e[0m\]:\[\e[34m\]\w\[\e[33m\]$__tazpod_git\[\e[0m\]\$ '
            PS1='\[\e]0;\h: \w\a\]'$PS1
            ;;
    esac
fi

# After the prompt, which would take its hook away from where it looks for it.
__tazpod_init zoxide zoxide init bash

for file in "$HOME"/.bashrc.d/*.sh; do
    if [[ -r $file ]]; then . "$file"; fi
done
unset file
